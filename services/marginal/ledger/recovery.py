"""What a router does with its journal when it starts, and when its store has forgotten: it tells again what it knows.

Every step may be cut off by a crash and done again: a record that was written is found, and a store counts an id once.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from marginal.ledger.journal import Journal
from marginal.ledger.journal_files import last_written
from marginal.ledger.journal_lines import (
    Admitted,
    Fields,
    after_its_shadow,
    reckoned,
    record_line,
    settled_from,
)
from marginal.ledger.ports import REMEMBERED_SECONDS, Settled, Store, StoreAway
from marginal.ledger.reading import Reading, read_journals
from marginal.routing.records import CostRecord, Settlement

BATCH = 500
DAY_SECONDS = 86_400.0
KNOWN_SECONDS = REMEMBERED_SECONDS - 3_600.0
"""A shared store still knows requests that were admitted within so many seconds, whatever became of them."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """What was found and done: `settled` records were told to the store, `recovered` written for dead requests."""

    lines: int
    damaged: int
    settled: int
    recovered: Sequence[str]
    recovered_nanos: int


async def recover(
    store: Store,
    journal: Journal,
    *,
    fields: Fields,
    currency: str,
    now: float,
    shared: bool,
    told: Callable[[CostRecord], None],
) -> Recovery:
    """Gives every request that died with this router its record, then tells the store what was spent.

    A store of this router alone is told of the month, a `shared` one of the last two days, which it knows by their ids;
    of a dead request of long ago only when it still knows it, since it has charged it and forgotten otherwise. `now` is
    in seconds since the Unix epoch. `told` takes the records that are written here. Raises OSError when the journal
    cannot be read.
    """
    reading = await asyncio.to_thread(_read, journal.directory, now)
    since = now - KNOWN_SECONDS if shared else _begin(now)
    unfinished = list(reading.unfinished.values())
    by_store = await _charged(store, unfinished)
    recovered: dict[str, Settled] = {}
    for request in unfinished:
        nanos = _charge(request, reading, by_store)
        if reading.has_record(request.request_id):
            line = after_its_shadow(reading.record(request.request_id), nanos)
        else:
            record = reckoned(request, nanos, Settlement.RECOVERED, currency)
            line = record_line(record, fields, key=request.key)
            told(record)
        journal.append(line)
        recovered[request.request_id] = settled_from(line)
    await journal.durable()
    count = 0
    batches = _batches(_but(recovered, _settled(reading, since, with_expired=not shared)))
    while (batch := await asyncio.to_thread(next, batches, None)) is not None:
        await store.settle(batch)
        count += len(batch)
    known = now - KNOWN_SECONDS if shared else since
    await store.settle([one for one in recovered.values() if one.admitted_at >= known or one.request_id in by_store])
    await _acknowledge(store, recovered)
    return Recovery(
        lines=reading.lines,
        damaged=reading.damaged,
        settled=count,
        recovered=list(recovered),
        recovered_nanos=sum(one.nanos for one in recovered.values()),
    )


def replay(directory: Path, now: float) -> Iterator[Sequence[Settled]]:
    """What a journal says was spent in the current month and the last 24 hours, in batches. Raises OSError."""
    return _batches(_settled(_read(directory, now), _begin(now), with_expired=True))


async def _charged(store: Store, unfinished: Sequence[Admitted]) -> Mapping[str, int]:
    """What the store has charged for requests that it still knows."""
    try:
        expired = await store.expire([request.request_id for request in unfinished]) if unfinished else ()
    except StoreAway:
        return {}
    return {one.request_id: one.charged_nanos for one in expired}


def _charge(request: Admitted, reading: Reading, by_store: Mapping[str, int]) -> int:
    """What a dead request is charged: as the store says, else what it had cost, else all that was held.

    One that was answered already had its shadow attempt left, of which a mark beyond its record tells.
    """
    mark = reading.marks.get(request.request_id, 0)
    if not reading.has_record(request.request_id):
        return max(by_store.get(request.request_id, 0), mark) or request.held_nanos
    counted = settled_from(reading.record(request.request_id)).nanos
    return mark if mark > counted else max(counted, request.held_nanos)


async def _acknowledge(store: Store, request_ids: Iterable[str]) -> None:
    with suppress(StoreAway):
        await store.acknowledge(list(request_ids))


def _read(directory: Path, now: float) -> Reading:
    """Reads what matters now: the month, two days, and the last day of this router's life, whenever that was."""
    return read_journals([directory], since=min(_begin(now), last_written(directory) - DAY_SECONDS))


def _begin(now: float) -> float:
    month = datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp()
    return min(month, now - KNOWN_SECONDS)


def _settled(reading: Reading, since: float, *, with_expired: bool) -> Iterator[Settled]:
    for line in reading.final_records():
        if line["settlement"] != Settlement.EXPIRED.value or with_expired:
            settled = settled_from(line)
            if settled.admitted_at >= since:
                yield settled


def _but(known: Mapping[str, Any], settled: Iterable[Settled]) -> Iterator[Settled]:
    return (one for one in settled if one.request_id not in known)


def _batches(settled: Iterable[Settled]) -> Iterator[Sequence[Settled]]:
    left = iter(settled)
    while batch := list(islice(left, BATCH)):
        yield batch
