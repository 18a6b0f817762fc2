"""What a router knows of the demand for its tiers, its own and that of the routers it shares a store with."""

import asyncio
import json
import math
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
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
from marginal.transport.beside import beside

SAMPLE_SECONDS = 0.5
"""How often demand is looked at, and told to the other routers; a request that waits is told of at once."""

KEPT_SECONDS = 300.0
"""How long the others are believed to want what they wanted last, while the store is away."""

MOST = 1e6
"""Requests that no one router can want."""

BACK_SECONDS = 2.0
"""A store may come back empty: every router has told it what it wants by then, and until then nobody wants less."""


class DemandBoard(Protocol):
    """Where routers tell each other their demand."""

    async def exchange_demand(self, router: str, text: str) -> Sequence[str]:
        """Puts up ours and gives what the others have up. Raises StoreAway."""
        ...


class Others:
    """What the other routers want, together; while they cannot be asked, what they wanted last, for KEPT_SECONDS."""

    def __init__(self, clock: Clock, log: Log) -> None:
        self._clock = clock
        self._log = log
        self._known: Mapping[Tier, float] = dict.fromkeys(Tier, 0.0)
        self._missed_since: float | None = None
        self._all_back_at = -math.inf
        self._failed = False
        self._unreadable = 0

    def wanted(self, tier: Tier) -> float:
        """Requests."""
        return self._known[tier]

    def told(self, texts: Sequence[str]) -> None:
        """Takes a text of each; one that cannot be read counts as nothing, which is said once."""
        now = self._clock()
        found = [one for one in map(_read, texts) if one is not None]
        if (unreadable := len(texts) - len(found)) and not self._unreadable:
            self._log.warning("the demand of other routers cannot be read", routers=unreadable)
        self._unreadable = unreadable
        if self._missed_since is not None:
            self._missed_since, self._all_back_at = None, now + BACK_SECONDS
            self._log.info("the demand of other routers is known again")
        least = self._known if now < self._all_back_at else {}
        self._known = {tier: max(least.get(tier, 0.0), sum(one[tier] for one in found)) for tier in Tier}

    def missed(self, because: str, *, error: Exception | None = None) -> None:
        """They could not be asked, which is said once; `error` is one that nobody expected."""
        now = self._clock()
        since = now if self._missed_since is None else self._missed_since
        if self._missed_since is None or (error is not None and not self._failed):
            self._missed_since, self._failed = since, error is not None
            self._log.warning(
                "the demand of other routers is not known now",
                because=because,
                kept_seconds=KEPT_SECONDS,
                **({} if error is None else {"exc_info": error}),
            )
        if now - since >= KEPT_SECONDS and any(self._known.values()):
            self._known = dict.fromkeys(Tier, 0.0)
            self._log.warning("the last known demand of other routers is dropped", after_seconds=KEPT_SECONDS)


class Scaling:
    """The `Scale` of one router."""

    def __init__(self, clock: Clock, log: Log) -> None:
        self._clock = clock
        self._recent = {tier: RecentDemand() for tier in Tier}
        self._own_wanted = {tier: RecentDemand(linger_seconds=2.0) for tier in Tier}
        self._others = Others(clock, log)
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
    async def watching(
        self, tiers: Mapping[Tier, TierState], lost: Callable[[], object] = lambda: None
    ) -> AsyncIterator[None]:
        """Looks at these tiers meanwhile; `lost` is called when it cannot go on."""
        self._tiers = tiers
        for tier, state in tiers.items():
            state.presence.tell(lambda tier=tier: self._wanted(tier))  # type: ignore[misc]
        async with beside(lost, scaling=self._look_again()):
            yield

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
            self._recent[tier].take(own + self._others.wanted(tier), now)
            await self._tell(tier)

    def _own(self) -> Mapping[Tier, float]:
        return {tier: demand(state).total for tier, state in self._tiers.items()}

    async def _exchange_again(self, board: DemandBoard) -> None:
        while True:
            try:
                await self._exchange(board)
            except StoreAway as away:
                self._others.missed(str(away))
            except Exception as error:  # nobody waits for this task, so nothing may end it unseen
                self._others.missed(type(error).__name__, error=error)
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
        text = json.dumps({tier.value: own.get(tier, 0.0) for tier in Tier})
        self._others.told(await board.exchange_demand(self._name, text))
        await self._look()


def _read(text: str) -> Mapping[Tier, float] | None:
    """What one router wants of each tier, None when its text tells no numbers of requests."""
    try:
        said = json.loads(text)
        wanted = {tier: float(said.get(tier.value, 0.0)) for tier in Tier}
    except (AttributeError, OverflowError, RecursionError, TypeError, ValueError):
        return None
    return wanted if all(0.0 <= one < MOST for one in wanted.values()) else None


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
