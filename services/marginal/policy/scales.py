"""The range of a score, and its place in [0, 1], where rules that move a threshold take their steps."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from marginal.policy.evidence import LEAST_LOGPROB

MOST_OUTCOMES = 64
"""Choices that a request may have at most; more outcomes than a list of alternatives and its rest."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The range [low, high] of a score; `place` maps it onto [0, 1], never decreasing, and `at` back."""

    low: float
    high: float
    place: Callable[[float], float]
    at: Callable[[float], float]

    @property
    def keep_all(self) -> float:
        """The threshold that no score is below."""
        return self.low

    @property
    def defer_all(self) -> float:
        """The threshold that every score is below."""
        return math.nextafter(self.high, math.inf)

    def clamp(self, threshold: float) -> float:
        """The nearest threshold that means something on this scale."""
        return min(self.defer_all, max(self.keep_all, threshold))


def _same(value: float) -> float:
    return value


_LEAST_ENTROPY = -math.log(MOST_OUTCOMES)

UNIT = Scale(0.0, 1.0, _same, _same)
"""A probability or a difference of two."""

_STRETCH = 1.0 - 1.0 / LEAST_LOGPROB

LOGIT = Scale(
    0.0, -LEAST_LOGPROB, lambda value: _STRETCH * value / (1.0 + value), lambda place: place / (_STRETCH - place)
)
"""A difference of logits; one logit is about half of the way."""

LOGPROB = Scale(LEAST_LOGPROB, 0.0, math.exp, math.log)
"""A mean log-probability in nats; its place is the geometric mean of the probabilities."""

LINEAR = Scale(
    _LEAST_ENTROPY, 0.0, lambda value: 1.0 - value / _LEAST_ENTROPY, lambda place: _LEAST_ENTROPY * (1.0 - place)
)
"""Minus an entropy in nats."""
