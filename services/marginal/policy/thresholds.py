"""Threshold rules: the smallest score that is kept, and how it follows the traffic.

A rule gives the threshold for the next request and learns one lesson a request, in the order verdicts fall: a rule that
waited for answers would see keeps before the deferrals of the same moment, and swing. Whether a request is a lesson at
all is not for the rule to say. Everything a rule has learnt is in `state()`.
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from marginal.policy.deferral import Decision, Verdict
from marginal.policy.means import RunningMean
from marginal.policy.scales import UNIT, Scale
from marginal.policy.tracking import Tracked

WARM_UP = 20
"""Scores the paper's rule sees before it defers at all (guillemram97/margin_llms, utils_method.py)."""

State = Mapping[str, float | list[float]]
"""What a rule has learnt, as JSON values."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """One request as a rule learns it: the decision, and what its attempts cost in nano-units, aborted ones too.

    The cost is None while the request is under way.
    """

    decision: Decision
    cost_nanos: int | None = None

    @property
    def deferred(self) -> bool:
        """Whether the verdict was to defer."""
        return self.decision.verdict is Verdict.DEFER


class Threshold(Protocol):
    """Gives the threshold for the next request and learns from those that ended."""

    @property
    def value(self) -> float:
        """The smallest score kept, on the score's scale."""
        ...

    def learn(self, lesson: Lesson) -> float:
        """Takes the next lesson; gives the cost it reckoned with, for one that is not known yet."""
        ...

    def settle(self, lesson: Lesson, *, reckoned: float) -> None:
        """Takes what a lesson learnt without its cost has come to."""
        ...

    def state(self) -> State:
        """What was learnt so far."""
        ...

    def restore(self, state: State) -> None:
        """Goes on from a state of the same rule. Raises KeyError, TypeError or ValueError for one it cannot read."""
        ...


class _Costless:
    """A rule to which costs are nothing."""

    def settle(self, lesson: Lesson, *, reckoned: float) -> None:
        """Changes nothing."""


class Fixed(_Costless):
    """Always the same threshold."""

    def __init__(self, value: float) -> None:
        self.value = value

    def learn(self, lesson: Lesson) -> float:  # noqa: ARG002
        return 0.0

    def state(self) -> State:
        return {}

    def restore(self, state: State) -> None:
        """There is nothing to restore."""


class Budget(_Costless):
    """The paper's rule: the p-quantile of all scores so far, p = min((budget − small cost) / large cost, 1).

    The quantile includes the score that is compared with it; said without that score, a request is deferred when it
    scores less than the past score of rank int(p (n + 1)) − 1, counted from 0, of n. The first 20 are kept. Costs are
    in any one unit. `memory` bounds how many scores are remembered, the latest: None is the paper's whole history,
    which a service that runs for months cannot keep. Source: guillemram97/margin_llms, utils_method.make_cascade.
    """  # noqa: RUF002

    def __init__(
        self, budget: float, *, small_cost: float, large_cost: float, scale: Scale = UNIT, memory: int | None = None
    ) -> None:
        self.share = max(0.0, min((budget - small_cost) / large_cost, 1))
        self._scale = scale
        self._sorted: list[float] = []
        self._latest: deque[float] = deque(maxlen=memory)

    @property
    def value(self) -> float:
        count = len(self._sorted) + 1
        rank = int(count * self.share)
        if count <= WARM_UP or rank == 0:
            return self._scale.keep_all
        return self._scale.defer_all if rank >= count else self._sorted[rank - 1]

    def learn(self, lesson: Lesson) -> float:
        if lesson.decision.score is not None:
            self.remember(lesson.decision.score)
        return 0.0

    def remember(self, score: float) -> None:
        """Adds a score to the history."""
        if len(self._latest) == self._latest.maxlen:
            del self._sorted[bisect_left(self._sorted, self._latest[0])]
        self._latest.append(score)
        insort(self._sorted, score)

    def state(self) -> State:
        return {"scores": list(self._latest)}

    def restore(self, state: State) -> None:
        scores = _numbers(state["scores"])
        self._latest = deque(scores, maxlen=self._latest.maxlen)
        self._sorted = sorted(self._latest)


