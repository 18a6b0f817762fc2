"""Budgets shared by routers, through a store that may be away: a router goes on by itself and tells what it did later.

* reserve: the store is asked while it answers; the first call that fails waits one timeout of the driver, those that
  follow not at all, and slices of the budgets are lent meanwhile (`slices.py`).
* settle, progress and acknowledge never wait for the store and never raise StoreAway: they go to the outbox
  (`outbox.py`), which is sent in the background.
* A probe looks for the store for ever. One that comes back with another epoch, or with none, has forgotten: every
  router tells it what it has in its journal before it reserves there again, and the first to be done founds an epoch.

A router that is down cannot tell what it spent: until it is back, a store that was emptied does not know of it. What an
earlier life of this router left untold to a store that still has its epoch, the accounts tell when they recover.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from marginal.errors import LedgerUnavailable
from marginal.ledger.breaker import Breaker, State, Transition
from marginal.ledger.known_keys import KnownKeys
from marginal.ledger.outbox import BATCH, RECALL_SECONDS, Outbox
from marginal.ledger.ports import Balance, Expired, Log, Settled, SharedStore, StoreAway, StoreEmptied
from marginal.ledger.retelling import EpochFile, Replay, retell
from marginal.ledger.slices import Slices
from marginal.routing.holds import Ask, Grant, HoldState

Answer = TypeVar("Answer")

AWAY = "budget store away"
JOINED = "budget store joined"

NOTHING = ("nothing",)
LOOK_SECONDS = 1.0
OTHERS_SECONDS = 2.0
JOIN_SECONDS = 1.0
LINGER_SECONDS = 0.01


class LeasedStore:
    """A store that is never away for requests: it grants by itself what little it may."""

    def __init__(
        self,
        shared: SharedStore,
        replay: Replay,
        epochs: EpochFile,
        *,
        slices: Slices,
        log: Log,
        clock: Callable[[], float],
        ticks: Callable[[], float],
        outbox: Outbox | None = None,
        others_seconds: float = OTHERS_SECONDS,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        """Begins away, until `running` has found the store.

        `clock` gives seconds since the Unix epoch, `ticks` seconds that never go back. `epochs` says which
        epoch knows the journal. The store is looked at every `look_seconds`; one seen emptied is founded
        again after `others_seconds`, in which other routers tell theirs.
        """
        self._shared = shared
        self._replay = replay
        self._slices = slices
        self._keys = KnownKeys()
        self._log = log
        self._clock = clock
        self._ticks = ticks
        self._outbox = Outbox() if outbox is None else outbox
        self._others_seconds = others_seconds
        self._look_seconds = look_seconds
        self._breaker = Breaker(self._tell, closed=False)
        self._kept = epochs
        self._known = self._retelling = False
        self._said: str | None = None
        self._sending = asyncio.Lock()
        self._joined, self._opened, self._looked, self._filled = (asyncio.Event() for _ in range(4))

    @property
    def joined(self) -> bool:
        """Whether the store is asked now."""
        return self._breaker.closed

    @property
    def told_until(self) -> float:
        """The store has every record of a request admitted before then, in seconds since the Unix epoch, and was told
        of it so long ago that no failover loses it.
        """
        if not self.joined or self._retelling or self._outbox.spilled is not None:
            return 0.0
        return min(self._outbox.oldest(self._ticks()), self._clock() - RECALL_SECONDS)

    async def reserve(self, ask: Ask, *, lease_seconds: float) -> Grant:
        """Asks the store, or lends from the tenant's slice; raises LedgerUnavailable when nothing is left of that.

        While the store is away only this router's own idempotency keys are known.
        """
        self._keys.check(ask, self._clock())
        tried = self._breaker.closed
        if tried:
            tellings = self._slices.tellings
            try:
                grant = await self._shared.reserve(ask, lease_seconds=lease_seconds)
            except StoreAway as error:
                self._failed(error)
            except asyncio.CancelledError:
                self._give_back(ask)
                raise
            else:
                self._slices.covered(ask.tenant, tellings)
                self._keys.granted(ask, self._clock())
                return grant
        lent = self._slices.lend(ask, self._clock())
        if lent is None:
            if tried:
                self._give_back(ask)
            raise LedgerUnavailable("the store of budgets cannot be reached, and what may be spent without it is spent")
        self._keys.granted(ask, self._clock())
        return lent

    def _give_back(self, ask: Ask) -> None:
        """The store may hold money for a request that will not be made."""
        self._outbox.settle([Settled(ask.request_id, ask.tenant, 0, self._clock(), answered=False, key=ask.key)])
        self._filled.set()

    async def progress(self, marks: Mapping[str, int], *, lease_seconds: float) -> None:
        """Keeps the marks for the next sending."""
        self._outbox.progress(marks, lease_seconds)
        self._filled.set()

    async def settle(self, settled: Sequence[Settled]) -> None:
        """Keeps the records for the next sending; what was lent for them and not spent may be lent again."""
        self._outbox.settle(settled)
        for one in settled:
            self._slices.settled(one.request_id, one.nanos)
            self._keys.settled(one)
        self._filled.set()

    async def acknowledge(self, request_ids: Sequence[str]) -> None:
        """Keeps the acknowledgements for the next sending."""
        self._outbox.acknowledge(request_ids)
        self._filled.set()

    async def expire(self, request_ids: Sequence[str] = ()) -> Sequence[Expired]:
        """As of the store, once it knows everything from here. Raises StoreAway."""
        return await self._asked(lambda: self._shared.expire(request_ids))

    async def states(self, request_ids: Sequence[str]) -> Mapping[str, HoldState]:
        """As of the store, once it knows everything from here. Raises StoreAway."""
        return await self._asked(lambda: self._shared.states(request_ids))

    async def balances(self, tenants: Sequence[str] = ()) -> Sequence[Balance]:
        """As of the store, once it knows everything from here. Raises StoreAway."""
        return await self._asked(lambda: self._shared.balances(tenants))

    async def drained(self, seconds: float) -> bool:
        """Waits until the store was told everything, for so long; says whether it was."""
        try:
            async with asyncio.timeout(seconds):
                while len(self._outbox):
                    await self._joined.wait()
                    await self._trying(self._flush)
        except TimeoutError:
            self._log.warning("budget store not told", untold=len(self._outbox), told_later="from the journal")
        return not len(self._outbox)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Looks for the store and sends to it meanwhile; a store that answers at once is joined when this begins."""
        tasks = [asyncio.create_task(self._keep_looking()), asyncio.create_task(self._keep_sending())]
        try:
            await _within(JOIN_SECONDS, self._looked)
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep_looking(self) -> None:
        while True:
            if self._breaker.closed:
                await _within(self._look_seconds, self._opened)
                if self._breaker.closed:
                    await self._trying(self._recognise)
                continue
            await asyncio.sleep(self._breaker.seconds_left(self._ticks()))
            if self._breaker.probe(self._ticks()) and await self._trying(self._join):
                self._breaker.succeeded(self._ticks())
            self._looked.set()

    async def _keep_sending(self) -> None:
        while True:
            await self._filled.wait()
            await self._joined.wait()
            await asyncio.sleep(LINGER_SECONDS)
            self._filled.clear()
            if self._breaker.closed and (not await self._trying(self._flush) or len(self._outbox)):
                self._filled.set()

    async def _recognise(self) -> None:
        if await self._shared.epoch() != self._kept.epoch:
            raise StoreEmptied("it was emptied")

    async def _join(self) -> None:
        """Tells the store what it may not know, then reserves there again."""
        epoch = await self._shared.epoch()
        if epoch != self._kept.epoch or not epoch:
            await self._retell(since=0.0)
            if not epoch:
                await asyncio.sleep(self._others_seconds if self._known else 0.0)
                epoch = await self._shared.found(secrets.token_hex(8))
            await self._kept.write(epoch)
        self._shared.join(epoch)
        self._known = True
        self._outbox.recall(self._ticks())
        await self._flush()
        await self._shared.acknowledge(NOTHING)  # a store that is full, or another's replica, refuses writes only

    async def _retell(self, *, since: float) -> None:
        self._outbox.spilled, self._retelling = None, True
        try:
            async for told in retell(self._shared, self._replay, since=since):
                self._slices.told(one.request_id for one in told if one.final)
            self._outbox.told(since, self._ticks())
        except BaseException:
            self._outbox.spill(since)
            raise
        finally:
            self._retelling = False

    async def _flush(self) -> None:
        """Sends what is there now: what comes meanwhile may come faster than it can be sent."""
        async with self._sending:
            if (since := self._outbox.spilled) is not None:
                await self._retell(since=since)
            for _ in range(0, len(self._outbox), BATCH):
                parcel = self._outbox.parcel()
                if parcel.settled:
                    await self._shared.settle(parcel.settled)
                if parcel.marks:
                    await self._shared.progress(parcel.marks, lease_seconds=parcel.lease_seconds)
                if parcel.acknowledged:
                    await self._shared.acknowledge(parcel.acknowledged)
                self._outbox.delivered(parcel, self._ticks())
                self._slices.told(one.request_id for one in parcel.settled if one.final)

    async def _asked(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        if not self._breaker.closed:
            raise StoreAway(self._said or "not joined yet")
        try:
            await self._flush()
            return await call()
        except StoreAway as error:
            self._failed(error)
            raise

    async def _trying(self, call: Callable[[], Awaitable[None]]) -> bool:
        try:
            await call()
        except StoreAway as error:
            self._failed(error)
            return False
        except Exception as error:  # whatever it is, the store must still be looked for
            self._failed(StoreAway(f"unexpected {type(error).__name__}"))
            return False
        return True

    def _failed(self, error: StoreAway) -> None:
        self._breaker.failed(self._ticks(), str(error) or type(error).__name__)

    def _tell(self, transition: Transition) -> None:
        """A line when the store goes away or comes back; probes that fail are none."""
        if transition.state is State.CLOSED:
            self._said = None
            self._opened.clear()
            self._joined.set()
            self._log.info(JOINED, epoch=self._kept.epoch)
        elif transition.state is State.OPEN:
            self._joined.clear()
            self._opened.set()
            if self._said is None:
                self._log.warning(AWAY, because=transition.because, then="asked again until it is back")
            self._said = transition.because


async def _within(seconds: float, event: asyncio.Event) -> None:
    """Waits for an event, no longer than so many seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
