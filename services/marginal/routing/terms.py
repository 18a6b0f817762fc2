"""On what terms a request was admitted: what it may not do, and whom it tells how far it has come."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from marginal.errors import (
    BudgetExceeded,
    CostLimited,
    JournalFull,
    LedgerUnavailable,
    MarginalError,
    Overloaded,
    RateLimited,
    TierUnavailable,
)
from marginal.routing.holds import Window
from marginal.routing.records import DegradedReason
from marginal.tokens import Tier


class Step(Enum):
    """The named steps of a request's life, in their order; tests end the process at each."""

    ADMITTED = "admitted"
    RESERVED = "reserved"
    SMALL_ASKED = "small_asked"
    VERDICT = "verdict"
    LARGE_ASKED = "large_asked"
    COMMITTED = "committed"
    GENERATED = "generated"
    SETTLED = "settled"
    DURABLE = "durable"
    TOLD = "told"


Steps = Callable[[Step], None]


def no_steps(_: Step) -> None:
    """Nobody is told."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What one request may do.

    `blocked` says why the large tier may not be asked, if so, and `lacking` which window's budget is too small for it.
    `may_defer` takes one of the tenant's deferrals, or says
    that there is none. `most` is what one attempt of a tier can cost, and `mark` is told what the
    request can have cost by now, both in nano-units.
    """

    admitted_at: float = 0.0
    blocked: DegradedReason | None = None
    lacking: Window | None = None
    may_defer: Callable[[], bool] = lambda: True
    most: Callable[[Tier], int] = lambda _: 0
    mark: Callable[[int], None] = lambda _: None
    step: Steps = no_steps

    def refusal(self, reason: DegradedReason) -> MarginalError:
        """The error of a request that insists on the large tier."""
        if reason is DegradedReason.BUDGET and self.lacking is not None:
            left = self.lacking.ends(self.admitted_at) - self.admitted_at
            return BudgetExceeded(self.lacking.value, reset_seconds=left)
        return _refusal(reason)


def _refusal(reason: DegradedReason) -> MarginalError:
    why = f"the large tier cannot be had ({reason.value}) and on_degrade is FAIL"
    match reason:
        case DegradedReason.BUDGET_UNKNOWN:
            return LedgerUnavailable(why)
        case DegradedReason.COST_LIMIT:
            return CostLimited(why)
        case DegradedReason.DEFERRAL_CAP:
            return RateLimited(why, retry_seconds=1.0)
        case DegradedReason.OVERLOADED:
            return Overloaded(why)
        case DegradedReason.LEDGER_WRITE:
            return JournalFull(why)
        case _:
            return TierUnavailable(why)
