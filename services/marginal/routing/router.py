"""Routes requests over two tiers by named policies. Whatever happens, a request leaves exactly one cost record."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

from marginal.errors import MarginalError
from marginal.policy.deferral import Reason
from marginal.routing.admission import Admission
from marginal.routing.attempts import Clock
from marginal.routing.book import PolicyBook
from marginal.routing.calls import Calls
from marginal.routing.deadlines import within
from marginal.routing.journey import Journey, Retract, Send
from marginal.routing.policies import Policy
from marginal.routing.ports import Ledger, Recorder
from marginal.routing.records import CANCELLED, Comparison, CostRecord
from marginal.routing.requests import Request
from marginal.routing.shadows import Shadows
from marginal.routing.terms import Step, Steps, Terms, no_steps
from marginal.routing.tiers import Bypass, TierState
from marginal.tokens import Tier


class Router:
    """Answers requests; what its rules learn goes into the policy book."""

    def __init__(
        self,
        tiers: Mapping[Tier, TierState],
        *,
        book: PolicyBook,
        shadows: Shadows,
        recorder: Recorder,
        admission: Admission,
        ledger: Ledger,
        clock: Clock,
        step: Steps = no_steps,
    ) -> None:
        """`clock` gives monotonic seconds; `step` is told how far each request has come."""
        self._tiers = tiers
        self._book = book
        self._shadows = shadows
        self._recorder = recorder
        self._admission = admission
        self._ledger = ledger
        self._clock = clock
        self._step = step
        self._bypass = Bypass(lambda: book.policies.bypass)

    @asynccontextmanager
    async def route(
        self, request: Request, send: Send, *, timeout: float, retract: Retract
    ) -> AsyncIterator[CostRecord]:
        """Sends the answer as deltas of one tier and gives what the caller is to be told of it.

        `timeout` is in seconds. `retract` takes back everything sent so far and says whether it could: a caller who
        waits for the whole answer has seen none of it, so the commit point is its end. Raises InvalidRequest,
        ModelFault, DeadlineExceeded, and whatever `send` raises; the cost record is kept all the same. Raises Refused,
        Repeated, Overloaded, LedgerUnavailable and JournalFull before anything is spent, and then there is none.

        The recorder has the record by then, and it is durable, unless the large tier is to be asked too for comparison:
        that begins when the caller has been served, on leaving, and a record with its cost replaces the first.
        """
        policy, deadline = self._book.policy(request.policy), self._clock() + timeout
        async with self._admission.admitted(request, policy, deadline=deadline) as terms:
            journey = self._journey(request, policy, terms, send, retract, deadline)
            try:
                async with within(timeout):
                    await journey.travel()
            except BaseException as error:
                failure = type(error).__name__ if isinstance(error, Exception) else CANCELLED
                self._complete(self._ended(journey, failure))
                raise
            record = self._ended(journey, None)
            hour = self._shadow_hour(journey, record)
            if hour is None:
                self._complete(record)
            else:
                self._ledger.settle(replace(record, open=True))
            try:
                await self._ledger.durable()
                self._step(Step.DURABLE)
                yield record
                self._step(Step.TOLD)
            finally:
                if hour is not None:
                    self._shadows.start(self._shadow(journey, record, hour=hour))

    def _journey(
        self, request: Request, policy: Policy, terms: Terms, send: Send, retract: Retract, deadline: float
    ) -> Journey:
        return Journey(
            self._tiers,
            self._clock,
            request,
            policy,
            terms,
            Calls(self._tiers, self._recorder, self._clock, policy, terms),
            self._book.learner(policy, task=request.task, tenant=request.tenant),
            self._bypass,
            send,
            retract,
            deadline,
            compare=self._shadows.wanted(policy, request.mode),
        )

    def _complete(self, record: CostRecord) -> None:
        """Gives the final record away; money before telemetry."""
        self._ledger.settle(record)
        self._step(Step.SETTLED)
        self._recorder.completed(record)

    def _ended(self, journey: Journey, failure: str | None) -> CostRecord:
        self._step(Step.GENERATED)
        record = journey.record(failure, trace_id=self._recorder.trace_id())
        if self._is_other(journey, record):
            record = replace(record, other_sampling=True)
        journey.learner.ended(record, reckoned=journey.reckoned)
        self._recorder.answered(record)
        return record

    def _is_other(self, journey: Journey, record: CostRecord) -> bool:
        """Whether a request is sampled otherwise than its threshold was calibrated, and that may move its scores.

        One whose tier was named had no threshold.
        """
        at = journey.learner.criterion.calibrated_at
        if at is None or self._tiers[Tier.SMALL].before_sampling:
            return False
        if record.decision is not None and record.decision.reason is Reason.MODE:
            return False
        return not at.fits(journey.request.generation.sampling)

    def _shadow_hour(self, journey: Journey, record: CostRecord) -> float | None:
        """The hour in which the large tier is to be asked too; None when it is not, or there is no room."""
        policy, now = journey.policy, self._clock()
        if not journey.comparable:
            return None
        shadowed = self._shadows.of(policy)
        large = self._tiers[Tier.LARGE]
        if large.looks_down(now, policy.degrade) or not large.presence.anyone:
            shadowed.left_out += 1
            return None
        admitted = shadowed.admits(policy.shadow, expected_nanos=record.always_large_nanos, now=now)
        return shadowed.hour_began if admitted else None

    async def _shadow(self, journey: Journey, record: CostRecord, *, hour: float) -> None:
        comparison: Comparison | None = None
        try:
            comparison = await journey.shadow()
        except MarginalError:
            pass  # the attempt says what failed
        finally:
            completed = replace(record, attempts=journey.attempts, comparison=comparison)
            self._shadows.of(journey.policy).ended(
                comparison,
                expected_nanos=record.always_large_nanos,
                cost_nanos=completed.total_nanos - record.total_nanos,
                hour=hour,
            )
            self._complete(completed)
