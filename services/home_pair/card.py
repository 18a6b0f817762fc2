"""Writes the model card: the figures are measured on the shipped files each time."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from home_pair.evaluate import QUESTIONS_SEED, evaluate, model_file
from home_pair.recipes import LARGE, SMALL
from home_pair.tasks import HELD_OUT_PATTERN_SHARE, TYPO_SHARE

_TIERS = ("small", "large")

_HEAD = """# The home pair

Two tiny language models, trained from scratch for this project, so that routing can be tried and tested on any machine
without a download. They turn a request to a home-and-kitchen assistant, in free English, into one short structured
answer: `wake me on thursday at quarter to seven in the morning` becomes `alarm thu 06:45`.

**They are not general models.** They know fifteen tasks and a few hundred words. Whatever is not one of these tasks is
to be answered `sorry, unknown`; neither model holds any knowledge of the world, and any other answer to a request from
outside the tasks means nothing. English only, lower case (the chat template lower-cases), one turn (the template shows
the last turn alone), at most 256 tokens. Arithmetic is memorised within small tables: `add` knows 3 to 49 plus or minus
2 to 15, `times` 2 to 9 times 3 to 12; beyond them the answer is a guess.

Licence: Apache-2.0. The training data is synthetic, drawn from the generator in `services/home_pair`; no other text and
no other model went into it.
"""

_HOW = """## How they were made

* **Data.** Templates with alternatives and slots, numbers as digits or words, courtesies, spelling mistakes in
  {typos} % of the requests (none in `compound`), invented names that only copying can reproduce. Every training
  example is drawn fresh; there are no epochs.
* **Split.** By MD5 of the slot values (`timer`, `alarm`, `shopping`, `remind`, `sort`), or of the whole wording where
  the table of facts is small (`light`, `heat`, `play`, `add`, `times`, `convert`, `compare`, `calendar`, `unknown`):
  8 % test, 4 % dev, the rest training. `compound` joins clauses of the same split. Templates are split by MD5 too:
  {unseen} % of the held-out draws use a template never trained on where there is one, made of words that training
  shows. So arithmetic is tested on new wordings, not on new sums.
* **Held-out requests.** `home-questions.jsonl`, {questions} requests of the test split, seed {seed}. None of
  them occurs among the examples either model was trained on. {looked}
* **Tokenizer.** Byte-level BPE, 1,024 tokens, single digits, control tokens `<|end|>` 0, `<|user|>` 1,
  `<|assistant|>` 2.
* **Models.** Llama architecture, tied embeddings; trained with AdamW on the answers and, at a tenth of the weight, on
  the requests. `python -m home_pair parity` counts how many of 200 requests the runtime tokenizes and answers as the
  training code does: all of them, by either shipped model.