class TargetRate(_Costless):
    """Holds the share of deferrals at `rate` under drift, from verdicts alone, so censored scores do not disturb it.

    Every keep raises the threshold by `step` times `rate`, every deferral lowers it by `step` times the rest, as a
    place on the scale; what has been deferred too little or too much is made up for slowly. `start` is a threshold on
    the scale, from calibration; without it the prior is that places are spread evenly, which defers too little rather
    than too much where a model is mostly sure. Source: online quantile tracking (Gibbs and Candès 2021; Angelopoulos
    et al. 2023, its integral term).
    """

    def __init__(self, rate: float, *, start: float | None = None, step: float = 0.02, scale: Scale = UNIT) -> None:
        self._rate = rate
        self._tracked = Tracked(start, prior=rate, step=step, scale=scale)

    @property
    def value(self) -> float:
        return self._tracked.value

    def learn(self, lesson: Lesson) -> float:
        self._tracked.correct(self._rate - lesson.deferred)
        return 0.0

    def state(self) -> State:
        return self._tracked.state()

    def restore(self, state: State) -> None:
        self._tracked.restore(place=_number(state["place"]), owed=_number(state["owed"]))


class SpendRate:
    """Holds the mean cost of a request at `budget_nanos`, from what requests really cost, aborted attempts included.

    The same controller with an error in money: what was spent less than the budget, as a share of what a deferral adds.
    That is learnt too, from kept and from deferred requests; until both were seen the budget's place between
    `kept_nanos` and `deferred_nanos`, the costs expected, is the share aimed at. A request under way counts with the
    cost expected of it, and what it came to otherwise is made up for when it has ended.
    """

    def __init__(
        self,
        budget_nanos: float,
        *,
        kept_nanos: float,
        deferred_nanos: float,
        start: float | None = None,
        step: float = 0.02,
        scale: Scale = UNIT,
    ) -> None:
        self._budget = budget_nanos
        self._kept = RunningMean(kept_nanos)
        self._deferred = RunningMean(deferred_nanos)
        share = (budget_nanos - kept_nanos) / max(1.0, deferred_nanos - kept_nanos)
        self._tracked = Tracked(start, prior=share, step=step, scale=scale)

    @property
    def value(self) -> float:
        return self._tracked.value

    def learn(self, lesson: Lesson) -> float:
        mean = self._mean(lesson)
        if lesson.cost_nanos is not None:
            mean.add(lesson.cost_nanos)
        reckoned = mean.value if lesson.cost_nanos is None else float(lesson.cost_nanos)
        added = self._added
        # where a deferral adds nothing, money is no reason to keep
        self._tracked.correct((self._budget - reckoned) / added if added > 0.0 else 1.0)
        return reckoned

    def settle(self, lesson: Lesson, *, reckoned: float) -> None:
        if lesson.cost_nanos is None:
            return
        self._mean(lesson).add(lesson.cost_nanos)
        if self._added > 0.0:
            self._tracked.amend((reckoned - lesson.cost_nanos) / self._added)

    def state(self) -> State:
        return {
            **self._tracked.state(),
            "kept_nanos": self._kept.value,
            "kept_seen": self._kept.seen,
            "deferred_nanos": self._deferred.value,
            "deferred_seen": self._deferred.seen,
        }

    def restore(self, state: State) -> None:
        kept, deferred = (
            RunningMean(_amount(state[f"{kind}_nanos"]), seen=int(_amount(state[f"{kind}_seen"])))
            for kind in ("kept", "deferred")
        )
        self._tracked.restore(place=_number(state["place"]), owed=_number(state["owed"]))
        self._kept, self._deferred = kept, deferred

    def _mean(self, lesson: Lesson) -> RunningMean:
        return self._deferred if lesson.deferred else self._kept

    @property
    def _added(self) -> float:
        return self._deferred.value - self._kept.value


MOST_NANOS = 1e18
"""A state with more is not one of ours: a request costs a thousand million currency units at most."""


def _number(value: float | list[float]) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MOST_NANOS:
        raise ValueError("a state holds what is no number of that kind")
    return float(value)


def _amount(value: float | list[float]) -> float:
    if (number := _number(value)) < 0.0:
        raise ValueError("a state holds an amount below 0")
    return number


def _numbers(value: float | list[float]) -> list[float]:
    if not isinstance(value, list):
        raise ValueError("a state holds what is no list of numbers")
    return [_number(each) for each in value]
