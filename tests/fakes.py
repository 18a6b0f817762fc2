"""Stand-ins for the world: a recorder that remembers and a clock that is set."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from marginal.routing.records import Attempt, CostRecord
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


class SteppingClock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now
