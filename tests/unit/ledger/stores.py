"""Stores to test accounts with: one that may be away, and one in which a process dies at a chosen step."""

from collections.abc import Mapping, Sequence

from marginal.ledger.memory import MemoryStore
from marginal.ledger.ports import Expired, Settled, StoreAway
from marginal.routing.holds import Ask, Grant


class Crash(BaseException):
    """The end of a process, which nothing handles."""


class Steps:
    """Counts the steps of a life and ends it at one of them; -1 is never."""

    def __init__(self, at: int = -1) -> None:
        self.at = at
        self.taken = 0

    def step(self) -> None:
        if self.taken == self.at:
            raise Crash
        self.taken += 1


class FlakyStore(MemoryStore):
    """A store that outlives its routers: it may be away, and is where they die."""

    steps = Steps()
    away = False

    def _called(self) -> None:
        self.steps.step()
        if self.away:
            raise StoreAway("away")

    async def reserve(self, ask: Ask, *, lease_seconds: float) -> Grant:
        self._called()
        return await super().reserve(ask, lease_seconds=lease_seconds)

    async def progress(self, marks: Mapping[str, int], *, lease_seconds: float) -> None:
        self._called()
        await super().progress(marks, lease_seconds=lease_seconds)

    async def settle(self, settled: Sequence[Settled]) -> None:
        self._called()
        await super().settle(settled)
        self.steps.step()

    async def expire(self, request_ids: Sequence[str] = ()) -> Sequence[Expired]:
        self._called()
        expired = await super().expire(request_ids)
        self.steps.step()
        return expired

    async def acknowledge(self, request_ids: Sequence[str]) -> None:
        self._called()
        await super().acknowledge(request_ids)
        self.steps.step()


class DeafStore(MemoryStore):
    """A store that takes what it is told and answers no question, as one does whose outbox waits for it."""

    async def expire(self, request_ids: Sequence[str] = ()) -> Sequence[Expired]:
        raise StoreAway(f"away: {len(request_ids)} ids not told")
