"""What a recorded run amounts to: how often each tier is right, what it costs, how often both say the same."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import fsum
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from marginal.entrypoints.wording import amounts
from marginal.evaluation.intervals import Interval, wilson
from marginal.evaluation.results import LARGE, Run, TierResult


@dataclass(frozen=True, slots=True)
class TierSummary:
    """One tier over a run: accuracy in [0, 1] over the `graded` rows, None without; nano-units per 1,000 requests."""

    model: str
    graded: int
    accuracy: float | None
    accuracy_interval: Interval | None
    cost_nanos_per_1000: int
    mean_seconds: float
    mean_first_token_seconds: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    """A whole run; `agreement` is the share of the rows in which both answers say the same, None when no row says."""

    file: Path
    questions: int
    resumed: int
    failed: int
    labels: str
    currency: str
    agreement: float | None
    small: TierSummary
    large: TierSummary

    def as_json(self) -> dict[str, object]:
        """The summary as plain values."""
        return asdict(self) | {"file": str(self.file)}


def summarise(run: Run, file: Path, *, resumed: int = 0, failed: int = 0) -> Summary:
    """Adds a run up."""
    agreeing = [row.agrees for row in run.rows if row.agrees is not None]
    return Summary(
        file=file,
        questions=len(run.rows),
        resumed=resumed,
        failed=failed,
        labels=run.header.labels,
        currency=run.header.currency,
        agreement=sum(agreeing) / len(agreeing) if agreeing else None,
        small=_tier(run.header.small, [row.small for row in run.rows]),
        large=_tier(run.header.large, [row.large for row in run.rows]),
    )


def table(summary: Summary) -> RenderableType:
    """Both tiers below each other, and what there is to say about both."""
    drawn = Table(
        title=f"{summary.questions:,} questions in {summary.file}", title_justify="left", title_style="bold",
        box=None, padding=(0, 2, 0, 0), pad_edge=False,
    )  # fmt: skip
    for heading in ("\ntier", "\nmodel"):
        drawn.add_column(heading, overflow="fold")
    for heading in ("\naccuracy", "95%\ninterval", "cost per\n1,000", "mean\nms", "first token\nms"):
        drawn.add_column(heading, justify="right", no_wrap=True)
    tiers = {"small": summary.small, "large": summary.large}
    costs = amounts([tier.cost_nanos_per_1000 for tier in tiers.values()], summary.currency, significant=3)
    for (name, tier), cost in zip(tiers.items(), costs, strict=True):
        drawn.add_row(name, *_cells(tier, cost))
    remarks = []
    if summary.agreement is not None:
        remarks.append(Text(f"both answer the same to {summary.agreement:.1%}"))
    if unknown := summary.questions - summary.small.graded:
        remarks.append(Text(f"{unknown:,} small answers are not known and in neither share: they were deferred"))
    if summary.labels == LARGE:
        remarks.append(Text("right is what the large tier answers, so it always is"))
    if summary.failed:
        left_out = f"{summary.failed:,} questions got no answer and are left out; the same command asks them again"
        remarks.append(Text(left_out, "bold red"))
    return Group(drawn, *remarks)


def _tier(model: str, results: Sequence[TierResult]) -> TierSummary:
    grades = [result.correct for result in results if result.correct is not None]
    firsts = [result.first_token_seconds for result in results if result.first_token_seconds is not None]
    return TierSummary(
        model=model,
        graded=len(grades),
        accuracy=sum(grades) / len(grades) if grades else None,
        accuracy_interval=wilson(sum(grades), of=len(grades)) if grades else None,
        cost_nanos_per_1000=round(1_000 * sum(result.cost_nanos for result in results) / len(results)),
        mean_seconds=fsum(result.seconds for result in results) / len(results),
        mean_first_token_seconds=fsum(firsts) / len(firsts) if firsts else None,
    )


def _cells(tier: TierSummary, cost: str) -> list[str]:
    interval, first = tier.accuracy_interval, tier.mean_first_token_seconds
    return [
        tier.model,
        "" if tier.accuracy is None else f"{tier.accuracy:.1%}",
        "" if interval is None else f"{100 * interval.low:.1f}–{100 * interval.high:.1f}",  # noqa: RUF001 (a range)
        cost,
        f"{1_000 * tier.mean_seconds:.1f}",
        "" if first is None else f"{1_000 * first:.1f}",
    ]
