"""An audit: what routers wrote into their journals, against what their store says was spent and is held."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from marginal.ledger.conservation import Difference, differences, not_once
from marginal.ledger.journal_files import journal_files
from marginal.ledger.journal_lines import ADMITTED, COST_RECORD, settled_from
from marginal.ledger.ports import Balance
from marginal.ledger.reading import read_journals
from marginal.routing.records import Settlement
from marginal.transport.admin import list_budgets

Balances = Callable[[], Awaitable[Sequence[Balance]]]

SECONDS = 30.0
"""How long a store may take to hear of everything, on a machine that has other things to do."""


@dataclass
class Audit:
    """The requests that were admitted, what their final records say, and what is wrong with that."""

    admitted: set[str] = field(default_factory=set)
    records: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    unfinished: set[str] = field(default_factory=set)
    held_nanos: int = 0
    not_once: Mapping[str, int] = field(default_factory=dict)
    differences: Sequence[Difference] = ()

    @property
    def clean(self) -> bool:
        """Whether every request has one final record, nothing is held, and the money adds up."""
        return not (self.unfinished or self.held_nanos or self.not_once or self.differences)

    @property
    def difference_nanos(self) -> int:
        """How far the windows are off, all added up."""
        return sum(abs(difference.nanos) for difference in self.differences)

    @property
    def settlements(self) -> Counter[str]:
        """How sure the records are of their money."""
        return Counter(record["settlement"] for record in self.records.values())

    @property
    def total_nanos(self) -> int:
        return sum(record["total_nanos"] for record in self.records.values())

    def record(self, request_id: str) -> Mapping[str, Any]:
        return self.records[request_id]


async def audited(balances: Balances, *journals: Path, seconds: float = SECONDS, every_seconds: float = 0.1) -> Audit:
    """The audit once it is clean, or as it is after so many seconds."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        audit = await _audit(balances, journals)
        if audit.clean or asyncio.get_running_loop().time() > deadline:
            return audit
        await asyncio.sleep(every_seconds)


def told_by(admin: str) -> Balances:
    """Balances as a router's operators are told them."""

    async def ask() -> Sequence[Balance]:
        told = await list_budgets(admin, timeout_seconds=SECONDS)
        return [Balance(one.tenant, one.window, one.period, one.spent_nanos, one.held_nanos) for one in told.states]

    return ask


async def _audit(balances: Balances, journals: Sequence[Path]) -> Audit:
    told = await balances()
    reading = await asyncio.to_thread(read_journals, journals)
    records = {line["request_id"]: line for line in reading.final_records()}
    lines = [line for journal in journals for line in _lines(journal)]
    admitted = {line["request_id"] for line in lines if line["event"] == ADMITTED}
    return Audit(
        admitted=admitted,
        records=records,
        unfinished=set(reading.unfinished),
        held_nanos=sum(one.held_nanos for one in told),
        not_once=not_once(admitted, _final(lines), reading.unfinished),
        differences=differences(map(settled_from, records.values()), (), told),
    )


def _final(lines: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The ids of final records, as often as there is one; one that only expired is final until there is a better."""
    records = [line for line in lines if line["event"] == COST_RECORD and not line["open"]]
    better = {line["request_id"] for line in records if line["settlement"] != Settlement.EXPIRED.value}
    yield from (line["request_id"] for line in records if line["settlement"] != Settlement.EXPIRED.value)
    yield from {line["request_id"] for line in records} - better


def _lines(journal: Path) -> Iterator[Mapping[str, Any]]:
    for path in journal_files(journal):
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                yield json.loads(line)
