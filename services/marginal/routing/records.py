"""What is known about a request after it ended: its attempts, their cost, and why they were made."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from marginal.policy.deferral import Decision
from marginal.tokens import FinishReason, Tier, Usage

CANCELLED = "Cancelled"
"""The error of a request that its caller gave up."""


class Outcome(Enum):
    """How an attempt ended: its text is the answer, it was stopped on purpose, it failed, or it was for comparison."""

    KEPT = "kept"
    ABORTED = "aborted"
    FAILED = "failed"
    SHADOW = "shadow"


class DegradedReason(Enum):
    """Why the caller got the small answer although the policy wanted the large one."""

    LARGE_UNAVAILABLE = "large_unavailable"
    DEADLINE = "deadline"
    BUDGET = "budget"
    BUDGET_UNKNOWN = "budget_unknown"
    COST_LIMIT = "cost_limit"
    DEFERRAL_CAP = "deferral_cap"
    OVERLOADED = "overloaded"
    LEDGER_WRITE = "ledger_write"


class Settlement(Enum):
    """How sure a record's money is: counted to the end, or reckoned for a request whose router died.

    EXPIRED and RECOVERED are charged at the last that was known of them, or at the whole hold; a SETTLED record of the
    same request replaces either.
    """

    SETTLED = "settled"
    EXPIRED = "expired"
    RECOVERED = "recovered"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call of one tier: its usage, its cost in nano-units, how it ended and how many seconds it took.

    `busy_micros` is its share of the tier's busy time, in microseconds; 0 for a call that the tier did not answer.
    """

    tier: Tier
    model: str
    outcome: Outcome
    usage: Usage
    cost_nanos: int
    seconds: float
    error: str | None = None
    busy_micros: int = 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """What asking the large tier too has shown of a kept answer: whether both agree, and every score it had.

    The texts are there only when the policy says so.
    """

    agrees: bool
    scores: Mapping[str, float]
    small_text: str | None = None
    large_text: str | None = None


@dataclass(frozen=True, slots=True)
class CostRecord:
    """The one record of a request; costs are nano-units of `currency`.

    `sampled` says that it was to be compared if it was kept: the deferred ones of a sample belong to it.
    `other_sampling` says that its tokens were drawn otherwise than when its threshold was calibrated, while the small
    tier's log-probabilities may depend on it. `admitted_at` is in seconds since the Unix epoch, by the ledger's clock.
    `reckoned_nanos` is the charge of a request that nobody lived to count, and then there are no attempts. `open` says
    that a shadow attempt is still to come: a record with it replaces this one. `price_version` names the prices, and
    `price_sources` says where each is from.
    """

    request_id: str
    trace_id: str
    tenant: str
    policy: str
    policy_version: str
    currency: str
    decision: Decision | None
    attempts: tuple[Attempt, ...]
    always_large_nanos: int
    tier: Tier | None = None
    finish: FinishReason | None = None
    degraded: DegradedReason | None = None
    error: str | None = None
    task: str = ""
    sampled: bool = False
    comparison: Comparison | None = None
    other_sampling: bool = False
    admitted_at: float = 0.0
    settlement: Settlement = Settlement.SETTLED
    reckoned_nanos: int = 0
    open: bool = False
    price_version: str = ""
    price_sources: Mapping[Tier, str] = field(default_factory=dict)

    @property
    def total_nanos(self) -> int:
        """Sum of the attempts' costs; `reckoned_nanos` when nobody lived to see them."""
        return self.reckoned_nanos + sum(attempt.cost_nanos for attempt in self.attempts)

    @property
    def wasted_nanos(self) -> int:
        """What was paid for attempts whose text nobody got."""
        wasted = (Outcome.ABORTED, Outcome.FAILED)
        return self.reckoned_nanos + sum(each.cost_nanos for each in self.attempts if each.outcome in wasted)

    @property
    def saved_nanos(self) -> int:
        """What always asking the large tier would have cost more; less than 0 when a deferral cost extra."""
        shadow = sum(each.cost_nanos for each in self.attempts if each.outcome is Outcome.SHADOW)
        return self.always_large_nanos - (self.total_nanos - shadow)
