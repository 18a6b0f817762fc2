"""A promise about accuracy that holds for any traffic like the labelled: finite-sample risk control of a threshold.

The loss of a request is 1 where the small answer is kept and wrong though the large one is right, -1 where it is the
other way round, 0 otherwise; its mean is the accuracy lost against always asking the large tier. Thresholds of a grid
that does not depend on the labels are tested from the strictest on, each at the whole level, up to the first that
fails (fixed-sequence testing: Bauer 1991; Angelopoulos et al. 2021, Learn then Test): with probability 1 - delta over
the labelled requests, none that passed loses more than epsilon.

The test is exact but for a nuisance, how often the small tier alone is right: it is bounded by its upper confidence
limit (Clopper and Pearson 1934) at a part of the level, over which the p-value is the greatest (Berger and Boos 1994).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from marginal.policy.scales import UNIT, Scale

Array = NDArray[np.float64]

NUISANCE_SHARE = 0.05
"""The part of delta that pays for not knowing the nuisance."""

MOST_TIMES = 1000
"""The largest multiple of the labels that is looked at for how many it would take."""

PLACES: tuple[float, ...] = (
    *(1.0 - np.logspace(-9.0, -1.5, 76)).tolist(),
    *np.linspace(0.96, 0.0, 97).tolist(),
)
"""Where thresholds are tested, as places on the score's scale: dense near the sure end, where little is kept."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """Deferring below `threshold` loses at most `epsilon` accuracy against always-large, with probability 1 - `delta`.

    `kept` is the share of the labelled requests at or above it, `labels` their number. Without a promise the threshold
    is None, and `needed` says how many labels like these it takes to promise anything: None when no number would.
    """

    threshold: float | None
    kept: float
    epsilon: float
    delta: float
    labels: int
    needed: int | None = None

    @property
    def sentence(self) -> str:
        """What is promised, or what it would take."""
        wanted = f"at most {self.epsilon:.4g} less accurate than always-large, with probability {1.0 - self.delta:.4g}"
        if self.threshold is not None:
            return (
                f"{wanted}: threshold {self.threshold:.4f}, keeping {self.kept:.1%}, certified on {self.labels} labels"
            )
        if self.needed is None:
            return f"{wanted}, cannot be promised by this score: even the surest answers lose more, or too near to it"
        return f"{wanted}, cannot be promised from {self.labels} labels: it takes about {self.needed} like these"


def certify(
    scores: Sequence[float],
    small_correct: Sequence[bool | None],
    large_correct: Sequence[bool],
    *,
    epsilon: float,
    delta: float = 0.1,
    scale: Scale = UNIT,
) -> Certificate:
    """Finds the lowest threshold that is certified; one value per labelled request in every sequence.

    The requests must be drawn like the traffic that the promise is about, and not have been used to choose the score.
    Where `small_correct` is None the answer was given up and its score is an upper bound: such requests are deferred,
    so nothing up to the greatest of these scores is tested. A request without a score is one of them, at the low end of
    the scale. Raises ValueError for an epsilon or a delta outside (0, 1), without requests or for unequal lengths.
    """
    if not (0.0 < epsilon < 1.0 and 0.0 < delta < 1.0):
        raise ValueError("epsilon and delta must be inside (0, 1)")
    if not len(scores) == len(small_correct) == len(large_correct) > 0:
        raise ValueError("there must be requests, with a score and both labels for each")
    unknown = max((score for score, right in zip(scores, small_correct, strict=True) if right is None), default=None)
    grid = [scale.at(place) if place > 0.0 else scale.keep_all for place in PLACES]
    counted = _counter(scores, small_correct, large_correct)
    counts = [counted(threshold) for threshold in grid if unknown is None or threshold > unknown]
    number = len(scores)
    best = _last_certified(counts, 1.0, number, epsilon, delta)
    if best is not None and best.kept > 0:
        return Certificate(best.threshold, best.kept / number, epsilon, delta, number)
    return Certificate(None, 0.0, epsilon, delta, number, _needed(counts, number, epsilon, delta))


def p_value(worse: int, better: int, *, of: int, epsilon: float, beta: float) -> float:
    """How likely so small a loss is, or a smaller, where the true mean loss is epsilon or more; never understated.

    `worse` and `better` of the requests have a loss of 1 and of -1. With q the probability of -1, the least favourable
    one of 1 is q + epsilon, and while q <= (1 - epsilon)²/4 the sum of the losses plus their number is then that of two
    independent binomials: 1 - a + a z and 1 - b + b z multiply to q + (1 - 2q - epsilon) z + (q + epsilon) z². Its mode
    is within 1 of its mean (Darroch 1964), so below that its lower tail grows with q, and is greatest at q's limit.
    """
    total, limit = worse - better, upper_limit(better, of=of, beta=beta)
    spread = (1.0 - epsilon) ** 2 - 4.0 * limit
    if total > (of - 1) * epsilon - 2.0:
        return 1.0
    if spread < 0.0:
        # Hoeffding 1963: valid for any losses in [-1, 1]
        return min(1.0, math.exp(-of * (epsilon - total / of) ** 2 / 2.0))
    root = math.sqrt(spread)
    one, other = _binomial(of, (1.0 + epsilon + root) / 2.0), _binomial(of, (1.0 + epsilon - root) / 2.0)
    rest = of + total - np.arange(of + 1)
    return min(1.0, beta + float(one[rest >= 0] @ np.cumsum(other)[np.clip(rest[rest >= 0], 0, of)]))


@cache
def upper_limit(successes: int, *, of: int, beta: float) -> float:
    """The probability that is exceeded with confidence at most beta: Clopper and Pearson's one-sided limit."""
    low, high = successes / of, 1.0
    if successes == of:
        return 1.0
    for _ in range(50):
        middle = (low + high) / 2.0
        if float(_binomial(of, middle)[: successes + 1].sum()) > beta:
            low = middle
        else:
            high = middle
    return high


