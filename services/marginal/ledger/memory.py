"""A ledger's store in the memory of its router: of one router only, and empty when it starts."""

from collections.abc import Callable, Mapping, Sequence

from marginal.ledger.hold_book import MOST_REMEMBERED, HoldBook
from marginal.ledger.ports import Balance, Expired, Settled
from marginal.routing.holds import Ask, Grant, HoldState


class MemoryStore:
    """A Store over a HoldBook; `book` may be asked directly where nothing has to be awaited.

    `clock` gives seconds since the Unix epoch; one that never jumps keeps a window from being left early.
    """

    def __init__(self, clock: Callable[[], float], *, remembered: int = MOST_REMEMBERED) -> None:
        """`remembered` bounds the closed holds, and with them the memory."""
        self.book = HoldBook(remembered)
        self._clock = clock

    async def reserve(self, ask: Ask, *, lease_seconds: float) -> Grant:
        return self.book.reserve(ask, self._clock(), lease_seconds=lease_seconds)

    async def progress(self, marks: Mapping[str, int], *, lease_seconds: float) -> None:
        self.book.progress(marks, self._clock(), lease_seconds=lease_seconds)

    async def settle(self, settled: Sequence[Settled]) -> None:
        now = self._clock()
        for one in settled:
            self.book.settle(one, now)

    async def expire(self, request_ids: Sequence[str] = ()) -> Sequence[Expired]:
        return self.book.expire(request_ids, self._clock())

    async def acknowledge(self, request_ids: Sequence[str]) -> None:
        self.book.acknowledge(request_ids)

    async def states(self, request_ids: Sequence[str]) -> Mapping[str, HoldState]:
        return self.book.states(request_ids)

    async def balances(self, tenants: Sequence[str] = ()) -> Sequence[Balance]:
        return self.book.balances(tenants, self._clock())
