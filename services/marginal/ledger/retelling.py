"""Tells a store again what a journal says was spent, as far back as it must be told and no further.

A store remembers closed requests for `ports.REMEMBERED_SECONDS`: within them telling again changes nothing, and a
request older than that would count once more. So one that has begun anew is told everything, and one that knows this
journal only what it may lack.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path

from marginal.ledger.journal_files import sync_directory
from marginal.ledger.ports import Settled, Store
from marginal.whole_files import write_whole

Replay = Callable[[float], Iterable[Sequence[Settled]]]
"""Gives what the journal says was spent in this month, in batches of some hundred; it is read in a thread.

It is given since when, 0 for a store that has begun anew: sums of deleted records are told to none that may know these.

A request that is under way may be among it as its whole hold, not final.
"""


async def retell(store: Store, replay: Replay, *, since: float) -> AsyncIterator[Sequence[Settled]]:
    """Tells a store what was admitted since then, in seconds since the Unix epoch; gives it as it is told.

    Raises StoreAway, and what reading the journal raises.
    """
    batches = iter(replay(since))
    while (batch := await asyncio.to_thread(next, batches, None)) is not None:
        told = [one for one in batch if one.admitted_at >= since]
        await store.settle(told)
        yield told


class EpochFile:
    """The epoch that knows a journal, in a file beside the journal; without a path it is forgotten with the process."""

    def __init__(self, path: Path | None) -> None:
        """Reads it; a file that is not there names no epoch."""
        self._path = path
        self.epoch = path.read_text("utf-8").strip() if path is not None and path.exists() else ""

    async def write(self, epoch: str) -> None:
        """Remembers another one. Raises OSError."""
        if self._path is not None:
            await asyncio.to_thread(_write, self._path, epoch + "\n")
        self.epoch = epoch


def _write(path: Path, text: str) -> None:
    """All or nothing: a store that is told a whole month again would count it twice."""
    write_whole(path, text)
    sync_directory(path.parent)
