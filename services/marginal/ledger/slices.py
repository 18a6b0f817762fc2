"""What a router may spend by itself while the shared store of budgets is away: a small share of each budget.

Pure. A tenant's slice of a window is that share of the window's limit. What was spent from it comes back in one way
only: the store was told of it and has granted the tenant something since, which shows that the budget covered it.
However often the store goes away, one router therefore overspends a window by one slice at most.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from marginal.routing.holds import Ask, Budget, Grant, Scope, Window
from marginal.routing.records import DegradedReason

SHARE = 0.01


class FailureMode(Enum):
    """What is granted while the store is away: a slice of every budget, everything, or nothing."""

    LEASE = "lease"
    OPEN = "open"
    CLOSED = "closed"


def overspend(budgets: Iterable[Budget], mode: FailureMode, *, share: float = SHARE, routers: int = 1) -> int | None:
    """The most that is spent beyond all these budgets within one period of each one's tightest window, in nano-units.

    None is without bound.
    """
    if mode is FailureMode.OPEN:
        return None
    if mode is FailureMode.CLOSED:
        return 0
    slices = [min(int(share * limit) for limit in budget.limits.values()) for budget in budgets if budget.limits]
    return routers * sum(slices)


@dataclass(slots=True)
class _Loan:
    grant: Grant
    nanos: int
    spans: tuple[tuple[Window, str], ...]
    told: int | None = None


@dataclass(slots=True)
class _Slice:
    used: dict[tuple[Window, str], int] = field(default_factory=dict)
    loans: dict[str, _Loan] = field(default_factory=dict)


class Slices:
    """The loans of one router, by tenant; a loan is what a request holds, and then what it came to."""

    def __init__(self, mode: FailureMode, share: float = SHARE) -> None:
        """`share` of a budget's limit is in [0, 1]."""
        self._mode = mode
        self._share = share
        self._by_tenant: dict[str, _Slice] = {}
        self._tenants: dict[str, str] = {}
        self._tellings = 0

    def lend(self, ask: Ask, now: float) -> Grant | None:
        """Holds what a request needs in the slice of every window of now, None where not even the small tier fits.

        The same id again gives the same grant. `now` is in seconds since the Unix epoch.
        """
        if self._mode is FailureMode.CLOSED:
            return None
        if self._mode is FailureMode.OPEN or not ask.budget.limits:
            return Grant(ask.full_nanos, Scope.FULL, now)
        slice_ = self._by_tenant.setdefault(ask.tenant, _Slice())
        if ask.request_id in slice_.loans:
            return slice_.loans[ask.request_id].grant
        spans = tuple((window, window.period(now)) for window in ask.budget.limits)
        limits: Mapping[Window, int] = ask.budget.limits
        room = min(int(self._share * limits[span[0]]) - slice_.used.get(span, 0) for span in spans)
        if ask.full_nanos <= room:
            grant = Grant(ask.full_nanos, Scope.FULL, now)
        elif ask.small_nanos <= room:
            grant = Grant(ask.small_nanos, Scope.SMALL, now, blocked=DegradedReason.BUDGET_UNKNOWN)
        else:
            return None
        slice_.loans[ask.request_id] = _Loan(grant, 0, spans)
        self._tenants[ask.request_id] = ask.tenant
        self._counts(slice_, ask.request_id, grant.held_nanos)
        return grant

    def settled(self, request_id: str, nanos: int) -> None:
        """A loan came to so much; ids that nothing was lent to are passed by."""
        if (tenant := self._tenants.get(request_id)) is not None:
            self._counts(self._by_tenant[tenant], request_id, nanos)

    def told(self, request_ids: Iterable[str]) -> None:
        """The store knows what these came to."""
        for request_id in request_ids:
            if (tenant := self._tenants.get(request_id)) is not None:
                self._tellings += 1
                self._by_tenant[tenant].loans[request_id].told = self._tellings

    @property
    def tellings(self) -> int:
        """How many loans the store has been told of: what it grants from now on takes account of them."""
        return self._tellings

    def covered(self, tenant: str, tellings: int) -> None:
        """The store has granted what it was asked after so many tellings: those loans are no debt any more."""
        slice_ = self._by_tenant.get(tenant)
        if slice_ is None:
            return
        settled = [one for one, loan in slice_.loans.items() if loan.told is not None and loan.told <= tellings]
        for request_id in settled:
            self._counts(slice_, request_id, 0)
            del slice_.loans[request_id], self._tenants[request_id]
        if not slice_.loans:
            del self._by_tenant[tenant]

    @staticmethod
    def _counts(slice_: _Slice, request_id: str, nanos: int) -> None:
        loan = slice_.loans[request_id]
        for span in loan.spans:
            slice_.used[span] = slice_.used.get(span, 0) + nanos - loan.nanos
        loan.nanos = nanos
