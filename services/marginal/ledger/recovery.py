"""What a router does with its journal when it starts, and when its store has forgotten: it tells again what it knows.

Every step may be cut off by a crash and done again: a record that was written is found, and a store counts an id once.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

from marginal.ledger.journal import Journal
from marginal.ledger.journal_files import journal_files, journal_number, last_written
from marginal.ledger.journal_lines import (
    Admitted,
    Fields,
    after_its_shadow,
    reckoned,
    record_line,
    settled_from,
)
from marginal.ledger.ports import DAY_SECONDS, REMEMBERED_SECONDS, Settled, Store, StoreAway
from marginal.ledger.scan import Scan
from marginal.ledger.sums import Sums, read_sums
from marginal.routing.holds import Window
from marginal.routing.records import CostRecord, Settlement

BATCH = 500
KNOWN_SECONDS = REMEMBERED_SECONDS - 3_600.0
"""A shared store still knows requests that were admitted within so many seconds, whatever became of them."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """What was found and done: `settled` records were told to the store, `recovered` written for dead requests.

    `reckoned` are requests of other routers that may still tell the truth, and when they were admitted.
    """

    lines: int
    damaged: int
    settled: int
    recovered: Sequence[str]
    recovered_nanos: int
    reckoned: Mapping[str, float] = field(default_factory=dict)


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
    scan, sums = Scan(), await asyncio.to_thread(read_sums, journal.directory)
    since = now - KNOWN_SECONDS if shared else _begin(now)
    count = await _tell(store, _since(since, scan.finished(_files(journal.directory, sums, now))))
    count += 0 if shared else await _tell(store, sums.settled(scan.superseded))
    unfinished = list(scan.unfinished.values())
    by_store = await _charged(store, unfinished)
    recovered: dict[str, Settled] = {}
    for request in unfinished:
        nanos, answered = _charge(request, scan, by_store), scan.answered.get(request.request_id)
        if answered is not None:
            line = after_its_shadow(answered, nanos)
        else:
            record = reckoned(request, nanos, Settlement.RECOVERED, currency)
            line = record_line(record, fields, key=request.key)
            told(record)
        journal.append(line)
        recovered[request.request_id] = settled_from(line)
    await journal.durable()
    rest = (one for one in _unsure(scan, with_expired=not shared) if one.request_id not in recovered)
    count += await _tell(store, _since(since, rest))
    known = now - KNOWN_SECONDS if shared else since
    await store.settle([one for one in recovered.values() if one.admitted_at >= known or one.request_id in by_store])
    await _acknowledge(store, recovered)
    return Recovery(
        lines=scan.lines,
        damaged=scan.damaged,
        settled=count,
        recovered=list(recovered),
        recovered_nanos=sum(one.nanos for one in recovered.values()),
        reckoned={one.request_id: one.admitted_at for one in chain(_reckoned(sums, scan), scan.expired.values())},
    )


def replay(directory: Path, now: float, *, since: float) -> Iterator[Sequence[Settled]]:
    """What a journal says was spent in the current month and the last 24 hours, in batches.

    What is told of deleted files is for a store that knows nothing, `since` 0, alone. Raises OSError,
    ConfigurationError.
    """
    scan, sums = Scan(), read_sums(directory)
    records = _since(max(since, _begin(now)), scan.finished(_files(directory, sums, now)))
    yield from _batches(records)
    yield from _batches(() if since else sums.settled(scan.superseded))
    yield from _batches(_since(max(since, _begin(now)), _unsure(scan, with_expired=True)))


async def _charged(store: Store, unfinished: Sequence[Admitted]) -> Mapping[str, int]:
    """What the store has charged for requests that it still knows."""
    try:
        expired = await store.expire([request.request_id for request in unfinished]) if unfinished else ()
    except StoreAway:
        return {}
    return {one.request_id: one.charged_nanos for one in expired}


def _charge(request: Admitted, scan: Scan, by_store: Mapping[str, int]) -> int:
    """What a dead request is charged: as the store says, else what it had cost, else all that was held.

    One that was answered already had its shadow attempt left, of which a mark beyond its record tells.
    """
    mark = scan.marks.get(request.request_id, 0)
    answered = scan.answered.get(request.request_id)
    if answered is None:
        return max(by_store.get(request.request_id, 0), mark) or request.held_nanos
    counted = settled_from(answered).nanos
    return mark if mark > counted else max(counted, request.held_nanos)


async def _acknowledge(store: Store, request_ids: Iterable[str]) -> None:
    with suppress(StoreAway):
        await store.acknowledge(list(request_ids))


async def _tell(store: Store, settled: Iterable[Settled]) -> int:
    """Tells the store in batches, read in threads; gives how many."""
    batches, count = _batches(settled), 0
    while (batch := await asyncio.to_thread(next, batches, None)) is not None:
        await store.settle(batch)
        count += len(batch)
    return count


def _files(directory: Path, sums: Sums, now: float) -> Sequence[Path]:
    """What matters now: the month, two days, and the last day of this router's life, whenever that was."""
    since = min(_begin(now), last_written(directory) - DAY_SECONDS)
    return [path for path in journal_files(directory, since=since) if journal_number(path) > sums.upto]


def _begin(now: float) -> float:
    return min(Window.MONTH.begins(now), now - KNOWN_SECONDS)


def _unsure(scan: Scan, *, with_expired: bool) -> Iterator[Settled]:
    """What records say that may still be replaced by surer ones."""
    yield from map(settled_from, scan.answered.values())
    if with_expired:
        yield from scan.expired.values()


def _reckoned(sums: Sums, scan: Scan) -> Iterator[Settled]:
    return (one for one in sums.named if not one.final and one.request_id not in scan.superseded)


def _since(since: float, settled: Iterable[Settled]) -> Iterator[Settled]:
    return (one for one in settled if one.admitted_at >= since)


def _batches(settled: Iterable[Settled]) -> Iterator[Sequence[Settled]]:
    left = iter(settled)
    while batch := list(islice(left, BATCH)):
        yield batch