"""

_LOOKED = """Tasks, mixes, sizes and steps were chosen
  on the dev split. Some test requests were read, without answers of a model, while the generator was written; the
  test split was graded when everything was fixed."""

_REBUILD = """Rebuild both from the seed with `make pair`, which takes about 25 minutes on two idle cores. An
interrupted build resumes from its last checkpoint with fresh examples. The shipped pair is what one uninterrupted
`make pair` left; another agrees with it in figures, not in bits, for the order in which two threads add.
"""


def write_card(models: Path) -> None:
    """Measures the shipped files and writes `MODEL_CARD.md` next to them."""
    (models / "MODEL_CARD.md").write_text(card(models, evaluate(models)), encoding="ascii")


def card(models: Path, report: dict[str, Any]) -> str:
    """Renders the card from the figures of `evaluate` and the facts stored in the files."""
    how = _HOW.format(
        typos=round(100 * TYPO_SHARE),
        unseen=round(100 * HELD_OUT_PATTERN_SHARE),
        questions=f"{report['questions']:,}",
        seed=QUESTIONS_SEED,
        looked=_LOOKED,
    )
    return "\n".join((_HEAD, quality(report), how, _table(("", *_TIERS), _making_rows(models)), _REBUILD))


def quality(report: dict[str, Any]) -> str:
    """Renders the measured half of the card."""
    return "\n".join(
        (
            f"## Quality on the {report['questions']:,} held-out requests\n",
            "Exact match, greedy, through the llama.cpp runtime. Reproduce every figure here, from `services`, with\n",
            "    .venv/bin/python -m home_pair evaluate\n",
            _table(("", *_TIERS), _quality_rows(report)),
            f"The small model is right and the large one wrong on {report['small right, large wrong']:.1%}.\n",
            "### By task\n",
            _table(("task", "n", *_TIERS), _task_rows(report)),
            "### Calibration\n",
            "The margin of a token is the probability of the likeliest token minus that of the second; an answer has\n"
            "the smallest of its tokens. Each row is a tenth of the answers, from the least sure up.\n",
            _table(("small: margin", "right", "large: margin", "right"), _decile_rows(report)),
            "### Deferring the least sure\n",
            "Accuracy of the pair when this share of the requests goes to the large model, by the small one's score.\n",
            _table(("deferred", "threshold (minimum)", *report["deferral"], "at random"), _deferral_rows(report)),
            "### Outside the home\n",
            _strangers(report),
        )
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def _quality_rows(report: dict[str, Any]) -> list[Sequence[str]]:
    pair = [report[tier] for tier in _TIERS]
    rows: list[Sequence[str]] = [
        ("accuracy", *(f"**{q['accuracy']:.3f}**" for q in pair)),
        ("95 % interval", *(f"{q['interval'][0]:.3f} to {q['interval'][1]:.3f}" for q in pair)),
    ]
    rows += [(f"AUROC, {name} margin", *(_share(q["auroc"][name]) for q in pair)) for name in pair[0]["auroc"]]
    return [*rows, ("file, bytes", *(f"{q['bytes']:,}" for q in pair))]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _task_rows(report: dict[str, Any]) -> list[Sequence[str]]:
    small, large = (report[tier]["tasks"] for tier in _TIERS)
    return [
        (task, str(small[task]["n"]), f"{small[task]['accuracy']:.2f}", f"{large[task]['accuracy']:.2f}")
        for task in small
    ]


def _decile_rows(report: dict[str, Any]) -> list[Sequence[str]]:
    pairs = zip(*(report[tier]["deciles"] for tier in _TIERS), strict=True)
    return [
        [cell for low, high, right in pair for cell in (f"{low:.3f} to {high:.3f}", f"{right:.2f}")] for pair in pairs
    ]


def _deferral_rows(report: dict[str, Any]) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = []
    for same_share in zip(*report["deferral"].values(), strict=True):
        percent, threshold, _, chance = same_share[0]
        rows.append((f"{percent} %", f"{threshold:.3f}", *(f"{r[2]:.3f}" for r in same_share), f"{chance:.3f}"))
    return rows


def _strangers(report: dict[str, Any]) -> str:
    lines = []
    for tier in _TIERS:
        found = report[tier]["strangers"]
        astray = "; ".join(f"`{ask}` -> `{text}` ({margin:.2f})" for ask, (text, margin) in found["astray"].items())
        lines.append(
            f"* {tier}: {found['unknown']:.0%} of {found['n']} hand-written requests, never seen in training, are\n"
            f"  answered `sorry, unknown`; median minimum margin {found['median minimum margin']:.3f}.\n"
            f"  Astray, with margin: {astray or 'none'}."
        )
    return "\n".join(lines) + "\n"


def _making_rows(models: Path) -> list[Sequence[str]]:
    from gguf import GGUFReader  # part of the training's dependencies, not of the services'

    columns = []
    for tier, recipe in zip(_TIERS, (SMALL, LARGE), strict=True):
        fields = GGUFReader(model_file(models, tier)).fields
        fact = {name.removeprefix("marginal."): f.contents() for name, f in fields.items() if "marginal." in name}
        shape = recipe.shape
        columns.append(
            (
                f"{shape.parameters:,}",
                f"{shape.width} x {shape.layers}, {shape.heads} heads, hidden {shape.hidden}",
                "F16" if tier == "small" else "Q8_0",
                f"{recipe.rate:g}, decayed over the last {recipe.decay:.0%}",
                f"{int(fact['steps']):,}",
                f"{int(fact['cost.examples']):,}",
                fact["seed"],
                f"{int(fact['cost.wall']):,} s wall, {int(fact['cost.cpu']):,} s of CPU, two cores",
            )
        )
    names = (
        "parameters",
        "width x layers",
        "weights",
        "learning rate",
        "steps",
        "examples",
        "seed",
        "training",
    )
    return [(name, *values) for name, *values in zip(names, *columns, strict=True)]
