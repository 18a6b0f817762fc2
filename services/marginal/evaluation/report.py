"""One HTML page for one or several evaluations, complete in itself: no script, no request, light and dark.

First the conclusion in words, then the pictures, then the tables, then how it was measured.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files

from marginal.evaluation.conclusion import Conclusion, conclude, cost_in_words, default_of, score_of, spoken_of
from marginal.evaluation.costs import Unit
from marginal.evaluation.drawing import DARK, LIGHT, Palette
from marginal.evaluation.figures import pictures, slug
from marginal.evaluation.intervals import Interval
from marginal.evaluation.protocol import RULES, Cell, Evaluation, Setting
from marginal.evaluation.tables import Table, table_html
from marginal.policy.scores import SCORES

STYLE_SHEET = "report.css"

VERDICTS = {"pays": "pays", "open": "not clear", "does_not_pay": "does not pay"}


@dataclass(frozen=True, slots=True)
class Origin:
    """How a report came about: the command as it was typed, and the program's version."""

    command: str
    version: str


def render(evaluations: Sequence[Evaluation], origin: Origin) -> str:
    """The whole page, of at least one evaluation."""
    title = "Does the cascade pay?"
    sections = "\n".join(map(_section, evaluations))
    several = len(evaluations) > 1
    contents = _contents(evaluations) if several else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{title} {escape(', '.join(map(_pair, evaluations)))}</title>\n"
        f"<style>\n{_style()}</style>\n</head>\n<body>\n<main>\n"
        f"<header><h1>{title}</h1>{contents}</header>\n{sections}\n{_method(evaluations, origin)}\n</main>\n"
        "</body>\n</html>\n"
    )


def file_names(evaluations: Sequence[Evaluation]) -> dict[str, bytes]:
    """The figures as PNG, by file names."""
    return {f"{one.name}.png": one.png() for evaluation in evaluations for one in pictures(evaluation)}


def _style() -> str:
    rules = files("marginal.evaluation").joinpath(STYLE_SHEET).read_text("utf-8")
    dark = f"@media (prefers-color-scheme: dark) {{\n:root {{ {_variables(DARK)} }}\n}}\n"
    return f":root {{ {_variables(LIGHT)} }}\n{dark}{rules}"


def _variables(palette: Palette) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in palette.items())


def _pair(evaluation: Evaluation) -> str:
    return f"{evaluation.header.small} → {evaluation.header.large}"


def _contents(evaluations: Sequence[Evaluation]) -> str:
    items = "".join(
        f'<li><a href="#{slug(one.name)}">{escape(_pair(one))}</a> {_verdict(conclude(one))}</li>'
        for one in evaluations
    )
    return f'<nav aria-label="Runs"><ul>{items}</ul></nav>'


def _verdict(found: Conclusion) -> str:
    return f'<span class="verdict {found.verdict}">{VERDICTS[found.verdict]}</span>'


def _section(evaluation: Evaluation) -> str:
    found = conclude(evaluation)
    remarks = "".join(f"<li>{escape(remark)}</li>" for remark in found.remarks)
    figures = "\n".join(
        f"<figure>{picture.svg()}<figcaption><strong>{escape(picture.title)}.</strong> {escape(picture.says)}"
        "</figcaption></figure>"
        for picture in pictures(evaluation)
    )
    tables = "\n".join(table_html(table) for table in _tables(evaluation))
    return (
        f'<section id="{slug(evaluation.name)}" aria-labelledby="{slug(evaluation.name)}-heading">\n'
        f'<h2 id="{slug(evaluation.name)}-heading">{escape(_pair(evaluation))}'
        f" {_verdict(found)}</h2>\n"
        f'<p class="conclusion">{escape(found.headline)}</p>\n<ul class="remarks">{remarks}</ul>\n'
        f'<div class="figures">\n{figures}\n</div>\n{tables}\n</section>'
    )


