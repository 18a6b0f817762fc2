"""The attempts of one request: each has a place at its tier, a span, a price, and an end that is remembered."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from marginal.routing.attempts import Clock, Patience, RunningAttempt, attempting
from marginal.routing.policies import Policy
from marginal.routing.ports import Recorder
from marginal.routing.records import Attempt, Outcome
from marginal.routing.requests import Criticality
from marginal.routing.terms import Step, Terms
from marginal.routing.tiers import TierState
from marginal.tokens import Generation, Tier

ASKED = {Tier.SMALL: Step.SMALL_ASKED, Tier.LARGE: Step.LARGE_ASKED}


@dataclass(slots=True)
class Calls:
    """Calls tiers for one request; `ended` are its attempts, in the order they ended."""

    tiers: Mapping[Tier, TierState]
    recorder: Recorder
    clock: Clock
    policy: Policy
    terms: Terms
    ended: list[Attempt] = field(default_factory=list)

    @asynccontextmanager
    async def call(
        self,
        tier: Tier,
        generation: Generation,
        *,
        criticality: Criticality,
        timeout: float,
        patience: Patience,
        committed: Callable[[], bool],
        shadow: bool = False,
    ) -> AsyncIterator[RunningAttempt]:
        """One attempt. Raises Overloaded when the tier has no room for it in time, and what `attempting` does."""

        def ended(attempt: Attempt) -> None:
            self.ended.append(replace(attempt, outcome=Outcome.SHADOW) if shadow else attempt)
            report(self.ended[-1])

        async with self.tiers[tier].places.place(criticality, timeout) as place:
            self.terms.mark(self.spent_nanos + self.terms.most(tier))
            self.terms.step(ASKED[tier])
            with self.recorder.attempt(tier) as report:
                async with attempting(
                    self.tiers[tier],
                    generation,
                    policy=self.policy,
                    place=place,
                    timeout=timeout,
                    patience=patience,
                    clock=self.clock,
                    committed=committed,
                    ended=ended,
                ) as attempt:
                    yield attempt

    @property
    def spent_nanos(self) -> int:
        """What the attempts that have ended cost."""
        return sum(attempt.cost_nanos for attempt in self.ended)