@dataclass(frozen=True, slots=True)
class _Counts:
    """Of the labelled requests, those kept from a threshold on, and those among them with a loss of 1 and of -1."""

    threshold: float
    kept: int
    worse: int
    better: int


def _counter(
    scores: Sequence[float], small_correct: Sequence[bool | None], large_correct: Sequence[bool]
) -> Callable[[float], _Counts]:
    order = np.argsort(np.asarray(scores, dtype=np.float64), kind="stable")
    ordered = np.asarray(scores, dtype=np.float64)[order]
    small = np.array([math.nan if right is None else float(right) for right in small_correct])[order]
    loss = np.asarray(large_correct, dtype=np.float64)[order] - small
    worse, better = (np.append(np.cumsum((loss == sign)[::-1])[::-1], 0) for sign in (1.0, -1.0))

    def counted(threshold: float) -> _Counts:
        first = int(np.searchsorted(ordered, threshold))
        return _Counts(threshold, len(ordered) - first, int(worse[first]), int(better[first]))

    return counted


def _last_certified(
    counts: Sequence[_Counts], times: float, number: int, epsilon: float, delta: float
) -> _Counts | None:
    """The last of the sequence that passes before the first that fails, had there been so many times the requests."""
    beta = NUISANCE_SHARE * delta
    of, best = round(times * number), None
    for one in counts:
        worse, better = math.ceil(times * one.worse), math.floor(times * one.better)
        if p_value(worse, better, of=of, epsilon=epsilon, beta=beta) > delta:
            break
        best = one
    return best


def _needed(counts: Sequence[_Counts], number: int, epsilon: float, delta: float) -> int | None:
    """The fewest labels, a multiple of the observed ones, from which a threshold that keeps anything is certified."""
    sequence = [one for one in counts if one.kept > 0][:1]

    def enough(times: float) -> bool:
        best = _last_certified(sequence, times, number, epsilon, delta)
        return best is not None and best.kept > 0

    low, high = 1.0, 2.0
    while not enough(high):
        low, high = high, 2.0 * high
        if high > MOST_TIMES:
            return None
    while high - low > max(0.01 * low, 1.0 / number):
        middle = (low + high) / 2.0
        low, high = (low, middle) if enough(middle) else (middle, high)
    return math.ceil(high * number)


@cache
def _log_factorials(number: int) -> Array:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1.0, number + 1.0)))])


def _binomial(number: int, probability: float) -> Array:
    """The probabilities of 0 to `number` successes; `probability` is inside (0, 1)."""
    factorials, hits = _log_factorials(number), np.arange(number + 1.0)
    ways = factorials[-1] - factorials - factorials[::-1]
    chances: Array = np.exp(ways + hits * math.log(probability) + hits[::-1] * math.log1p(-probability))
    return chances