def _tables(evaluation: Evaluation) -> Iterable[Table]:
    yield _baselines(evaluation)
    yield _savings(evaluation)
    models = dict.fromkeys(setting.model for setting in evaluation.settings)
    for model in models:
        yield _areas(evaluation, [setting for setting in evaluation.settings if setting.model == model])
    yield _scores(evaluation)


def _baselines(evaluation: Evaluation) -> Table:
    setting, _ = spoken_of(evaluation)
    small, large = evaluation.small_accuracy, evaluation.large_accuracy
    oracle = f"{evaluation.agreement_oracle:.1%} at most"
    return Table(
        f"Baselines, counted with {cost_in_words(setting.model)}",
        ("", "accuracy", "cost", "normalised AUC"),
        (
            ("small only", f"{small:.1%}", f"{setting.small_cost / setting.large_cost:.0%}", ""),
            ("large only", f"{large:.1%}", "100%", ""),
            (
                "random",
                "",
                "",
                f"{setting.random_auc:.4f} {_range(setting.random_interval, 4)}",
            ),
            ("oracle", oracle, "", f"{setting.oracle_auc:.4f}"),
        ),
        note="Random asks one tier by lot and pays that one only. The oracle asks the small tier, and the large one"
        " exactly where that helps.",
    )


def _savings(evaluation: Evaluation) -> Table:
    spoken, cell = spoken_of(evaluation)
    settings = [setting for setting in evaluation.settings if setting.model == spoken.model]
    columns = [setting.cell(cell.score, cell.rule).savings for setting in settings]
    return Table(
        f"What {cell.score} with {cell.rule} costs, relative to always-large",
        ("of the large model's accuracy", "random", *map(_abort, settings)),
        tuple(
            (
                f"{savings[0].quality:.0%}",
                f"{savings[0].random:.0%}",
                *(f"{one.cost:.0%} {_range(one.interval, 0, 100.0)}" for one in savings),
            )
            for savings in zip(*columns, strict=True)
        ),
        note="Read off the curve of these rows, with 95% intervals: a threshold found on other rows does about as well"
        " on average, and misses a quality about as often as it meets it.",
    )


def _areas(evaluation: Evaluation, settings: Sequence[Setting]) -> Table:
    """The normalised AUC of every score and rule, the best first within a rule."""
    chosen, default = score_of(evaluation), default_of(evaluation)
    rows: list[tuple[str, ...]] = []
    bold, groups = [], {}
    for rule in evaluation.protocol.rules:
        groups[len(rows)] = f"{rule}, {RULES[rule]}"
        cells = sorted((one for one in settings[-1].cells if one.rule == rule), key=lambda one: -one.auc)
        for cell in cells:
            mark = " (default)" if cell.score == default and cell.score != chosen else ""
            both = [setting.cell(cell.score, rule) for setting in settings]
            if cell.score == chosen:
                bold.append(len(rows))
            rows.append((f"{cell.score}{mark}", *(text for one in both for text in _area(one))))
    headings = [heading for setting in settings for heading in (f"AUC, {_abort(setting)}", "points above random")]
    return Table(
        f"Normalised AUC, counted with {cost_in_words(settings[0].model)}",
        ("score under a rule", *headings),
        tuple(rows),
        bold=tuple(bold),
        groups=groups,
        note=f"Random {settings[0].random_auc:.4f}, oracle {settings[-1].oracle_auc:.4f}. Bold is the score spoken of."
        " 95% intervals are bootstrapped over rows, for `above random` pair by pair.",
    )


def _area(cell: Cell) -> tuple[str, str]:
    return (
        f"{cell.auc:.4f} {_range(cell.auc_interval, 4)}",
        f"{100 * cell.gain:+.2f} {_range(cell.gain_interval, 2, 100.0, sign='+')}",
    )


def _scores(evaluation: Evaluation) -> Table:
    rows = []
    for view in evaluation.views:
        kind = SCORES[view.score.partition(":")[0]]
        alike = evaluation.alike[view.score]
        auroc = "" if view.auroc is None else f"{view.auroc:.3f}"
        rows.append((view.score, kind.says, auroc, f"{view.unscored:,}", ", ".join(alike), kind.source))
    return Table(
        "Scores",
        ("score", "what it is", "AUROC", "no score", "says the same here", "source"),
        tuple(rows),
        prose=(1, 4, 5),
        note="AUROC: how often a right small answer scores above a wrong one. A row without a score is deferred.",
    )


