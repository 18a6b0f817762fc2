"""`marginal calibrate`: the policy that serves a wish best, learnt from a run, with what it does on rows held out."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from marginal.entrypoints.cli_options import AsJson
from marginal.entrypoints.wording import as_json, bulleted
from marginal.errors import ConfigurationError
from marginal.evaluation.calibrating import Estimate, Outcome, Ways, Wish, calibrate
from marginal.evaluation.policy_sections import percent, put_into, section
from marginal.evaluation.replay import ScoreChoice, score_choice
from marginal.evaluation.runs import AUTO, read_run
from marginal.evaluation.shadow_log import GRADER as SHADOW
from marginal.policy.scores import SCORES
from marginal.whole_files import write_whole

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")

POLICY = "calibrated"
HALF_A_TENTH = 0.0005
"""Of a percent: what the printed figures do not show is no miss."""

DEFAULT_SCORES = tuple(ScoreChoice(name) for name in SCORES)


@app.command(
    "calibrate",
    epilog="[bold]Examples[/]\n\n"
    "marginal calibrate run.jsonl.gz --quality 0.98 -o policy.toml\n\n"
    "marginal calibrate run.jsonl.gz --cost 0.5 --score min_margin:8 --into policies.toml\n\n"
    "marginal calibrate run.jsonl.gz --quality 0.95 --guarantee 0.9 --cost-ratio 10",
)
def calibrate_command(
    run: Annotated[Path, typer.Argument(help="A run, see `marginal record`.")],
    quality: Annotated[
        float | None, typer.Option(min=0.0, max=2.0, help="Of always-large, at the least cost: 0.98 is 98 %.")
    ] = None,
    cost: Annotated[
        float | None, typer.Option(min=0.0, max=10.0, help="Of always-large, at the best quality: 0.5 is half.")
    ] = None,
    share: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Of requests to defer, held whatever the traffic.")
    ] = None,
    guarantee: Annotated[
        float | None,
        typer.Option(min=0.5, max=0.9999, help="Promise the quality with this probability, by a finite-sample test."),
    ] = None,
    score: Annotated[
        list[str] | None,
        typer.Option(help="NAME[:WINDOW[:QUANTILE]]; of several the best on the rows fitted on.", show_default="all"),
    ] = None,
    split: Annotated[
        float, typer.Option(min=0.05, max=0.95, help="Part of the rows to fit on; the rest measures.")
    ] = 0.5,
    seed: Annotated[int, typer.Option(min=0, help="Draws the rows to fit on, and resamples.")] = 0,
    cost_ratio: Annotated[
        float | None, typer.Option(min=1.0, help="A large answer costs so many small ones.", show_default="run's costs")
    ] = None,
    early_abort: Annotated[
        bool, typer.Option(help="Whether the small answer of a deferred request is paid for only until the verdict.")
    ] = True,
    name: Annotated[str, typer.Option(help="The policy's name.")] = POLICY,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A new file for the section.")] = None,
    into: Annotated[
        Path | None, typer.Option(help="A policy file in which the section is put in the place of the old one.")
    ] = None,
    format: Annotated[str, typer.Option(help="The run's format.")] = AUTO,  # noqa: A002 (as the option is called)
    json: AsJson = False,
) -> None:
    """Find the threshold that serves a wish best, measure it on rows held out, and write the policy."""
    wish = _wish(quality, cost, share, guarantee)
    scores = tuple(dict.fromkeys(score_choice(one) for one in score)) if score else DEFAULT_SCORES
    _check_name(name)
    if output is not None and output.exists():
        raise ConfigurationError(f"--output {output}: is there already; --into puts a section into a policy file")
    recorded = read_run(run, format=format)
    outcome = calibrate(recorded, wish, Ways(scores, split, seed, cost_ratio, early_abort))
    written = section(outcome, recorded.header, recorded.name, name)
    placed = _write(written, name, output=output, into=into)
    console = Console(highlight=False)
    if json:
        console.out(as_json(_json(outcome, name, written)), highlight=False)
        return
    show(outcome, console, partial=recorded.header.grader == SHADOW)
    console.print(bulleted([Text(f"policy {name} is in {placed}")]) if placed else Text(f"\n{written}"), soft_wrap=True)


def show(outcome: Outcome, console: Console, *, partial: bool) -> None:
    """Writes what is expected and what was measured, and says what that rests on."""
    expected, measured = outcome.expected, outcome.measured
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("relative to always-large")
    for heading in ("fitted", "held out", "95% interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    for title, value, estimate in (
        ("quality", expected.quality, measured.quality),
        ("cost", expected.cost, measured.cost),
        ("deferred", expected.share, measured.share),
    ):
        low, high = 100.0 * estimate.interval.low, 100.0 * estimate.interval.high
        table.add_row(title, f"{value:.1%}", f"{estimate.value:.1%}", f"{low:.1f}–{high:.1f}")  # noqa: RUF001 (a range)
    console.print(table)
    console.print()
    console.print(bulleted([Text(remark) for remark in _remarks(outcome, partial=partial)]))


def _remarks(outcome: Outcome, *, partial: bool) -> list[str]:
    measured, tried = outcome.measured, len(outcome.tried)
    counted = "up to the verdict" if outcome.early_abort else "in full"
    remarks = [
        f"{outcome.choice.label} below {outcome.threshold:.4f} is deferred: fitted on {outcome.calibration.labels:,}"
        f" labels, measured on {measured.rows:,} rows not fitted on; the large model alone is right in"
        f" {measured.large_accuracy:.1%} of these.",
        f"Costs are {outcome.cost_model.label}, a small answer that is deferred counted {counted}.",
    ]
    if tried > 1:
        remarks.append(f"The score is the best of {tried} on rows fitted on, or within half a point of that.")
    if outcome.certificate is not None:
        remarks.append(f"Promised for traffic like this run: {outcome.certificate.sentence}.")
    elif outcome.wish.aim == "quality":
        missed = "is missed" if measured.quality.value < outcome.wish.value - HALF_A_TENTH else "is met"
        remarks.append(
            f"Held out, the wish of {outcome.wish.value:.1%} {missed}: {percent(measured.quality)}."
            " A fitted threshold misses its wish about every other time, by a little; --guarantee promises it."
        )
    if outcome.left_out:
        remarks.append(f"{outcome.left_out:,} rows are left out: nobody knows whether their large answer is right.")
    if partial:
        remarks.append("A router's log lacks what was kept and not shadowed: figures are those of its rows alone.")
    return remarks


def _wish(quality: float | None, cost: float | None, share: float | None, guarantee: float | None) -> Wish:
    """Raises ConfigurationError unless exactly one thing is wished for, and a promise only of a quality under 1."""
    given = [
        (aim, value) for aim, value in (("quality", quality), ("cost", cost), ("share", share)) if value is not None
    ]
    if len(given) != 1:
        raise ConfigurationError("give one of --quality, --cost and --share")
    [(aim, value)] = given
    if aim == "share" and not 0.0 < value < 1.0:
        raise ConfigurationError("--share: must be above 0 and below 1")
    if guarantee is not None and not (aim == "quality" and 0.0 < value < 1.0):
        raise ConfigurationError("--guarantee: goes with a --quality above 0 and below 1")
    return Wish(aim, value, guarantee)


def _check_name(name: str) -> None:
    """Raises ConfigurationError for a name that no policy may have."""
    plain = name.replace("-", "a")
    if not (plain.isascii() and plain.isalnum() and plain == plain.lower() and len(name) <= 63 and name[0] != "-"):
        raise ConfigurationError(f"--name: {name!r} is not lower-case letters, digits and dashes, 63 at most")


def _write(written: str, name: str, *, output: Path | None, into: Path | None) -> Path | None:
    """Writes the section, or the policy file with it; says where. Raises ConfigurationError naming the file."""
    path = output or into
    if path is None:
        return None
    try:
        text = put_into(into.read_text("utf-8"), name, written) if into else written
    except UnicodeDecodeError:
        raise ConfigurationError(f"--into {into}: is not UTF-8 text") from None
    except OSError as error:
        raise ConfigurationError(f"--into {into}: cannot be read, {(error.strerror or 'no reason').lower()}") from None
    except ConfigurationError as error:
        raise ConfigurationError(f"--into {into}: {error}") from None
    try:
        write_whole(path, text)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be written, {(error.strerror or 'no reason').lower()}") from None
    return path


def _json(outcome: Outcome, name: str, written: str) -> dict[str, object]:
    """The outcome as plain values."""
    certificate, measured = outcome.certificate, outcome.measured
    return {
        "policy": name,
        "score": outcome.choice.label,
        "threshold": outcome.threshold,
        "wish": {"aim": outcome.wish.aim, "value": outcome.wish.value, "confidence": outcome.wish.confidence},
        "costs": outcome.cost_model.label,
        "labels": outcome.calibration.labels,
        "expected": {
            "quality": outcome.expected.quality, "cost": outcome.expected.cost, "share": outcome.expected.share,
        },
        "held_out": {
            "rows": measured.rows,
            "large_accuracy": measured.large_accuracy,
            "quality": _estimate(measured.quality),
            "cost": _estimate(measured.cost),
            "share": _estimate(measured.share),
        },
        "guarantee": None if certificate is None else {
            "epsilon": certificate.epsilon, "delta": certificate.delta, "labels": certificate.labels,
            "kept": certificate.kept, "sentence": certificate.sentence,
        },
        "tried": [
            {"score": choice.label, "quality": expected and expected.quality, "cost": expected and expected.cost}
            for choice, expected in outcome.tried
        ],
        "left_out": outcome.left_out,
        "section": written,
    }  # fmt: skip


def _estimate(estimate: Estimate) -> dict[str, float]:
    return {"value": estimate.value, "low": estimate.interval.low, "high": estimate.interval.high}
