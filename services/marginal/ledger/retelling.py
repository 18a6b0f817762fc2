"""Tells a store again what a journal says was spent, as far back as it must be told and no further.

A store remembers closed requests for REMEMBERED_SECONDS: within them telling again changes nothing, and a request older
than that would count once more. So one that knows this journal is told the last days only, and one that has begun anew
is told everything.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from marginal.ledger.ports import REMEMBERED_SECONDS, Settled, Store

Replay = Callable[[], Iterable[Sequence[Settled]]]
"""Gives what the journal says was spent in this month, in batches of some hundred; it is read in a thread.

A request that is under way may be among it as its whole hold, not final.
"""

LONGEST_SECONDS = 3_600.0
"""No request is under way for longer."""
RETOLD_SECONDS = REMEMBERED_SECONDS - LONGEST_SECONDS
"""How far back an earlier life of a router may be told again; what it left untold before that stays untold."""


async def retell(store: Store, replay: Replay, *, since: float) -> None:
    """Tells a store what was admitted since then, in seconds since the Unix epoch. Raises StoreAway."""
    batches = iter(replay())
    while (batch := await asyncio.to_thread(next, batches, None)) is not None:
        await store.settle([one for one in batch if one.admitted_at >= since])


class EpochFile:
    """The epoch that knows a journal, in a file beside the journal; without a path it is forgotten with the process."""

    def __init__(self, path: Path | None) -> None:
        """Reads it; a file that is not there names no epoch."""
        self._path = path
        self.epoch = path.read_text("utf-8").strip() if path is not None and path.exists() else ""

    async def write(self, epoch: str) -> None:
        """Remembers another one. Raises OSError."""
        self.epoch = epoch
        if self._path is not None:
            await asyncio.to_thread(self._path.write_text, epoch + "\n", "utf-8")
