"""The policies in force and what their rules have learnt, a tenant at a time.

Two rules. Nothing one tenant sends moves another's threshold. And a rule learns nothing from a request that was
degraded, overridden or without a score.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from marginal.errors import InvalidRequest
from marginal.policy.deferral import Decision, Reason, Verdict
from marginal.policy.thresholds import Lesson
from marginal.routing.policies import Criterion, Policies, Policy
from marginal.routing.records import CANCELLED, CostRecord

MOST_LEARNERS = 4_096
"""Tenants are few; whoever invents more of them makes the least recently seen start again."""

LATEST = 500
"""Requests that a tally looks back on."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What the latest requests came to: shares in [0, 1], money in nano-units per request."""

    deferral_share: float = 0.0
    degraded_share: float = 0.0
    spend_nanos: float = 0.0
    always_large_nanos: float = 0.0


class Learner:
    """One criterion for one tenant: its threshold, and what it came to.

    A deferral that was degraded teaches nothing, and neither does any request after it until a deferral is served
    again: otherwise an outage would count keeps only, and drive the threshold up. Deferrals are served or not whatever
    they scored, so what is learnt between two served ones stays unbiased.
    """

    def __init__(self, criterion: Criterion) -> None:
        self.criterion = criterion
        self.threshold = criterion.rule.start()
        self.requests = 0
        self.lessons = 0
        self.held = False
        self._latest: deque[tuple[Decision | None, bool, int, int]] = deque(maxlen=LATEST)

    def learn(self, record: CostRecord) -> None:
        """Takes the record of a request; one whose tier was named is none of this criterion's."""
        decision = record.decision
        if decision is not None and decision.reason is Reason.MODE:
            return
        self.requests += 1
        self._latest.append(
            (record.decision, record.degraded is not None, record.total_nanos, record.always_large_nanos)
        )
        if decision is None or decision.reason is not Reason.SCORE:
            return
        if decision.verdict is Verdict.DEFER:
            self.held = record.degraded is not None or record.error not in (None, CANCELLED)
        if not self.held and record.degraded is None and record.error in (None, CANCELLED):
            self.lessons += 1
            self.threshold.learn(Lesson(decision, record.total_nanos))

    @property
    def tally(self) -> Tally:
        """What the latest requests came to."""
        if not self._latest:
            return Tally()
        judged = [one[0].verdict for one in self._latest if one[0] and one[0].reason is Reason.SCORE]
        count = len(self._latest)
        return Tally(
            Counter(judged)[Verdict.DEFER] / max(1, len(judged)),
            sum(one[1] for one in self._latest) / count,
            sum(one[2] for one in self._latest) / count,
            sum(one[3] for one in self._latest) / count,
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
        learner = self._learners.get(place)
        if learner is None or learner.criterion.fingerprint != policy.criterion_for(task).fingerprint:
            learner = self._learners[place] = Learner(policy.criterion_for(task))
        self._learners.move_to_end(place)
        while len(self._learners) > MOST_LEARNERS:
            self._learners.popitem(last=False)
        return learner

    def replace(self, policies: Policies) -> None:
        """Puts other policies in force, all at once; what was learnt under an unchanged criterion is kept."""
        self.policies = policies
        for place, learner in list(self._learners.items()):
            criterion = _criterion(policies, place)
            if criterion is None or criterion.fingerprint != learner.criterion.fingerprint:
                del self._learners[place]
            else:
                learner.criterion = criterion

    def learners(self, policy: str) -> Iterator[tuple[Place, Learner]]:
        """Everything learnt under a policy, tenants in order."""
        found = [(place, learner) for place, learner in self._learners.items() if place.policy == policy]
        return iter(sorted(found, key=lambda one: (one[0].task, one[0].tenant)))

    def snapshot(self) -> list[dict[str, Any]]:
        """What was learnt, as JSON values."""
        return [
            {
                "policy": place.policy,
                "task": place.task,
                "tenant": place.tenant,
                "fingerprint": learner.criterion.fingerprint,
                "state": dict(learner.threshold.state()),
            }
            for place, learner in self._learners.items()
            if learner.threshold.state()
        ]

    def restore(self, snapshot: list[Mapping[str, Any]]) -> int:
        """Goes on from a snapshot, as far as its criteria are still in force; says how many learners it restored.

        Raises KeyError, TypeError or ValueError for what is no snapshot.
        """
        restored = 0
        for saved in snapshot:
            place = Place(str(saved["policy"]), str(saved["task"]), str(saved["tenant"]))
            criterion = _criterion(self.policies, place)
            if criterion is None or criterion.fingerprint != saved["fingerprint"]:
                continue
            learner = Learner(criterion)
            learner.threshold.restore(saved["state"])
            self._learners[place] = learner
            restored += 1
        return restored


def _criterion(policies: Policies, place: Place) -> Criterion | None:
    """What is in force at a place, if anything is."""
    policy = policies.by_name.get(place.policy)
    if policy is None:
        return None
    return policy.tasks.get(place.task) if place.task else policy.criterion
