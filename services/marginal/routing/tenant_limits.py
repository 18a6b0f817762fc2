"""What one tenant may have of one router: requests per second, requests under way, a share of deferrals.

The rules are read at every question, so they may change between two. Times are seconds of the caller's clock.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from marginal.errors import RateLimited
from marginal.routing.tenants import TenantRules

TENANTS_REMEMBERED = 10_000
"""Idle tenants that are remembered; one forgotten begins with a full bucket and full credits."""

DEFERRAL_BURST = 20
"""Deferrals a tenant may have ahead of its share: one that defers at 0.8 of its cap hardly ever meets it."""

CONCURRENCY_RETRY_SECONDS = 1.0
"""When a tenant with too many requests under way may try again: nobody knows when one of them ends."""

MOST_RETRY_SECONDS = 3600.0

_CREDIT = 1_000_000
"""Credits are counted in whole millionths, so that no sum of shares is rounded."""


class TenantLimits:
    """The limits of all tenants; each call takes the same time however many there are."""

    def __init__(self, rules: Callable[[str], TenantRules], *, remembered: int = TENANTS_REMEMBERED) -> None:
        """`rules` gives those in force for a tenant; `remembered` bounds the tenants without a request under way."""
        self._rules = rules
        self._remembered = remembered
        self._busy: dict[str, _Used] = {}
        self._idle: OrderedDict[str, _Used] = OrderedDict()

    @contextmanager
    def admitted(self, tenant: str, now: float) -> Iterator["TenantPlace"]:
        """Holds the place of one request. Raises RateLimited, which takes nothing."""
        rules, used = self._rules(tenant), self._used(tenant)
        used.take(rules, now)
        if used.under_way == 1:
            self._busy[tenant] = self._idle.pop(tenant)
        try:
            yield TenantPlace(lambda: self._rules(tenant).deferral_share, used)
        finally:
            used.under_way -= 1
            if not used.under_way:
                self._remember(tenant, self._busy.pop(tenant))

    def __len__(self) -> int:
        """Tenants remembered."""
        return len(self._busy) + len(self._idle)

    def _used(self, tenant: str) -> "_Used":
        busy = self._busy.get(tenant)
        if busy is not None:
            return busy
        return self._remember(tenant, self._idle.pop(tenant) if tenant in self._idle else _Used())

    def _remember(self, tenant: str, used: "_Used") -> "_Used":
        self._idle[tenant] = used
        if len(self._idle) > self._remembered:
            self._idle.popitem(last=False)
        return used


class TenantPlace:
    """An admitted request of a tenant, and whether it may go to the large tier."""

    def __init__(self, share: Callable[[], float | None], used: "_Used") -> None:
        self._share = share
        self._used = used

    def may_defer(self) -> bool:
        """Whether a deferral would be allowed now; it takes nothing."""
        share = self._share()
        return share is None or (share > 0.0 and self._used.credits >= _CREDIT)

    def deferred(self) -> bool:
        """Takes the credit of one deferral; False when other requests took the last one since `may_defer`."""
        if not self.may_defer():
            return False
        if self._share() is not None:
            self._used.credits -= _CREDIT
        return True


class _Used:
    """What one tenant has used: its bucket's tokens, its requests under way, its credits for deferrals."""

    __slots__ = ("credits", "filled_at", "tokens", "under_way")

    def __init__(self) -> None:
        self.tokens = math.inf
        self.filled_at = -math.inf
        self.under_way = 0
        self.credits = DEFERRAL_BURST * _CREDIT

    def take(self, rules: TenantRules, now: float) -> None:
        """Counts one more request. Raises RateLimited."""
        if rules.concurrency is not None and self.under_way >= rules.concurrency:
            raise RateLimited(
                f"the tenant has {self.under_way} requests under way already",
                retry_seconds=CONCURRENCY_RETRY_SECONDS,
            )
        if rules.per_second is not None:
            self._take_token(rules.per_second, max(1, rules.burst), now)
        self.under_way += 1
        if rules.deferral_share is not None:
            earned = round(rules.deferral_share * _CREDIT)
            self.credits = min(DEFERRAL_BURST * _CREDIT, self.credits + earned)

    def _take_token(self, per_second: float, burst: int, now: float) -> None:
        if now > self.filled_at:
            gained = (now - self.filled_at) * per_second if math.isfinite(self.filled_at) else math.inf
            self.tokens, self.filled_at = self.tokens + gained, now
        self.tokens = min(float(burst), self.tokens)
        if self.tokens < 1.0:
            wait = (1.0 - self.tokens) / per_second if per_second > 0.0 else math.inf
            raise RateLimited(
                f"the tenant asks more than {per_second:g} times per second",
                retry_seconds=min(MOST_RETRY_SECONDS, wait),
            )
        self.tokens -= 1.0
