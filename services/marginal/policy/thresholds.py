"""Threshold rules: the smallest score that is kept, and how it follows the traffic.

A rule gives the threshold for the next request and learns one lesson a request, in the order requests end. Whether a
request is a lesson at all is not for the rule to say: see `lessons.py`. Everything a rule has learnt is in `state()`.
"""

from bisect import insort
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from marginal.policy.deferral import Decision, Verdict
from marginal.policy.scales import UNIT, Scale

LEAST, MOST = 0.001, 0.999
"""A moving threshold stays inside, as a place on its scale: at 0 nothing would ever be deferred, above 1 everything."""

WARM_UP = 20
"""Scores the paper's rule sees before it defers at all (guillemram97/margin_llms, utils_method.py)."""

State = Mapping[str, float | list[float]]
"""What a rule has learnt, as JSON values."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """One request as a rule learns it: the decision, and what its attempts cost in nano-units, aborted ones too."""

    decision: Decision
    cost_nanos: int = 0

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

    def learn(self, lesson: Lesson) -> None:
        """Takes the next lesson."""
        ...

    def state(self) -> State:
        """What was learnt so far."""
        ...

    def restore(self, state: State) -> None:
        """Goes on from a state of the same rule. Raises KeyError, TypeError or ValueError for one it cannot read."""
        ...


class Fixed:
    """Always the same threshold."""

    def __init__(self, value: float) -> None:
        self.value = value

    def learn(self, lesson: Lesson) -> None:
        """Changes nothing."""

    def state(self) -> State:
        return {}

    def restore(self, state: State) -> None:
        """There is nothing to restore."""


class Budget:
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

    def learn(self, lesson: Lesson) -> None:
        if lesson.decision.score is not None:
            self.remember(lesson.decision.score)

    def remember(self, score: float) -> None:
        """Adds a score to the history."""
        if len(self._latest) == self._latest.maxlen:
            self._sorted.remove(self._latest[0])
        self._latest.append(score)
        insort(self._sorted, score)

    def state(self) -> State:
        return {"scores": list(self._latest)}

    def restore(self, state: State) -> None:
        scores = _numbers(state["scores"])
        self._latest = deque(scores, maxlen=self._latest.maxlen)
        self._sorted = sorted(self._latest)


class TargetRate:
    """Holds the share of deferrals at `rate` under drift, from verdicts alone, so censored scores do not disturb it.

    Every keep raises the threshold by `step` times `rate`, every deferral lowers it by `step` times the rest, as a
    place on the scale; what has been deferred too little or too much is made up for slowly. `start` is a threshold on
    the scale, from calibration; without it the prior is that places are spread evenly, which defers too little rather
    than too much where a model is mostly sure. Source: online quantile tracking (Gibbs and Candès 2021; Angelopoulos
    et al. 2023, its integral term).
    """

    def __init__(self, rate: float, *, start: float | None = None, step: float = 0.02, scale: Scale = UNIT) -> None:
        self._rate = rate
        self._tracked = _Tracked(start, prior=rate, step=step, scale=scale)

    @property
    def value(self) -> float:
        return self._tracked.value

    def learn(self, lesson: Lesson) -> None:
        self._tracked.correct(self._rate - lesson.deferred)

    def state(self) -> State:
        return self._tracked.state()

    def restore(self, state: State) -> None:
        self._tracked.restore(state)


class SpendRate:
    """Holds the mean cost of a request at `budget_nanos`, from what requests really cost, aborted attempts included.

    The same controller with an error in money: what was spent less than the budget, as a share of what a deferral adds.
    That is learnt too, from kept and from deferred requests; until both were seen the budget's place between
    `kept_nanos` and `deferred_nanos`, the costs expected, is the share aimed at.
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
        self._kept = _Mean(kept_nanos)
        self._deferred = _Mean(deferred_nanos)
        share = (budget_nanos - kept_nanos) / max(1.0, deferred_nanos - kept_nanos)
        self._tracked = _Tracked(start, prior=share, step=step, scale=scale)

    @property
    def value(self) -> float:
        return self._tracked.value

    def learn(self, lesson: Lesson) -> None:
        (self._deferred if lesson.deferred else self._kept).add(lesson.cost_nanos)
        added = self._deferred.value - self._kept.value
        # where a deferral adds nothing, money is no reason to keep
        self._tracked.correct((self._budget - lesson.cost_nanos) / added if added > 0.0 else 1.0)

    def state(self) -> State:
        return {**self._tracked.state(), "kept_nanos": self._kept.value, "deferred_nanos": self._deferred.value}

    def restore(self, state: State) -> None:
        self._kept, self._deferred = _Mean(_number(state["kept_nanos"])), _Mean(_number(state["deferred_nanos"]))
        self._tracked.restore(state)


class _Mean:
    """A mean that follows what it sees: the plain mean at first, then over about the last 500."""

    LATEST = 500

    def __init__(self, prior: float) -> None:
        self.value = prior
        self._seen = 0

    def add(self, value: float) -> None:
        self._seen = min(self._seen + 1, self.LATEST)
        self.value += (value - self.value) / (self._seen + 1)


class _Tracked:
    """A place in [0.001, 0.999] that is corrected in bounded steps, with an integral term so that ramps are followed.

    The integral's gain, step²/16, keeps the two from swinging while the density of scores at the threshold is above
    1/4; what it remembers is bounded, so that an unreachable target does not wind it up.
    """

    def __init__(self, start: float | None, *, prior: float, step: float, scale: Scale) -> None:
        self._scale = scale
        self._step = step
        self._place = _inside(prior if start is None else scale.place(start))
        self._owed = 0.0

    @property
    def value(self) -> float:
        return self._scale.at(self._place)

    def correct(self, error: float) -> None:
        """Takes how far a request was below its target (positive) or above, in deferrals."""
        most = 4.0 / self._step
        self._owed = min(most, max(-most, self._owed + error))
        moved = self._step * error + self._step**2 / 16.0 * self._owed
        self._place = _inside(self._place + min(MOST_STEP, max(-MOST_STEP, moved)))

    def state(self) -> State:
        return {"place": self._place, "owed": self._owed}

    def restore(self, state: State) -> None:
        place, owed = _number(state["place"]), _number(state["owed"])
        self._place, self._owed = _inside(place), owed


MOST_STEP = 0.2
"""The furthest one request can move a threshold, however much it cost."""


def _inside(place: float) -> float:
    return min(MOST, max(LEAST, place))


def _number(value: float | list[float]) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or abs(value) == float("inf"):
        raise ValueError(f"{value!r} is no finite number")
    return float(value)


def _numbers(value: float | list[float]) -> list[float]:
    if not isinstance(value, list):
        raise ValueError(f"{value!r} is no list of numbers")
    return [_number(each) for each in value]
