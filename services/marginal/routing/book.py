"""The policies in force and what their rules have learnt, a tenant at a time.

Two rules. Nothing one tenant sends moves another's threshold. And a rule learns nothing from a request that was
overridden, had no score, or came while the large tier was not to be had: it learns verdicts when they fall, and what
becomes of them afterwards, an outage included, moves nothing. Leaving out the deferrals that then failed would bias it,
since the keeps of the same time stay.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from marginal.errors import InvalidRequest
from marginal.policy.deferral import Decision, Reason, Verdict
from marginal.policy.means import RunningMean
from marginal.policy.thresholds import Lesson
from marginal.routing.policies import Criterion, Policies, Policy
from marginal.routing.records import CostRecord

MOST_LEARNERS = 1_024
"""Tenants are few; whoever invents more of them makes the least recently seen start again."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What about the latest 500 requests came to: shares in [0, 1], money in nano-units per request.

    `other_sampling_share` are those sampled otherwise than the threshold was calibrated, while the small tier's
    log-probabilities are not known to be before sampling.
    """

    deferral_share: float = 0.0
    degraded_share: float = 0.0
    spend_nanos: float = 0.0
    always_large_nanos: float = 0.0
    other_sampling_share: float = 0.0


class Learner:
    """One criterion for one tenant: its threshold, and what it came to."""

    def __init__(self, criterion: Criterion) -> None:
        self.criterion = criterion
        self.threshold = criterion.rule.start()
        self.requests = 0
        self.lessons = 0
        self._deferred, self._degraded, self._spend, self._always_large = (RunningMean() for _ in range(4))
        self._other_sampling = RunningMean()

    def judged(self, decision: Decision, *, deferrable: bool) -> float | None:
        """Takes a verdict as it falls; `deferrable` says that the large tier is not known to be out of reach.

        Gives the cost that the rule reckons with, None when this is no lesson.
        """
        if decision.reason is not Reason.SCORE:
            return None
        self._deferred.add(decision.verdict is Verdict.DEFER)
        if not deferrable:
            return None
        self.lessons += 1
        return self.threshold.learn(Lesson(decision))

    def ended(self, record: CostRecord, *, reckoned: float | None) -> None:
        """Takes the record of a request and what its lesson reckoned with; one whose tier was named is not ours."""
        decision = record.decision
        if decision is not None and decision.reason is Reason.MODE:
            return
        self.requests += 1
        self._other_sampling.add(record.other_sampling)
        self._degraded.add(record.degraded is not None)
        self._spend.add(record.total_nanos)
        self._always_large.add(record.always_large_nanos)
        if decision is not None and reckoned is not None and record.degraded is None and record.error is None:
            self.threshold.settle(Lesson(decision, record.total_nanos), reckoned=reckoned)

    @property
    def tally(self) -> Tally:
        """What the latest requests came to."""
        return Tally(
            self._deferred.value,
            self._degraded.value,
            self._spend.value,
            self._always_large.value,
            self._other_sampling.value,
        )


@dataclass(frozen=True, slots=True)
class Place:
    """Whose learning it is: a policy's, for a task that has a criterion of its own ("" for the others), of a tenant."""

    policy: str
    task: str
    tenant: str


class PolicyBook:
    """Policies that may be replaced while requests are under way, and their learners."""

    def __init__(self, policies: Policies) -> None:
        self.policies = policies
        self._learners: OrderedDict[Place, Learner] = OrderedDict()

    def policy(self, name: str) -> Policy:
        """The policy of that name, "" for the default. Raises InvalidRequest."""
        found = self.policies.by_name.get(name or self.policies.default)
        if found is None:
            known = ", ".join(self.policies.by_name)
            raise InvalidRequest("policy", f"no such policy here, use one of: {known}")
        return found

    def learner(self, policy: Policy, *, task: str, tenant: str) -> Learner:
        """Where the threshold for this request comes from, and where its record goes."""
        place = Place(policy.name, task if task in policy.tasks else "", tenant)
        criterion = policy.criterion_for(task)
        learner = self._learners.get(place)
        if learner is None or learner.criterion.fingerprint != criterion.fingerprint:
            learner = self._learners[place] = Learner(criterion)
        self._learners.move_to_end(place)
        self._bound()
        return learner

    def replace(self, policies: Policies) -> None:
        """Puts other policies in force, all at once; what was learnt under an unchanged criterion is gone on with."""
        self.policies = policies

    def learners(self, policy: str) -> Iterator[tuple[Place, Learner]]:
        """Everything learnt under a policy as it is in force, tenants in order."""
        found = [(place, learner) for place, learner in self._in_force() if place.policy == policy]
        return iter(sorted(found, key=lambda one: (one[0].task, one[0].tenant)))

    @property
    def lessons(self) -> int:
        """How many lessons all that is remembered rests on: while it stays the same, so does what was learnt."""
        return sum(learner.lessons + learner.requests for learner in self._learners.values())

    def snapshot(self) -> list[dict[str, Any]]:
        """What was learnt, as JSON values."""
        states = [(place, learner, learner.threshold.state()) for place, learner in self._learners.items()]
        return [
            {
                "policy": place.policy,
                "task": place.task,
                "tenant": place.tenant,
                "fingerprint": learner.criterion.fingerprint,
                "state": dict(state),
            }
            for place, learner, state in states
            if state
        ]

    def restore(self, snapshot: Sequence[Mapping[str, Any]]) -> int:
        """Goes on from a snapshot, as far as its criteria are still in force; says how many learners it restored.

        All or nothing. Raises ArithmeticError, KeyError, TypeError or ValueError for what is no snapshot.
        """
        restored: dict[Place, Learner] = {}
        for saved in snapshot:
            place = Place(str(saved["policy"]), str(saved["task"]), str(saved["tenant"]))
            criterion = _criterion(self.policies, place)
            if criterion is not None and criterion.fingerprint == saved["fingerprint"]:
                restored[place] = Learner(criterion)
                restored[place].threshold.restore(saved["state"])
        self._learners.update(restored)
        self._bound()
        return len(restored)

    def _in_force(self) -> Iterator[tuple[Place, Learner]]:
        for place, learner in self._learners.items():
            criterion = _criterion(self.policies, place)
            if criterion is not None and criterion.fingerprint == learner.criterion.fingerprint:
                yield place, learner

    def _bound(self) -> None:
        while len(self._learners) > MOST_LEARNERS:
            self._learners.popitem(last=False)


def _criterion(policies: Policies, place: Place) -> Criterion | None:
    """What is in force at a place, if anything is."""
    policy = policies.by_name.get(place.policy)
    if policy is None:
        return None
    return policy.tasks.get(place.task) if place.task else policy.criterion
