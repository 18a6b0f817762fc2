"""95 % intervals: Wilson's for a share, percentiles for what was resampled."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

NORMAL_QUANTILE = 1.959964


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % interval."""

    low: float
    high: float


def wilson(successes: int, *, of: int) -> Interval:
    """Wilson's 95 % score interval of a share; `of` is at least 1."""
    z2 = NORMAL_QUANTILE**2
    share = successes / of
    centre = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = NORMAL_QUANTILE / (1 + z2 / of) * math.sqrt(share * (1 - share) / of + z2 / (4 * of * of))
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def percentiles(resampled: Sequence[float]) -> Interval:
    """The interval between the 2.5th and the 97.5th percentile of at least one value."""
    values = sorted(resampled)
    return Interval(values[round(0.025 * (len(values) - 1))], values[round(0.975 * (len(values) - 1))])
