"""Stand-ins for the world: a recorder that remembers and a clock that is set."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from marginal.routing.admission import Admission
from marginal.routing.holds import Ask, Grant, Scope, Window
from marginal.routing.ports import Ledger
from marginal.routing.records import Attempt, CostRecord, DegradedReason
from marginal.routing.tenant_limits import TenantLimits
from marginal.routing.tenants import Tenants
from marginal.routing.tiers import TierState
from marginal.tokens import Tier


class RememberingRecorder:
    """Keeps every attempt, what callers were told, and every cost record."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        self.told: list[CostRecord] = []
        self.records: list[CostRecord] = []

    @contextmanager
    def attempt(self, tier: Tier) -> Iterator[Callable[[Attempt], None]]:
        def ended(attempt: Attempt) -> None:
            assert attempt.tier is tier
            self.attempts.append(attempt)

        yield ended

    def answered(self, record: CostRecord) -> None:
        self.told.append(record)

    def completed(self, record: CostRecord) -> None:
        self.records.append(record)

    def trace_id(self) -> str:
        return "0123456789abcdef0123456789abcdef"


def open_door(tiers: Mapping[Tier, TierState], ledger: Ledger, clock: Callable[[], float]) -> Admission:
    """Lets everybody in, as far as the ledger does."""
    tenants = Tenants()
    return Admission(tiers, lambda: tenants, TenantLimits(tenants.rules), ledger, clock)


class SteppingClock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class RememberingLedger:
    """Grants everything, or as it is told to, and keeps what it was asked and told."""

    def __init__(self) -> None:
        self.asked: list[Ask] = []
        self.marks: dict[str, int] = {}
        self.settled: list[CostRecord] = []
        self.refusal: Exception | None = None
        self.blocked: DegradedReason | None = None
        self.lacking: Window | None = None

    async def reserve(self, ask: Ask) -> Grant:
        self.asked.append(ask)
        if self.refusal is not None:
            raise self.refusal
        if self.blocked is not None:
            return Grant(ask.small_nanos, Scope.SMALL, 1_000.0, self.blocked, self.lacking)
        return Grant(ask.full_nanos, Scope.FULL, 1_000.0)

    def progress(self, request_id: str, nanos: int) -> None:
        self.marks[request_id] = nanos

    def settle(self, record: CostRecord) -> None:
        self.settled.append(record)

    async def durable(self) -> None:
        pass
