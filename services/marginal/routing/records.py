"""What is known about a request after it ended: its attempts, their cost, and why they were made."""

from dataclasses import dataclass
from enum import Enum

from marginal.policy.deferral import Decision
from marginal.tokens import FinishReason, Tier, Usage


class Outcome(Enum):
    """How an attempt ended: its text is the answer, it was stopped on purpose, or it failed."""

    KEPT = "kept"
    ABORTED = "aborted"
    FAILED = "failed"


class DegradedReason(Enum):
    """Why the caller got the small answer although the policy wanted the large one."""

    LARGE_UNAVAILABLE = "large_unavailable"
    DEADLINE = "deadline"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call of one tier: its usage, its cost in nano-units, how it ended and how many seconds it took."""

    tier: Tier
    model: str
    outcome: Outcome
    usage: Usage
    cost_nanos: int
    seconds: float
    error: str | None = None


@dataclass(frozen=True, slots=True)
class CostRecord:
    """The one record of a request; costs are nano-units of `currency`."""

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

    @property
    def total_nanos(self) -> int:
        """Sum of the attempts' costs."""
        return sum(attempt.cost_nanos for attempt in self.attempts)
