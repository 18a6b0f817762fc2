"""One request's way through the tiers, from the first token to the cost record.

The small tier is asked and its tokens are held back until the verdict falls. On KEEP they flow on; on DEFER the small
stream is closed and the large tier asked. Before the commit point (the first token sent) everything may be tried again,
after it nothing is switched.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from marginal.errors import BackendProtocol, ModelFault, Overloaded, TierUnavailable
from marginal.policy.deferral import Decision, Deferral, Reason, Verdict
from marginal.routing.attempts import Clock, RunningAttempt
from marginal.routing.book import Learner
from marginal.routing.calls import Calls
from marginal.routing.deadlines import within
from marginal.routing.policies import Policy
from marginal.routing.records import Attempt, Comparison, CostRecord, DegradedReason, Outcome
from marginal.routing.requests import Criticality, Delta, Mode, OnDegrade, Request
from marginal.routing.shadows import compared
from marginal.routing.terms import Step, Terms
from marginal.routing.tiers import Bypass, TierState
from marginal.tokens import EarlyStop, FinishReason, Tier, Token

Send = Callable[[Delta], Awaitable[None]]
Retract = Callable[[], bool]


@dataclass(slots=True)
class Journey:
    """What one request needs on its way; the underscored fields fill up as it goes.

    `send` takes the answer as deltas of one tier; `retract` takes back all of them and says whether it could. With
    `compare` the kept answer is remembered for `shadow`.
    """

    tiers: Mapping[Tier, TierState]
    clock: Clock
    request: Request
    policy: Policy
    terms: Terms
    calls: Calls
    learner: Learner
    bypass: Bypass
    send: Send
    retract: Retract
    deadline: float
    compare: bool = False
    _decision: Decision | None = None
    _degraded: DegradedReason | None = None
    _answering: Tier | None = None
    _finish: FinishReason | None = None
    _sent: list[Token] = field(default_factory=list)
    _reckoned: float | None = None

    async def travel(self) -> None:
        """Answers by the request's mode and the policy's."""
        mode = self.policy.effective_mode(self.request.mode)
        if mode is Mode.SMALL_ONLY:
            self._decision = Decision(Verdict.KEEP, Reason.MODE)
            await self._answer(Tier.SMALL)
        elif mode is Mode.LARGE_ONLY:
            self._decision = Decision(Verdict.DEFER, Reason.MODE)
            await self._large_or_degraded()
        else:
            await self._cascade()

    async def _cascade(self) -> None:
        kept, small_fault = False, "it was down a moment ago"
        if self._admits(Tier.SMALL):
            try:
                kept = await self._small_until_verdict()
            except ModelFault as fault:
                if self._answering is not None or isinstance(fault, Overloaded):
                    raise  # a small tier without room is not down: its load must not fall on the large one
                self._decision = self._degraded = self._reckoned = None
                small_fault = str(fault)
        if self._decision is None:
            await self._past_the_small_tier(small_fault)
        elif not kept:
            await self._large_or_degraded()

    async def _past_the_small_tier(self, small_fault: str) -> None:
        """Asks the large tier in place of the small one, as far as the bypass goes."""
        self.tiers[Tier.SMALL].presence.missed()
        self._decision = Decision(Verdict.DEFER, Reason.SMALL_UNAVAILABLE)
        blocked = self.terms.blocked
        if blocked is not None or self.request.criticality is Criticality.SHEDDABLE:
            why = blocked.value if blocked else "a sheddable request does not bypass it"
            raise TierUnavailable(f"the small tier cannot be had: {small_fault}; the large one is not asked ({why})")
        with self.bypass.admitted(self.clock()):
            if not self.terms.may_defer():
                raise self.terms.refusal(DegradedReason.DEFERRAL_CAP)
            try:
                await self._answer(Tier.LARGE)
            except ModelFault as fault:
                if self._answering is not None:
                    raise
                raise TierUnavailable(f"neither tier can be had; small: {small_fault}; large: {fault}") from fault

    async def _small_until_verdict(self) -> bool:
        """Whether the small answer was kept; when the large tier is known to be out of reach it is kept, degraded."""
        rule = self.learner.criterion.early_stop(
            self.learner.threshold.value, defer_without_score=self.policy.defer_without_score
        )
        deferral = Deferral(rule, choices=self.request.generation.choices)
        out_of_reach = self._large_blocked()
        blocked = out_of_reach if self.request.on_degrade is OnDegrade.SERVE else None
        async with self._attempt(Tier.SMALL, early_stop=None if blocked else rule, replaceable=True) as attempt:
            with self.tiers[Tier.LARGE].expecting(0.0 if self.terms.blocked else self.learner.tally.deferral_share):
                held = await _hold(attempt, deferral)
            if attempt.finish is FinishReason.UNSURE and deferral.verdict is not Verdict.DEFER:
                raise BackendProtocol("the small tier stopped early without cause: do both run the same version?")
            self._decision = decision = deferral.finish()
            self.terms.step(Step.VERDICT)
            self._reckoned = self.learner.judged(decision, deferrable=out_of_reach is None)
            if decision.verdict is Verdict.DEFER:
                if not blocked:
                    await attempt.stopped()
                    return False
                self._degrade(blocked)
            if held:
                await self._deliver(tuple(held), Tier.SMALL)
            await self._deliver_rest(attempt)
        return True

    async def _large_or_degraded(self) -> None:
        """Asks the large tier; when it fails before its first token the small tier answers, degraded."""
        reason = self._large_blocked()
        if reason is None and not self._admits(Tier.LARGE):
            reason = DegradedReason.LARGE_UNAVAILABLE
        if reason is None and not self.terms.may_defer():
            reason = DegradedReason.DEFERRAL_CAP
        if reason is None:
            try:
                await self._answer(Tier.LARGE, replaceable=self.request.on_degrade is OnDegrade.SERVE)
            except ModelFault as fault:
                if self._answering is not None:
                    raise
                overloaded = isinstance(fault, Overloaded)
                reason = DegradedReason.OVERLOADED if overloaded else DegradedReason.LARGE_UNAVAILABLE
            else:
                return
        self._degrade(reason)
        await self._answer(Tier.SMALL)

    def _large_blocked(self) -> DegradedReason | None:
        """Why the large tier need not be asked now, if so."""
        now, rules = self.clock(), self.policy.degrade
        if self.terms.blocked is not None:
            return self.terms.blocked
        if self.tiers[Tier.LARGE].looks_down(now, rules):
            return DegradedReason.LARGE_UNAVAILABLE
        if self.tiers[Tier.LARGE].places.full_for(self.request.criticality):
            return DegradedReason.OVERLOADED
        return DegradedReason.DEADLINE if self.deadline - now < rules.large_floor_seconds else None

    def _degrade(self, reason: DegradedReason) -> None:
        if reason is DegradedReason.LARGE_UNAVAILABLE:
            self.tiers[Tier.LARGE].presence.missed()
        if self.request.on_degrade is OnDegrade.FAIL:
            raise self.terms.refusal(reason)
        self._degraded = reason

    def _admits(self, tier: Tier) -> bool:
        return self.tiers[tier].admits(self.clock(), self.policy.degrade)

    async def _answer(self, tier: Tier, *, replaceable: bool = False) -> None:
        """Answers with one tier, its tokens sent as they come; a replaceable one is not waited for to the end."""
        async with self._attempt(tier, replaceable=replaceable) as attempt:
            await self._deliver_rest(attempt)

    async def _deliver_rest(self, attempt: RunningAttempt) -> None:
        async for tokens in attempt:
            await self._deliver(tokens, attempt.tier)
        self._answering = attempt.tier
        self._finish = attempt.finish
        attempt.outcome = Outcome.KEPT

    async def _deliver(self, tokens: tuple[Token, ...], tier: Tier) -> None:
        """The commit point: from the first call on, this tier answers."""
        if self._answering is None:
            self.terms.step(Step.COMMITTED)
        self._answering = tier
        if self.compare:
            self._sent.extend(tokens)
        await self.send(Delta(tokens, tier))

    def _committed(self) -> bool:
        """Whether the caller has seen something that cannot be taken back."""
        if self._answering is not None and self.retract():
            self._answering = None
            self._sent.clear()
        return self._answering is not None

    @asynccontextmanager
    async def _attempt(
        self, tier: Tier, *, early_stop: EarlyStop | None = None, replaceable: bool = False
    ) -> AsyncIterator[RunningAttempt]:
        asked, wanted = self.request.generation, 0
        if tier is Tier.SMALL:
            wanted = self.learner.criterion.alternatives(choices=asked.choices, all_scores=self.compare)
        generation = replace(asked, alternatives=wanted, early_stop=early_stop)
        left, rules = self.deadline - self.clock(), self.policy.degrade
        await self.tiers[tier].presence.come(min(left / 2 if replaceable else left, rules.wake_seconds))
        left, silence = self.deadline - self.clock(), rules.silence_seconds
        patience = min(left / 2, silence) if replaceable else silence
        async with self.calls.call(
            tier,
            generation,
            criticality=self.request.criticality,
            timeout=left,
            patience=lambda: patience if self._answering is None else None,
            committed=self._committed,
        ) as attempt:
            yield attempt

    @property
    def comparable(self) -> bool:
        """Whether the small answer was kept for its score, so that the large tier has something to be compared with."""
        decision = self._decision
        kept = decision is not None and decision.reason is Reason.SCORE and decision.verdict is Verdict.KEEP
        return self.compare and kept and self._answering is Tier.SMALL and self.terms.blocked is None

    async def shadow(self) -> Comparison:
        """Asks the large tier for comparison, the caller having been served. Raises MarginalError."""
        rules, large = self.policy.shadow, list[Token]()
        generation = replace(self.request.generation, alternatives=0, early_stop=None)
        async with (
            within(rules.timeout_seconds),
            self.calls.call(
                Tier.LARGE,
                generation,
                criticality=Criticality.SHEDDABLE,
                timeout=rules.timeout_seconds,
                patience=lambda: None,
                committed=lambda: False,
                shadow=True,
            ) as attempt,
        ):
            async for tokens in attempt:
                large.extend(tokens)
        return compared(
            self._sent, large, criterion=self.learner.criterion, choices=generation.choices, texts=rules.texts
        )

    @property
    def reckoned(self) -> float | None:
        """What the policy's rule reckoned this request would cost, None when it was no lesson."""
        return self._reckoned

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Those that have ended, in the order they did."""
        return tuple(self.calls.ended)

    def record(self, failure: str | None, *, trace_id: str) -> CostRecord:
        """What became of the request; `failure` names the error that ended it."""
        last = self.calls.ended[-1] if self.calls.ended else None
        return CostRecord(
            request_id=self.request.request_id,
            trace_id=trace_id,
            tenant=self.request.tenant,
            policy=self.policy.name,
            policy_version=self.policy.version,
            currency=self.policy.currency,
            decision=self._decision,
            attempts=self.attempts,
            always_large_nanos=self._always_large(last) if last else 0,
            tier=self._answering,
            finish=self._finish,
            degraded=self._degraded,
            error=failure,
            task=self.request.task,
            sampled=self.compare and self.request.mode is not Mode.SHADOW,
            admitted_at=self.terms.admitted_at,
            price_version=self.policy.price_version,
            price_sources={tier: price.source for tier, price in self.policy.prices.items()},
        )

    def _always_large(self, last: Attempt) -> int:
        """What the large tier would have charged for the answer; the time it did not take is its usual time."""
        busy = last.busy_micros if last.tier is Tier.LARGE else self.calls.tiers[Tier.LARGE].busy.usual_micros
        return self.policy.cost(Tier.LARGE, last.usage, busy)


async def _hold(attempt: RunningAttempt, deferral: Deferral) -> list[Token]:
    """Takes tokens until the verdict is certain or the answer has ended."""
    held: list[Token] = []
    async for tokens in attempt:
        held.extend(tokens)
        if [deferral.feed(token) for token in tokens][-1] is not Verdict.UNDECIDED:
            break
    return held
