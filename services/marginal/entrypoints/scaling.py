"""What a router knows of the demand for its tiers, its own and that of the routers it shares a store with."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Protocol

from marginal.entrypoints.accounting import Share
from marginal.ledger.ports import StoreAway
from marginal.ledger.valkey import ValkeyStore
from marginal.routing.attempts import Clock
from marginal.routing.demand import ENOUGH, RecentDemand, demand
from marginal.routing.tiers import TierState
from marginal.telemetry.logs import Log
from marginal.tokens import Tier

SAMPLE_SECONDS = 0.5
"""How often demand is looked at, and told to the other routers; a request that waits is told of at once."""


class DemandBoard(Protocol):
    """Where routers tell each other their demand."""

    async def exchange_demand(self, router: str, text: str) -> Sequence[str]:
        """Puts up ours and gives what the others have up. Raises StoreAway."""
        ...


class Scaling:
    """The `Scale` of one router."""

    def __init__(self, clock: Clock, log: Log) -> None:
        self._clock = clock
        self._log = log
        self._recent = {tier: RecentDemand() for tier in Tier}
        self._own_wanted = {tier: RecentDemand(linger_seconds=2.0) for tier in Tier}
        self._others: dict[Tier, float] = dict.fromkeys(Tier, 0.0)
        self._tiers: Mapping[Tier, TierState] = {}
        self._changed = {tier: asyncio.Condition() for tier in Tier}
        self._hurry = asyncio.Event()
        self._name = secrets.token_hex(8)
        self._telling: set[asyncio.Task[None]] = set()

    def demand(self, tier: Tier) -> float:
        return self._recent[tier].mean(self._clock())

    def active(self, tier: Tier) -> bool:
        return self._recent[tier].active(self._clock())

    async def changes(self, tier: Tier) -> AsyncIterator[bool]:
        told: bool | None = None
        while True:
            async with self._changed[tier]:
                while self.active(tier) is told:
                    await self._changed[tier].wait()
                told = self.active(tier)
            yield told

    @asynccontextmanager
    async def watching(self, tiers: Mapping[Tier, TierState]) -> AsyncIterator[None]:
        """Looks at these tiers meanwhile."""
        self._tiers = tiers
        for tier, state in tiers.items():
            state.presence.tell(lambda tier=tier: self._wanted(tier))  # type: ignore[misc]
        task = asyncio.create_task(self._look_again())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @asynccontextmanager
    async def sharing(self, board: DemandBoard) -> AsyncIterator[None]:
        """Adds up what other routers want, and lets them know, meanwhile."""
        task = asyncio.create_task(self._exchange_again(board))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _wanted(self, tier: Tier) -> None:
        """A request waits for a tier, or did not get it: whoever listens hears it now."""
        now = self._clock()
        self._recent[tier].wanted(now)
        self._own_wanted[tier].wanted(now)
        self._hurry.set()
        task = asyncio.ensure_future(self._look())
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self, tier: Tier) -> None:
        async with self._changed[tier]:
            self._changed[tier].notify_all()

    async def _look_again(self) -> None:
        while True:
            await self._look()
            await asyncio.sleep(SAMPLE_SECONDS)

    async def _look(self) -> None:
        now = self._clock()
        for tier, own in self._own().items():
            self._recent[tier].take(own + self._others[tier], now)
            await self._tell(tier)

    def _own(self) -> Mapping[Tier, float]:
        return {tier: demand(state).total for tier, state in self._tiers.items()}

    async def _exchange_again(self, board: DemandBoard) -> None:
        away = False
        while True:
            try:
                await self._exchange(board)
            except StoreAway as error:
                if not away:
                    self._log.warning("the demand of other routers is not known now", because=str(error))
                away, self._others = True, dict.fromkeys(Tier, 0.0)
            else:
                away = False
            self._hurry.clear()
            try:
                async with asyncio.timeout(SAMPLE_SECONDS):
                    await self._hurry.wait()
                await asyncio.sleep(SAMPLE_SECONDS / 10)  # a crowd that wakes a tier is told of once
            except TimeoutError:
                pass

    async def _exchange(self, board: DemandBoard) -> None:
        now, own = self._clock(), dict(self._own())
        for tier, seen in self._own_wanted.items():
            if seen.active(now):
                own[tier] = max(own.get(tier, 0.0), ENOUGH)
        texts = await board.exchange_demand(self._name, json.dumps({tier.value: own.get(tier, 0.0) for tier in Tier}))
        others = [json.loads(text) for text in texts]
        self._others = {tier: sum(float(one.get(tier.value, 0.0)) for one in others) for tier in Tier}
        await self._look()


def both(first: Share, second: Share) -> Share:
    """What does both with a store that is shared."""

    def share(store: ValkeyStore) -> AbstractAsyncContextManager[None]:
        return _entered(first(store), second(store))

    return share


@asynccontextmanager
async def _entered(*shares: AbstractAsyncContextManager[None]) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for share in shares:
            await stack.enter_async_context(share)
        yield
