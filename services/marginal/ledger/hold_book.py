"""Holds and windows in memory, without I/O and without a clock: the rules that every store keeps.

Each call takes the moment it happens at. `scripts/*.lua` are the same rules for a store that routers share.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from marginal.errors import BudgetExceeded
from marginal.ledger.ports import REMEMBERED_SECONDS, Balance, Expired, Settled
from marginal.ledger.refusals import already_answered, in_progress, key_reused
from marginal.routing.holds import Ask, Grant, HoldState, Scope, Window
from marginal.routing.records import DegradedReason

MOST_REMEMBERED = 250_000
"""How many closed holds are remembered at most, at some 600 bytes each: a busy router forgets before two days."""


@dataclass(slots=True)
class Purse:
    """A tenant's money in one period of one window."""

    window: Window
    period: str
    ends: float
    committed: int = 0
    held: int = 0

    @property
    def moved(self) -> bool:
        """Whether there is any money in it."""
        return bool(self.committed or self.held)


@dataclass(slots=True)
class Hold:
    """What is known of one request; it counts in `purses`, those of the moment it was admitted at."""

    request_id: str
    tenant: str
    grant: Grant
    purses: tuple[Purse, ...]
    lease_until: float = 0.0
    key: str = ""
    fingerprint: str = ""
    state: HoldState = HoldState.HELD
    mark: int = 0
    charged: int = 0
    answered: bool = False
    final: bool = False

    @property
    def seen_as(self) -> HoldState:
        """Its state, with how sure that is."""
        return HoldState.UNSURE if self.state is HoldState.SETTLED and not self.final else self.state

    @property
    def has_key(self) -> bool:
        """Whether its idempotency key is its own; that of a request that came to nothing is free."""
        return self.answered or self.state is HoldState.HELD


