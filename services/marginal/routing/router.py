"""Routes requests over two tiers by named policies. Whatever happens, a request leaves exactly one cost record."""

from collections.abc import Mapping
from dataclasses import replace

from marginal.errors import MarginalError
from marginal.routing.attempts import Clock
from marginal.routing.book import PolicyBook
from marginal.routing.deadlines import within
from marginal.routing.journey import Journey, Retract, Send
from marginal.routing.ports import Recorder
from marginal.routing.records import CANCELLED, Comparison, CostRecord
from marginal.routing.requests import Request
from marginal.routing.shadows import Shadows
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
        clock: Clock,
    ) -> None:
        """`clock` gives monotonic seconds."""
        self._tiers = tiers
        self._book = book
        self._shadows = shadows
        self._recorder = recorder
        self._clock = clock
        self._bypass = Bypass(lambda: book.policies.bypass)

    async def route(self, request: Request, send: Send, *, timeout: float, retract: Retract) -> CostRecord:
        """Sends the answer as deltas of one tier and returns what the caller is told of it.

        `timeout` is in seconds. `retract` takes back everything sent so far and says whether it could: a caller who
        waits for the whole answer has seen none of it, so the commit point is its end. Raises InvalidRequest,
        ModelFault, DeadlineExceeded, and whatever `send` raises; the cost record is kept all the same. The recorder has
        it by then, unless the large tier is asked too for comparison: then it comes when that has ended.
        """
        policy, deadline = self._book.policy(request.policy), self._clock() + timeout
        learner = self._book.learner(policy, task=request.task, tenant=request.tenant)
        journey = Journey(
            self._tiers,
            self._recorder,
            self._clock,
            request,
            policy,
            learner,
            self._bypass,
            send,
            retract,
            deadline,
            compare=self._shadows.wanted(policy, request.mode),
        )
        failure: str | None = CANCELLED
        try:
            async with within(timeout):
                await journey.travel()
            failure = None
        except Exception as error:
            failure = type(error).__name__
            raise
        finally:
            record = journey.record(failure, trace_id=self._recorder.trace_id())
            learner.learn(record)
            self._recorder.answered(record)
            if failure is not None or not self._shadowing(journey, record):
                self._recorder.completed(record)
        return record

    def _shadowing(self, journey: Journey, record: CostRecord) -> bool:
        """Starts to ask the large tier too, if that is wanted and there is room."""
        policy, now = journey.policy, self._clock()
        if not journey.comparable:
            return False
        shadowed, expected = self._shadows.of(policy), record.always_large_nanos
        if self._tiers[Tier.LARGE].looks_down(now, retry_seconds=policy.degrade.retry_seconds):
            shadowed.left_out += 1
            return False
        if not shadowed.admits(policy.shadow, expected_nanos=expected, now=now):
            return False
        self._shadows.start(self._shadow(journey, record))
        return True

    async def _shadow(self, journey: Journey, record: CostRecord) -> None:
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
            )
            self._recorder.completed(completed)