def _abort(setting: Setting) -> str:
    return "early abort" if setting.early_abort else "paid in full"


def _range(interval: Interval, decimals: int, scale: float = 1.0, sign: str = "") -> str:
    """In brackets, for a table; figures that may be negative are parted by a word."""
    low, high = scale * interval.low, scale * interval.high
    between = " to " if sign else "–"  # noqa: RUF001 (a range)
    return f"({low:{sign}.{decimals}f}{between}{high:{sign}.{decimals}f})"


def _method(evaluations: Sequence[Evaluation], origin: Origin) -> str:
    protocol = evaluations[0].protocol
    items = [
        ("Data", "; ".join(map(_data, evaluations))),
        (
            "Protocol",
            f"{protocol.budgets} budgets evenly from the small tier's mean cost to the large one's; at the last the"
            f" large tier answers everything. {protocol.orders} orders of the stream (numpy RandomState, seeds 0 to"
            f" {protocol.orders - 1}), accuracy averaged. Normalised AUC: the area by trapezoids over the range of"
            " budgets. Ramírez, Birch, Titov, COLM 2024, and their code.",
        ),
        ("Rules", "; ".join(f"{rule}, {RULES[rule]}" for rule in protocol.rules) + ". " + _BUDGETS),
        ("Cost models", _COSTS),
        ("Early abort", _aborting(evaluations)),
        (
            "Intervals",
            f"95%, percentiles of {protocol.resamples:,} bootstrap resamples of the rows, the same ones for everything"
            " in a run; what a rule did to a row in its order is resampled with it, the rule is not run again.",
        ),
        ("Command", f"{origin.command} (marginal {origin.version})"),
    ]
    terms = "".join(f"<dt>{term}</dt><dd>{escape(said)}</dd>" for term, said in items)
    heading = '<h2 id="method-heading">Method</h2>'
    return f'<section id="method" aria-labelledby="method-heading">{heading}<dl>{terms}</dl></section>'


_BUDGETS = (
    "The budget rule is judged at its budget, which its reserves keep; the others at what they really spent. The share"
    " deferred at a budget b is (b - c1) / (c2 - (1 - a) c1), a being the share of a small answer that is paid when it"
    " is aborted: the paper's (b - c1) / c2 when that is all of it."
)
_COSTS = (
    "fixed: a small answer costs 1, a large one c. time: seconds. tokens: the run's recorded costs. A deferred request"
    " pays both attempts."
)


def _aborting(evaluations: Sequence[Evaluation]) -> str:
    share = evaluations[0].protocol.aborted_share
    one = (
        "in full, as no --aborted-share was given" if share is None else f"{share:g} of it, as given by --aborted-share"
    )
    fixed = any(setting.model.unit is Unit.FIXED for one in evaluations for setting in one.settings)
    stated = f" Fixed costs of small answers of one token: {one}." if fixed else ""
    return (
        "A small answer is stopped at the token at which its verdict is certain, and what is not generated is not paid."
        " fixed: the share of its tokens seen. time: its time to the first token and, of the rest, the share of its"
        " tokens seen. tokens: its input and the tokens seen, at the price per output token that reproduces the"
        f" recorded costs.{stated} The budget rule learns from scores and waits until one is known exactly."
    )


def _data(evaluation: Evaluation) -> str:
    held = f" after the first {evaluation.held_out:,}, which are held out" if evaluation.held_out else ", none held out"
    left = f", {evaluation.left_out:,} left out without a grade" if evaluation.left_out else ""
    recorded = f", recorded {evaluation.header.created}" if evaluation.header.created else ""
    return f"{evaluation.name}: {evaluation.rows:,} rows{held}{left}, graded by {evaluation.header.grader}{recorded}"