@dataclass(slots=True)
class HoldBook:
    """Every hold of one ledger. Amortised constant time per request, but for `expire`, which walks the open holds."""

    remembered: int = MOST_REMEMBERED
    _open: dict[str, Hold] = field(default_factory=dict)
    _closed: dict[str, Hold] = field(default_factory=dict)
    _closings: deque[tuple[float, Hold]] = field(default_factory=deque)
    _unacknowledged: dict[str, Hold] = field(default_factory=dict)
    _keys: dict[tuple[str, str], Hold] = field(default_factory=dict)
    _purses: dict[tuple[str, str], Purse] = field(default_factory=dict)
    _current: dict[str, tuple[Purse, ...]] = field(default_factory=dict)
    _hour: int = -1

    def reserve(self, ask: Ask, now: float, *, lease_seconds: float) -> Grant:
        """As `Store.reserve`."""
        hold = self._open.get(ask.request_id) or self._closed.get(ask.request_id)
        if hold is not None:
            if hold.state is not HoldState.HELD or hold.tenant != ask.tenant:
                raise already_answered(ask.request_id)
            hold.lease_until = max(hold.lease_until, now + lease_seconds)
            return hold.grant
        if ask.key:
            self._take_key(ask)
        self._turn(now)
        purses = self._current.get(ask.tenant) or self._current_purses(ask.tenant, now)
        grant = _granted(ask, purses, now)
        for purse in purses:
            purse.held += grant.held_nanos
        hold = Hold(ask.request_id, ask.tenant, grant, purses, now + lease_seconds, ask.key, ask.fingerprint)
        self._open[ask.request_id] = hold
        if ask.key:
            self._keys[ask.tenant, ask.key] = hold
        return grant

    def progress(self, marks: Mapping[str, int], now: float, *, lease_seconds: float) -> None:
        """As `Store.progress`."""
        for request_id, mark in marks.items():
            hold = self._open.get(request_id)
            if hold is not None:
                hold.mark = max(hold.mark, mark)
                hold.lease_until = max(hold.lease_until, now + lease_seconds)

    def settle(self, settled: Settled, now: float) -> None:
        """As `Store.settle`, for one."""
        hold = self._open.pop(settled.request_id, None)
        if hold is not None:
            self._close(hold, now)
        else:
            hold = self._closed.get(settled.request_id) or self._learn(settled, now)
            if hold.final:
                return
            self._unacknowledged.pop(settled.request_id, None)
        for purse in hold.purses:
            purse.committed += settled.nanos - hold.charged
        hold.state, hold.charged = HoldState.SETTLED, settled.nanos
        hold.answered, hold.final = settled.answered, settled.final
        if settled.key and settled.answered:
            self._give_key(settled.key, hold)

    def expire(self, request_ids: Iterable[str], now: float) -> Sequence[Expired]:
        """As `Store.expire`."""
        over = [hold for hold in self._open.values() if hold.lease_until <= now]
        named = [self._open[request_id] for request_id in request_ids if request_id in self._open]
        for hold in {hold.request_id: hold for hold in (*over, *named)}.values():
            del self._open[hold.request_id]
            self._close(hold, now)
            hold.state, hold.charged = HoldState.EXPIRED, hold.mark or hold.grant.held_nanos
            for purse in hold.purses:
                purse.committed += hold.charged
            self._unacknowledged[hold.request_id] = hold
        return [
            Expired(hold.request_id, hold.tenant, hold.charged, hold.grant.admitted_at)
            for hold in self._unacknowledged.values()
        ]

    def acknowledge(self, request_ids: Iterable[str]) -> None:
        """As `Store.acknowledge`."""
        for request_id in request_ids:
            self._unacknowledged.pop(request_id, None)

    def states(self, request_ids: Iterable[str]) -> Mapping[str, HoldState]:
        """As `Store.states`."""
        known = ((request_id, self._open.get(request_id) or self._closed.get(request_id)) for request_id in request_ids)
        return {request_id: hold.seen_as for request_id, hold in known if hold is not None}

    def balances(self, tenants: Sequence[str], now: float) -> Sequence[Balance]:
        """As `Store.balances`."""
        month = _periods(int(now // 3600))[-1][1]
        spending = {tenant for (tenant, period), purse in self._purses.items() if period == month and purse.moved}
        asked = tenants or sorted(spending)
        return [
            Balance(tenant, window, period, purse.committed, purse.held)
            for tenant in asked
            for window, period, ends in _periods(int(now // 3600))
            for purse in (self._purses.get((tenant, period)) or Purse(window, period, ends),)
        ]

    def _take_key(self, ask: Ask) -> None:
        """Raises unless the key is free: never used, or by a request that came to nothing."""
        first = self._keys.get((ask.tenant, ask.key))
        if first is None or not first.has_key:
            return
        if first.fingerprint and first.fingerprint != ask.fingerprint:
            raise key_reused()
        raise in_progress(first.request_id) if first.state is HoldState.HELD else already_answered(first.request_id)

    def _learn(self, settled: Settled, now: float) -> Hold:
        """A request that this ledger never held: it was admitted before the ledger began."""
        purses = self._purses_at(settled.tenant, settled.admitted_at, now)
        hold = Hold(settled.request_id, settled.tenant, Grant(0, Scope.FULL, settled.admitted_at), purses)
        self._remember(hold, now)
        return hold

    def _give_key(self, key: str, hold: Hold) -> None:
        """Gives a free key to a request that was answered; what was asked under it may not be known any more."""
        first = self._keys.get((hold.tenant, key))
        if first is None or not first.has_key:
            hold.key, hold.fingerprint = key, ""
            self._keys[hold.tenant, key] = hold

    def _close(self, hold: Hold, now: float) -> None:
        for purse in hold.purses:
            purse.held -= hold.grant.held_nanos
        self._remember(hold, now)

    def _remember(self, hold: Hold, now: float) -> None:
        """Keeps a closed hold, and forgets the oldest ones: two per one that comes, so that none has to wait for it."""
        self._closed[hold.request_id] = hold
        self._closings.append((now, hold))
        for _ in range(2):
            closed_at, oldest = self._closings[0]
            if closed_at + REMEMBERED_SECONDS > now and len(self._closings) <= self.remembered:
                return
            self._closings.popleft()
            if oldest.request_id in self._unacknowledged:
                self._closings.append((now, oldest))
                continue
            del self._closed[oldest.request_id]
            if self._keys.get((oldest.tenant, oldest.key)) is oldest:
                del self._keys[oldest.tenant, oldest.key]

    def _turn(self, now: float) -> None:
        """Begins a new hour: what is current, and which periods are long enough over to be forgotten."""
        hour = int(now // 3600)
        if hour != self._hour:
            self._hour = hour
            self._current.clear()
            kept = {key: purse for key, purse in self._purses.items() if purse.ends + REMEMBERED_SECONDS > now}
            self._purses = kept

    def _current_purses(self, tenant: str, now: float) -> tuple[Purse, ...]:
        self._current[tenant] = self._purses_at(tenant, now, now)
        return self._current[tenant]

    def _purses_at(self, tenant: str, at: float, now: float) -> tuple[Purse, ...]:
        """The purses a moment counts in, those left out that are over for good."""
        return tuple(
            self._purses.setdefault((tenant, period), Purse(window, period, ends))
            for window, period, ends in _periods(int(at // 3600))
            if ends + REMEMBERED_SECONDS > now
        )


@lru_cache(maxsize=1024)
def _periods(hour: int) -> tuple[tuple[Window, str, float], ...]:
    """The periods that an hour since the epoch is in, and when they end; the month comes last."""
    at = hour * 3600.0
    return tuple((window, window.period(at), window.ends(at)) for window in Window)


def _granted(ask: Ask, purses: tuple[Purse, ...], now: float) -> Grant:
    """What the purses allow; raises BudgetExceeded naming the window that lacks the longest."""
    lacking = _lacking(ask, ask.full_nanos, purses) if ask.budget.limits else None
    if lacking is None:
        return Grant(ask.full_nanos, Scope.FULL, now)
    lacking_even = _lacking(ask, ask.small_nanos, purses)
    if lacking_even is not None:
        raise BudgetExceeded(lacking_even.window.value, reset_seconds=lacking_even.ends - now)
    return Grant(ask.small_nanos, Scope.SMALL, now, DegradedReason.BUDGET, lacking.window)


def _lacking(ask: Ask, nanos: int, purses: tuple[Purse, ...]) -> Purse | None:
    limits = ask.budget.limits
    for purse in reversed(purses):
        limit = limits.get(purse.window)
        if limit is not None and purse.committed + purse.held + nanos > limit:
            return purse
    return None
