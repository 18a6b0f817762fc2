"""Sums of costs as people and programs read them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from marginal.entrypoints.wording import amounts, bulleted
from marginal.routing.spending import CostRow, CostSummary, Figures, Grouping

BAR = 8
NAME = 16
"""Columns that the name of a row has at least, when it is that long."""

WIDE = 120
"""From so many columns on, tokens, what always-large would have cost, and what was wasted are shown too."""

_MONEY = ("total_nanos", "always_large_nanos", "saved_nanos", "wasted_nanos", "shadow_nanos")


@dataclass(frozen=True, slots=True)
class _Row:
    """A row as it is shown: its amounts in words, and its share of the total, None in a total."""

    name: str
    figures: Figures
    money: Mapping[str, str]
    share: float | None


@dataclass(frozen=True, slots=True)
class _Column:
    heading: str
    cell: Callable[[_Row], str | Text]
    justify: Literal["left", "right"] = "right"


def costs_shown(summary: CostSummary, *, width: int) -> RenderableType:
    """A row per tenant, policy, task or day, what each has of the total, and totals."""
    whole = _counts(summary.totals)
    columns = list(_columns(whole, wide=width >= WIDE))
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    above = "\n" * any("\n" in column.heading for column in columns)
    rows = list(_rows(summary))
    longest = max(len(row.name) for row in rows)
    table.add_column(f"{above}{summary.by.value}", overflow="fold", min_width=min(longest, NAME))
    for column in columns:
        heading = column.heading if "\n" in column.heading else f"{above}{column.heading}"
        table.add_column(heading, justify=column.justify, no_wrap=True)
    for row in rows:
        style = "bold" if row.share is None else ""
        table.add_row(row.name, *(column.cell(row) for column in columns), style=style)
    return Group(table, Text(), bulleted(Text(line, "dim") for line in _remarks(summary, whole)))


def _columns(whole: Figures, *, wide: bool) -> Iterator[_Column]:
    """What there is nothing of is left out."""
    yield _Column("requests", lambda row: f"{row.figures.requests:,}")
    yield _Column("deferred", lambda row: f"{row.figures.deferral_share:.1%}" if row.figures.judged else "")
    if whole.degraded:
        yield _Column("degraded", lambda row: f"{row.figures.degraded_share:.1%}")
    if whole.failed:
        yield _Column("failed", lambda row: f"{row.figures.failed:,}")
    if wide:
        yield _Column("tokens\nin", lambda row: f"{row.figures.input_tokens:,}")
        yield _Column("tokens\nout", lambda row: f"{row.figures.output_tokens:,}")
    yield _Column("cost", lambda row: row.money["total_nanos"])
    if wide or not (whole.degraded and whole.failed):
        yield _Column("share", lambda row: Text() if row.share is None else bar(row.share), "left")
    if wide:
        yield _Column("always-\nlarge", lambda row: row.money["always_large_nanos"])
    yield _Column("saved", lambda row: row.money["saved_nanos"])
    yield _Column("", lambda row: f"{row.figures.saved_share:.0%}")
    if wide:
        yield _Column("wasted", lambda row: row.money["wasted_nanos"])
    if wide and whole.shadow_nanos:
        yield _Column("shadow", lambda row: row.money["shadow_nanos"])


def _rows(summary: CostSummary) -> Iterator[_Row]:
    wholes = {total.currency: total.figures.total_nanos for total in summary.totals}
    several = len(wholes) > 1
    money = iter(_money([*summary.rows, *summary.totals]))
    for row in summary.rows:
        whole = wholes[row.currency]
        share = row.figures.total_nanos / whole if whole else 0.0
        yield _Row(row.key or f"no {summary.by.value}", row.figures, next(money), share)
    for total in summary.totals:
        yield _Row(f"total {total.currency}" if several else "total", total.figures, next(money), None)


def costs_as_json(summary: CostSummary) -> dict[str, object]:
    """The same as plain values; money in nano-units."""
    return {
        "by": summary.by.value,
        "rows": [{summary.by.value: row.key or None, **_row_as_json(row)} for row in summary.rows],
        "totals": [_row_as_json(row) for row in summary.totals],
        "damaged": summary.damaged,
        "left_out": summary.left_out,
    }


def costs_as_rows(summary: CostSummary) -> Sequence[Mapping[str, object]]:
    """The rows for a table that programs read, without totals."""
    return [{summary.by.value: row.key, **_row_as_json(row)} for row in summary.rows]


def _row_as_json(row: CostRow) -> Mapping[str, Any]:
    figures = row.figures
    return {
        "currency": row.currency,
        **asdict(figures),
        "deferral_share": figures.deferral_share,
        "degraded_share": figures.degraded_share,
        "saved_share": figures.saved_share,
    }


def _money(rows: Sequence[CostRow]) -> list[dict[str, str]]:
    """Every amount of every row, each column of one currency with the same decimals."""
    shown: list[dict[str, str]] = [{} for _ in rows]
    for currency in {row.currency for row in rows}:
        places = [place for place, row in enumerate(rows) if row.currency == currency]
        for name in _MONEY:
            texts = amounts([getattr(rows[place].figures, name) for place in places], currency, significant=3)
            for place, text in zip(places, texts, strict=True):
                shown[place][name] = text
    return shown


def _counts(totals: Sequence[CostRow]) -> Figures:
    """Counts over all currencies, whose amounts mean something only when there is one; they tell what there is."""
    whole = Figures()
    for total in totals:
        for name in Figures.__slots__:
            setattr(whole, name, getattr(whole, name) + getattr(total.figures, name))
    return whole


def _remarks(summary: CostSummary, whole: Figures) -> Iterator[str]:
    yield "saved is against always asking the large tier; deferred is of the requests that a score decided"
    if summary.by is Grouping.DAY:
        yield "days are of UTC, by when a request was admitted"
    if whole.cancelled:
        yield f"{whole.cancelled:,} requests were given up by their callers, and cost what they had come to"
    if whole.reckoned:
        yield f"{whole.reckoned:,} requests died with their router: charged at the last that was known of them"
    if summary.left_out:
        yield f"{summary.left_out:,} more rows are in the totals only"
    if summary.damaged:
        yield f"{summary.damaged:,} lines of the journal could not be read and were passed over"


def bar(share: float, *, full: str = "cyan") -> Text:
    """A share of a whole as people would rather look at it, in 13 columns; more than the whole is a full bar."""
    filled = min(BAR, max(int(share > 0), round(share * BAR)))
    return Text.assemble(("━" * filled, full), ("─" * (BAR - filled), "dim"), f" {share:.0%}".rjust(5))


def moment_shown(at: float) -> str:
    """A moment in UTC to the second."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
