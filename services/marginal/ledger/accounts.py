"""The ledger of one router: a store that says who may spend, and a journal that remembers what was spent.

A record is in the journal before the store hears of it, so that whatever the store knows can be told to it again. A
keeper renews the leases of open holds, writes down what they have cost so far, and gives a record to the holds of
routers that died.
"""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from marginal.errors import JournalFull
from marginal.ledger.burials import Burials
from marginal.ledger.journal import Journal
from marginal.ledger.journal_lines import (
    Admitted,
    Fields,
    admitted,
    admitted_at,
    admitted_line,
    progress_line,
    record_line,
    settled_of,
)
from marginal.ledger.ports import Balance, Settled, Store, StoreAway
from marginal.ledger.recovery import Recovery, recover, replay
from marginal.routing.holds import Ask, Grant, Scope
from marginal.routing.records import CostRecord, DegradedReason


@dataclass(frozen=True, slots=True)
class AccountRules:
    """Seconds: how long a hold lives without news, how often there is news, how soon a store that could not be told is
    told again, and how long the end waits for that.
    """

    lease_seconds: float = 60.0
    progress_seconds: float = 5.0
    retry_seconds: float = 1.0
    end_seconds: float = 5.0


DEFAULT_RULES = AccountRules()


@dataclass(slots=True)
class _Hold:
    request: Admitted
    file: int
    mark: int = 0
    told: int = 0
    seen: bool = False
    counted: int | None = None
    """What its open record came to, while its shadow attempt is under way."""


