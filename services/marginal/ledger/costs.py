"""What requests have cost, summed up from their record lines: one pass, integers, no I/O and no clock."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from marginal.ledger.ports import DAY_SECONDS
from marginal.policy.deferral import Reason, Verdict
from marginal.routing.records import CANCELLED, Outcome, Settlement
from marginal.routing.spending import MOST_ROWS, CostQuery, CostRow, CostSummary, Figures, Grouping

Line = Mapping[str, Any]

_SCORE, _DEFER = Reason.SCORE.value, Verdict.DEFER.value
_SHADOW, _SETTLED = Outcome.SHADOW.value, Settlement.SETTLED.value


class CostTally:
    """Sums of the records that a query is about; memory is that of the rows, whatever is added."""

    def __init__(self, query: CostQuery) -> None:
        self._query = query
        self._key = _KEYS[query.by]
        self._since = float("-inf") if query.since is None else query.since
        self._until = float("inf") if query.until is None else query.until
        self._found: dict[tuple[str | int, str], Figures] = {}

    def add(self, line: Line) -> None:
        """Counts one record when the query is about it. Raises KeyError for a line that is no record."""
        self._count(line, 1)

    def take_back(self, line: Line) -> None:
        """Counts one record no more, because a surer one of the same request was found."""
        self._count(line, -1)

    def summary(self, *, most_rows: int = MOST_ROWS, damaged: int = 0) -> CostSummary:
        """What was counted so far."""
        rows = [
            CostRow(_name(key), currency, figures)
            for (key, currency), figures in self._found.items()
            if figures.requests
        ]
        rows.sort(key=_day if self._query.by is Grouping.DAY else _dearest)
        shown, left_out = tuple(rows[:most_rows]), max(0, len(rows) - most_rows)
        return CostSummary(self._query.by, shown, tuple(_totals(rows)), damaged=damaged, left_out=left_out)

    def _count(self, line: Line, sign: int) -> None:
        query = self._query
        if not (
            self._since <= line["admitted_at"] < self._until
            and query.tenant in ("", line["tenant"])
            and query.policy in ("", line["policy"])
        ):
            return
        place = (self._key(line), line["currency"])
        figures = self._found.get(place)
        if figures is None:
            figures = self._found[place] = Figures()
        _count(figures, line, sign)


def summarised(lines: Iterable[Line], query: CostQuery) -> CostSummary:
    """Sums up final records, one per request. Raises KeyError for a line that is no record."""
    tally = CostTally(query)
    for line in lines:
        tally.add(line)
    return tally.summary()


def _count(figures: Figures, line: Line, sign: int) -> None:
    decision, degraded, error, settlement = line["decision"], line["degraded"], line["error"], line["settlement"]
    total, always_large, saved = line["total_nanos"], line["always_large_nanos"], line["saved_nanos"]
    wasted, tokens_in, tokens_cached, tokens_out, shadow = line["wasted_nanos"], 0, 0, 0, 0
    for attempt in line["attempts"]:
        tokens_in += attempt["input_tokens"]
        tokens_cached += attempt["cached_input_tokens"]
        tokens_out += attempt["output_tokens"]
        if attempt["outcome"] == _SHADOW:
            shadow += attempt["cost_nanos"]
    if decision is not None and decision["reason"] == _SCORE:
        figures.judged += sign
        if decision["verdict"] == _DEFER:
            figures.deferred += sign
    if degraded is not None:
        figures.degraded += sign
    if error == CANCELLED:
        figures.cancelled += sign
    elif error is not None:
        figures.failed += sign
    if settlement != _SETTLED:
        figures.reckoned += sign
    figures.requests += sign
    figures.input_tokens += sign * tokens_in
    figures.cached_input_tokens += sign * tokens_cached
    figures.output_tokens += sign * tokens_out
    figures.total_nanos += sign * total
    figures.always_large_nanos += sign * always_large
    figures.saved_nanos += sign * saved
    figures.wasted_nanos += sign * wasted
    figures.shadow_nanos += sign * shadow


def _totals(rows: Sequence[CostRow]) -> Iterator[CostRow]:
    for currency in sorted({row.currency for row in rows}):
        total = Figures()
        for row in rows:
            if row.currency == currency:
                for name in Figures.__slots__:
                    setattr(total, name, getattr(total, name) + getattr(row.figures, name))
        yield CostRow("", currency, total)


def _name(key: str | int) -> str:
    return key if isinstance(key, str) else datetime.fromtimestamp(key * DAY_SECONDS, UTC).date().isoformat()


def _day(row: CostRow) -> tuple[str, str]:
    return row.key, row.currency


def _dearest(row: CostRow) -> tuple[str, int, str]:
    return row.currency, -row.figures.total_nanos, row.key


_KEYS: Mapping[Grouping, Callable[[Line], str | int]] = {
    Grouping.TENANT: lambda line: str(line["tenant"]),
    Grouping.POLICY: lambda line: str(line["policy"]),
    Grouping.TASK: lambda line: str(line.get("task") or ""),
    Grouping.DAY: lambda line: int(line["admitted_at"] // DAY_SECONDS),
}
