"""What was spent and what may be, as values: for operators. Money is in integer nano-units, never of two currencies."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from marginal.routing.holds import Window

MOST_ROWS = 1_000
"""Rows of one answer: whoever has more tenants or tasks asks for one of them, or for days."""


class Grouping(Enum):
    """What each row of a summary is for; a day is one of UTC, that of the admission."""

    TENANT = "tenant"
    POLICY = "policy"
    TASK = "task"
    DAY = "day"


@dataclass(frozen=True, slots=True)
class CostQuery:
    """Which records count: admitted from `since` on and before `until`, in seconds since the Unix epoch; "" is any."""

    by: Grouping = Grouping.TENANT
    since: float | None = None
    until: float | None = None
    tenant: str = ""
    policy: str = ""


@dataclass(slots=True)
class Figures:
    """Sums over the records of some requests.

    `judged` were decided by their score and `deferred` are those of them whose verdict that was. `failed` ended with an
    error, but for the `cancelled`, which their callers gave up. `reckoned` died with their router: their money is what
    was known or held, and their tokens are unknown. Shadow attempts are in the total, and in no saving.
    """

    requests: int = 0
    judged: int = 0
    deferred: int = 0
    degraded: int = 0
    failed: int = 0
    cancelled: int = 0
    reckoned: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    total_nanos: int = 0
    always_large_nanos: int = 0
    saved_nanos: int = 0
    wasted_nanos: int = 0
    shadow_nanos: int = 0

    @property
    def deferral_share(self) -> float:
        """Verdicts to defer among the judged requests, in [0, 1]."""
        return self.deferred / self.judged if self.judged else 0.0

    @property
    def degraded_share(self) -> float:
        """Degraded answers among all requests, in [0, 1]."""
        return self.degraded / self.requests if self.requests else 0.0

    @property
    def saved_share(self) -> float:
        """What was saved of what always-large would have cost, at most 1; below 0 when it cost more."""
        return self.saved_nanos / self.always_large_nanos if self.always_large_nanos else 0.0


@dataclass(frozen=True, slots=True)
class CostRow:
    """The figures of one tenant, policy, task ("" is none) or day (as "2026-11-24") in one currency."""

    key: str
    currency: str
    figures: Figures


@dataclass(frozen=True, slots=True)
class CostSummary:
    """Rows by what they cost, days in their order; `totals` has one row per currency, of all rows.

    `damaged` lines could not be read, `left_out` rows were too many.
    """

    by: Grouping
    rows: tuple[CostRow, ...] = ()
    totals: tuple[CostRow, ...] = ()
    damaged: int = 0
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class BudgetState:
    """A tenant's money in one window now: spent, held for requests under way, and the limit, None where there is none.

    `resets_seconds` is how long the window still lasts.
    """

    tenant: str
    window: Window
    period: str
    spent_nanos: int
    held_nanos: int
    limit_nanos: int | None
    resets_seconds: float

    @property
    def used_share(self) -> float | None:
        """Spent and held of the limit, from 0; above 1 when a lease or a late record went beyond it."""
        if self.limit_nanos is None:
            return None
        used = self.spent_nanos + self.held_nanos
        return used / self.limit_nanos if self.limit_nanos else float(used > 0)


@dataclass(frozen=True, slots=True)
class BudgetStates:
    """Every tenant that has spent this month or has a limit of its own."""

    currency: str
    states: tuple[BudgetState, ...] = ()
    left_out: int = 0


class Books(Protocol):
    """What a router's operator may ask about money; the first two read files, and are to be called in a thread."""

    def costs(self, query: CostQuery) -> CostSummary:
        """What was spent. Raises OSError."""
        ...

    def record(self, request_id: str) -> Mapping[str, Any] | None:
        """The line of one request's cost record. Raises OSError."""
        ...

    async def budgets(self, tenant: str) -> BudgetStates:
        """Budgets now, of one tenant or "" for all. Raises LedgerUnavailable."""
        ...