class Accounts:
    """The `Ledger` of routing; see there."""

    def __init__(
        self,
        store: Store,
        journal: Journal,
        *,
        fields: Fields,
        currency: str,
        clock: Callable[[], float],
        at_once: Callable[[Settled], None] | None = None,
        told: Callable[[CostRecord], None] = lambda _: None,
        rules: AccountRules = DEFAULT_RULES,
    ) -> None:
        """`clock` gives seconds since the Unix epoch; `told` takes records that are written for dead requests.

        `at_once` settles in a store that lives in this process and dies with it. Any other store may be shared, and
        is told in the background.
        """
        self._store = store
        self._journal = journal
        self._fields = fields
        self._currency = currency
        self._clock = clock
        self._at_once = at_once
        self._told = told
        self._burials = Burials(store, journal, fields=fields, currency=currency, clock=clock, told=told)
        self._rules = rules
        self._open: dict[str, _Hold] = {}
        self._ended: deque[tuple[int, int]] = deque()
        """Up to which line the journal must be synced until a file may go that has lines of an ended request."""
        self._unsettled: dict[str, Settled] = {}
        self._settling: asyncio.Task[None] | None = None

    @property
    def open_holds(self) -> int:
        """How many requests are under way, shadow attempts included."""
        return len(self._open)

    @property
    def writable(self) -> bool:
        """Whether records can be written down; while they cannot, only the small tier is paid for."""
        return self._journal.writable

    @property
    def unsettled(self) -> int:
        """How many records the store has not heard of."""
        return len(self._unsettled)

    @property
    def directory(self) -> Path:
        """Where the journal is."""
        return self._journal.directory

    @property
    def needed_from(self) -> int:
        """The first file that has, or may get, a line of a request under way, or of one whose last line is not on the
        disk for good.
        """
        while self._ended and self._ended[0][0] <= self._journal.synced:
            self._ended.popleft()
        open_holds, ended = (hold.file for hold in self._open.values()), (file for _, file in self._ended)
        return min([self._journal.synced_before, *open_holds, *ended])

    @property
    def told_until(self) -> float:
        """The store has been given every record of a request admitted before then, in seconds since the Unix epoch."""
        return min((one.admitted_at for one in self._unsettled.values()), default=math.inf)

    async def balances(self, tenants: Sequence[str] = ()) -> Sequence[Balance]:
        """As the store's. Raises StoreAway."""
        return await self._store.balances(tenants)

    async def reserve(self, ask: Ask) -> Grant:
        if self._journal.full:
            raise JournalFull("cost records cannot be written: the journal's disk takes no more")
        writable = self._journal.writable
        if not writable:
            ask = replace(ask, full_nanos=ask.small_nanos)
        grant = await self._store.reserve(ask, lease_seconds=self._rules.lease_seconds)
        if not writable:
            grant = replace(grant, scope=Scope.SMALL, blocked=grant.blocked or DegradedReason.LEDGER_WRITE)
        if ask.request_id not in self._open:
            request = admitted(ask, grant)
            self._open[ask.request_id] = _Hold(request, self._journal.number)
            self._journal.append(admitted_line(request))
        return grant

    def progress(self, request_id: str, nanos: int) -> None:
        hold = self._open.get(request_id)
        if hold is None or nanos <= hold.mark:
            return
        hold.mark = nanos
        if hold.told and self._journal.writable:  # a crash must not find less there than can have been spent by now
            hold.told = nanos
            self._journal.append(progress_line({request_id: nanos}, self._clock()))

    def settle(self, record: CostRecord) -> None:
        hold = self._open.get(record.request_id) if record.open else self._open.pop(record.request_id, None)
        key, at = "", record.admitted_at or self._clock()
        if hold is not None:
            key, at, hold.counted = hold.request.key, hold.request.at, record.total_nanos
        record = admitted_at(record, at)
        self._journal.append(record_line(record, self._fields, key=key))
        if hold is not None and not record.open:
            self._keep_until_synced(hold.file)
        settled = settled_of(record, key=key)
        if self._at_once is not None:
            self._at_once(settled)
            return
        self._unsettled.pop(settled.request_id, None)
        self._unsettled[settled.request_id] = settled
        if self._settling is None:
            self._settling = asyncio.create_task(self._settle())

    async def durable(self) -> None:
        await self._journal.durable()

    async def recover(self) -> Recovery:
        """Goes on where this router's last life ended, before the first request. Raises OSError."""
        recovery = await recover(
            self._store,
            self._journal,
            fields=self._fields,
            currency=self._currency,
            now=self._clock(),
            shared=self._at_once is None,
            told=self._told,
        )
        self._burials.watch(recovery.reckoned)
        self._keep_until_synced(0)  # a recovered request may have its lines in any file
        return recovery

    def replay(self, since: float) -> Iterator[Sequence[Settled]]:
        """What a store must hear that lacks what was admitted since then, 0 for one that came back empty: the month's
        records, and every hold that is still open.

        May be read in a thread. Raises OSError, ConfigurationError.
        """
        yield from replay(self._journal.directory, self._clock(), since=since)
        holds = [hold for hold in list(self._open.values()) if hold.counted is None]
        yield [
            Settled(one.request_id, one.tenant, one.held_nanos, one.at, answered=False, final=False, key=one.key)
            for one in (hold.request for hold in holds)
        ]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keeps the holds meanwhile; at the end waits until the store has heard of every record, or long enough."""
        keeper = asyncio.create_task(self._keep())
        try:
            yield
        finally:
            keeper.cancel()
            with suppress(asyncio.CancelledError):
                await keeper
            await self.settled(self._rules.end_seconds)
            if self._settling is not None:
                self._settling.cancel()  # the next life tells the store from the journal

    async def settled(self, seconds: float) -> bool:
        """Waits until the store has heard of every record, for so long; says whether it has."""
        if self._settling is not None:
            await asyncio.wait([self._settling], timeout=seconds)
        return not self._unsettled

    async def keep(self) -> None:
        """What the keeper does every few seconds: news of the open holds, and records for the dead ones."""
        with suppress(StoreAway, OSError):  # of a store that is away, or a journal that cannot be read: next time
            await self._tell_progress()
            await self._burials.bury(self._knows)
            await self._burials.supersede()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._rules.progress_seconds)
            await self.keep()

    async def _tell_progress(self) -> None:
        """One line and one call for all holds that were open the last time already."""
        holds = [hold for hold in self._open.values() if hold.seen]
        for hold in self._open.values():
            hold.seen = True
        news = {hold.request.request_id: hold.mark for hold in holds if hold.mark > hold.told}
        if news and self._journal.writable:
            self._journal.append(progress_line(news, self._clock()))
            for hold in holds:
                hold.told = hold.mark
        if holds:
            marks = {hold.request.request_id: hold.mark for hold in holds}
            await self._store.progress(marks, lease_seconds=self._rules.lease_seconds)

    def _keep_until_synced(self, file: int) -> None:
        """Keeps files from that number on until all lines taken so far are on the disk for good."""
        while self._ended and self._ended[-1][1] >= file:
            self._ended.pop()
        self._ended.append((self._journal.taken, file))

    def _knows(self, request_id: str) -> bool:
        return request_id in self._open or request_id in self._unsettled

    async def _settle(self) -> None:
        """Tells the store of everything that is in the journal for good, as long as there is something."""
        try:
            while self._unsettled:
                batch = list(self._unsettled.values())
                await self._journal.durable()
                if not (self._journal.writable and await self._reached(batch)):
                    await asyncio.sleep(self._rules.retry_seconds)
                    continue
                for one in batch:
                    if self._unsettled.get(one.request_id) is one:
                        del self._unsettled[one.request_id]
        finally:
            self._settling = None

    async def _reached(self, batch: Sequence[Settled]) -> bool:
        try:
            await self._store.settle(batch)
        except StoreAway:
            return False
        return True
