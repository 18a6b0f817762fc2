"""One request, from the first token to the cost record.

The small tier is asked and its tokens are held back until the verdict falls. On KEEP they flow on; on DEFER the small
stream is closed and the large tier asked. Before the commit point (the first token sent) everything may be tried again,
after it nothing is switched. Whatever happens, a request leaves exactly one cost record.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from marginal.errors import BackendProtocol, InvalidRequest, ModelFault, TierUnavailable
from marginal.policy.deferral import Decision, Deferral, Reason, Verdict
from marginal.routing.attempts import Clock, RunningAttempt, attempting
from marginal.routing.deadlines import within
from marginal.routing.policies import Policies, Policy
from marginal.routing.ports import Recorder
from marginal.routing.records import Attempt, CostRecord, DegradedReason, Outcome
from marginal.routing.requests import Delta, Mode, OnDegrade, Request
from marginal.routing.tiers import Bypass, TierState
from marginal.tokens import EarlyStop, FinishReason, Tier, Token

Send = Callable[[Delta], Awaitable[None]]
Retract = Callable[[], bool]


class Router:
    """Routes requests over two tiers by named policies."""

    def __init__(
        self, tiers: Mapping[Tier, TierState], *, policies: Policies, recorder: Recorder, clock: Clock
    ) -> None:
        """`clock` gives monotonic seconds."""
        self._tiers = tiers
        self._policies = policies
        self._recorder = recorder
        self._clock = clock
        self._bypass = Bypass(policies.bypass)

    async def route(self, request: Request, send: Send, *, timeout: float, retract: Retract) -> CostRecord:
        """Sends the answer as deltas of one tier and returns the cost record, which the recorder has by then.

        `timeout` is in seconds. `retract` takes back everything sent so far and says whether it could: a caller who
        waits for the whole answer has seen none of it, so the commit point is its end. Raises InvalidRequest,
        ModelFault, DeadlineExceeded, and whatever `send` raises; the record is kept all the same.
        """
        name = request.policy or self._policies.default
        if name not in self._policies.by_name:
            raise InvalidRequest("policy", f"no such policy here, use one of: {', '.join(self._policies.by_name)}")
        policy, deadline = self._policies.by_name[name], self._clock() + timeout
        journey = _Journey(
            self._tiers, self._recorder, self._clock, request, policy, self._bypass, send, retract, deadline
        )
        failure: str | None = "Cancelled"
        try:
            async with within(timeout):
                await journey.travel()
            failure = None
        except Exception as error:
            failure = type(error).__name__
            raise
        finally:
            record = journey.record(failure, trace_id=self._recorder.trace_id())
            self._recorder.completed(record)
        return record


@dataclass(slots=True)
class _Journey:
    """One request's way through the tiers; the underscored fields fill up on the way."""

    tiers: Mapping[Tier, TierState]
    recorder: Recorder
    clock: Clock
    request: Request
    policy: Policy
    bypass: Bypass
    send: Send
    retract: Retract
    deadline: float
    _attempts: list[Attempt] = field(default_factory=list)
    _decision: Decision | None = None
    _degraded: DegradedReason | None = None
    _answering: Tier | None = None
    _finish: FinishReason | None = None

    async def travel(self) -> None:
        """Answers by the request's mode."""
        if self.request.mode is Mode.SMALL_ONLY:
            self._decision = Decision(Verdict.KEEP, Reason.MODE)
            await self._answer(Tier.SMALL)
        elif self.request.mode is Mode.LARGE_ONLY:
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
                if self._answering is not None:
                    raise
                self._decision, small_fault = None, str(fault)
        if self._decision is None:
            await self._past_the_small_tier(small_fault)
        elif not kept:
            await self._large_or_degraded()

    async def _past_the_small_tier(self, small_fault: str) -> None:
        """Asks the large tier in place of the small one, as far as the bypass goes."""
        self._decision = Decision(Verdict.DEFER, Reason.SMALL_UNAVAILABLE)
        with self.bypass.admitted(self.clock()):
            try:
                await self._answer(Tier.LARGE)
            except ModelFault as fault:
                if self._answering is not None:
                    raise
                raise TierUnavailable(f"neither tier can be had; small: {small_fault}; large: {fault}") from fault

    async def _small_until_verdict(self) -> bool:
        """Whether the small answer was kept; when the large tier is known to be out of reach it is kept, degraded."""
        rule = self.policy.rule()
        deferral = self.policy.deferral(rule, choices=self.request.generation.choices)
        blocked = self._large_blocked() if self.request.on_degrade is OnDegrade.SERVE else None
        async with self._attempt(Tier.SMALL, early_stop=None if blocked else rule, replaceable=True) as attempt:
            held = await _hold(attempt, deferral)
            self._decision = decision = deferral.finish()
            self.policy.threshold.learn(decision)
            if decision.verdict is Verdict.DEFER:
                if not blocked:
                    return False
                self._degraded = blocked
            elif attempt.finish is FinishReason.UNSURE:
                raise BackendProtocol("the small tier stopped early without cause: do both run the same version?")
            if held:
                await self._deliver(tuple(held), Tier.SMALL)
            await self._deliver_rest(attempt)
        return True

    async def _large_or_degraded(self) -> None:
        """Asks the large tier; when it fails before its first token the small tier answers, degraded."""
        reason = self._large_blocked()
        if reason is None and not self._admits(Tier.LARGE):
            reason = DegradedReason.LARGE_UNAVAILABLE
        if reason is None:
            try:
                await self._answer(Tier.LARGE, replaceable=self.request.on_degrade is OnDegrade.SERVE)
            except ModelFault:
                if self._answering is not None:
                    raise
                reason = DegradedReason.LARGE_UNAVAILABLE
            else:
                return
        self._degrade(reason)
        await self._answer(Tier.SMALL)

    def _large_blocked(self) -> DegradedReason | None:
        """Why the large tier need not be asked now, if so."""
        now, rules = self.clock(), self.policy.degrade
        if self.tiers[Tier.LARGE].looks_down(now, retry_seconds=rules.retry_seconds):
            return DegradedReason.LARGE_UNAVAILABLE
        return DegradedReason.DEADLINE if self.deadline - now < rules.large_floor_seconds else None

    def _degrade(self, reason: DegradedReason) -> None:
        if self.request.on_degrade is OnDegrade.FAIL:
            raise TierUnavailable(f"the large tier cannot be had ({reason.value}) and on_degrade is FAIL")
        self._degraded = reason

    def _admits(self, tier: Tier) -> bool:
        return self.tiers[tier].admits(self.clock(), retry_seconds=self.policy.degrade.retry_seconds)

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
        self._answering = tier
        await self.send(Delta(tokens, tier))

    def _committed(self) -> bool:
        """Whether the caller has seen something that cannot be taken back."""
        if self._answering is not None and self.retract():
            self._answering = None
        return self._answering is not None

    @asynccontextmanager
    async def _attempt(
        self, tier: Tier, *, early_stop: EarlyStop | None = None, replaceable: bool = False
    ) -> AsyncIterator[RunningAttempt]:
        asked = self.request.generation
        wanted = self.policy.alternatives(choices=asked.choices) if tier is Tier.SMALL else 0
        generation = replace(asked, alternatives=wanted, early_stop=early_stop)
        left, silence = self.deadline - self.clock(), self.policy.degrade.silence_seconds
        patience = min(left / 2, silence) if replaceable else silence
        with self.recorder.attempt(tier) as report:

            def ended(attempt: Attempt) -> None:
                self._attempts.append(attempt)
                report(attempt)

            async with attempting(
                self.tiers[tier],
                generation,
                policy=self.policy,
                timeout=left,
                patience=lambda: patience if self._answering is None else None,
                clock=self.clock,
                committed=self._committed,
                ended=ended,
            ) as attempt:
                yield attempt

    def record(self, failure: str | None, *, trace_id: str) -> CostRecord:
        """What became of the request; `failure` names the error that ended it."""
        last = self._attempts[-1] if self._attempts else None
        return CostRecord(
            request_id=self.request.request_id,
            trace_id=trace_id,
            tenant=self.request.tenant,
            policy=self.policy.name,
            policy_version=self.policy.version,
            currency=self.policy.currency,
            decision=self._decision,
            attempts=tuple(self._attempts),
            always_large_nanos=self.policy.cost(Tier.LARGE, last.usage) if last else 0,
            tier=self._answering,
            finish=self._finish,
            degraded=self._degraded,
            error=failure,
        )


async def _hold(attempt: RunningAttempt, deferral: Deferral) -> list[Token]:
    """Takes tokens until the verdict is certain or the answer has ended."""
    held: list[Token] = []
    async for tokens in attempt:
        held.extend(tokens)
        if [deferral.feed(token) for token in tokens][-1] is not Verdict.UNDECIDED:
            break
    return held
