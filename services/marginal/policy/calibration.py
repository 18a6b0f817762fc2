"""What a threshold will do, learnt from labelled requests: P(correct | score), and with it quality, cost and share.

P(correct | score) is isotonic: never lower for a surer score. Quality is relative to always asking the large tier, cost
to what that costs. Source: pool-adjacent-violators, Ayer et al. 1955; for cascades arXiv 2605.18796 (UCCI).
"""

import math
import operator
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from marginal.policy.scales import UNIT, Scale

MOST_BLOCKS = 40
"""Blocks of about equal share that requests are divided into, so that each is at most 2.5 % of them, ties aside."""

SHARES_OFF = 1e-3
"""How far the shares of a table may be from a sum of 1: they are rounded where they are written."""

MOST_COST = 1e6
"""Times always-large; more is no cost of this run."""

_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Expected:
    """What a threshold is expected to do: `quality` and `cost` relative to always-large, `share` in [0, 1] deferred."""

    quality: float
    cost: float
    share: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """Blocks of a score, the least sure first, from `labels` requests; every tuple has a value per block.

    `scores` are their lower edges, the first the low end of the score's scale; `shares` of the requests may be 0.
    `small_correct` is P(correct | score) in [0, 1], never decreasing; `large_correct` how often the large one is right;
    `kept_cost` and `deferred_cost` what a request costs in the mean, an aborted attempt included, always-large being 1.
    `low` and `high` are the ends of the scale. Below `least_threshold` nothing is known: no threshold is chosen there.
    Raises ValueError, "field: what is wrong".
    """

    scores: tuple[float, ...]
    shares: tuple[float, ...]
    small_correct: tuple[float, ...]
    large_correct: tuple[float, ...]
    kept_cost: tuple[float, ...]
    deferred_cost: tuple[float, ...]
    labels: int
    high: float = 1.0
    low: float = 0.0
    least_threshold: float = -math.inf

    def __post_init__(self) -> None:
        blocks = len(self.scores)
        for name in ("scores", "shares", "small_correct", "large_correct", "kept_cost", "deferred_cost"):
            values = getattr(self, name)
            _require(len(values) == blocks > 0, name, f"has {len(values)} values, there are {blocks} blocks")
            _require(all(map(math.isfinite, values)), name, "every value must be a finite number")
            _require(name == "scores" or min(values) >= 0.0, name, "no value may be below 0")
            _require("correct" not in name or max(values) <= 1.0, name, "no value may be above 1")
        _require(all(one < other for one, other in pairwise(self.scores)), "scores", "must be ascending")
        _require(all(one <= other for one, other in pairwise(self.small_correct)), "small_correct", "must not decrease")
        _require(abs(math.fsum(self.shares) - 1.0) <= SHARES_OFF, "shares", "must sum to 1")
        _require(self._large > 0.0, "large_correct", "the large tier is never right: no quality is relative to that")
        _require(self.labels > 0, "labels", "must be at least 1")
        _require(self.scores[0] == self.low, "scores", f"must begin at the low end of the score, {self.low:g}")
        dearest = max(*self.kept_cost, *self.deferred_cost)
        _require(dearest <= MOST_COST, "deferred_cost", f"no cost may be over {MOST_COST:g}")
        _require(self.scores[-1] <= self.high < math.inf, "high", "must be finite, and no score above it")
        _require(self.least_threshold <= self.defer_all, "least_threshold", "is above every score")

    @property
    def defer_all(self) -> float:
        """The threshold that every score is below."""
        return math.nextafter(self.high, math.inf)

    def probability(self, score: float) -> float:
        """P(correct | score) in [0, 1]."""
        return self.small_correct[max(0, bisect_right(self.scores, score) - 1)]

    def expected(self, threshold: float) -> Expected:
        """What deferring below a threshold is expected to do, scores being spread evenly inside a block."""
        right, cost, share = 0.0, 0.0, 0.0
        total = math.fsum(self.shares)
        for block, (low, high) in enumerate(pairwise((*self.scores, self.defer_all))):
            deferred = self.shares[block] / total * min(1.0, max(0.0, (threshold - low) / (high - low)))
            kept = self.shares[block] / total - deferred
            right += deferred * self.large_correct[block] + kept * self.small_correct[block]
            cost += deferred * self.deferred_cost[block] + kept * self.kept_cost[block]
            share += deferred
        return Expected(right / self._large, cost, min(1.0, share))

    def threshold_for_quality(self, quality: float) -> float:
        """The cheapest threshold with at least that quality. Raises ValueError, a sentence, when there is none."""
        options = self._options(lambda expected: expected.quality, quality)
        reached = [one for one in options if one[1].quality >= quality - _ROUNDING]
        if not reached:
            _, best = max(options, key=lambda one: one[1].quality)
            raise ValueError(
                f"no threshold is expected to reach quality {quality:.4g}: the best is {best.quality:.4f},"
                f" at cost {best.cost:.3f} and deferring {best.share:.1%}"
            )
        return min(reached, key=lambda one: (one[1].cost, -one[1].quality))[0]

    def threshold_for_cost(self, cost: float) -> float:
        """The best threshold that costs at most that much. Raises ValueError, a sentence, when there is none."""
        options = self._options(lambda expected: expected.cost, cost)
        paid = [one for one in options if one[1].cost <= cost + _ROUNDING]
        if not paid:
            _, least = min(options, key=lambda one: one[1].cost)
            raise ValueError(
                f"no threshold is expected to cost at most {cost:.4g} of always-large: the least is {least.cost:.4f},"
                f" at quality {least.quality:.3f} and deferring {least.share:.1%}"
            )
        return max(paid, key=lambda one: (one[1].quality, -one[1].cost))[0]

    def threshold_for_share(self, share: float) -> float:
        """The threshold that defers a share in [0, 1], or the nearest to it that there is."""
        options = self._options(lambda expected: expected.share, share)
        return min(options, key=lambda one: (abs(one[1].share - share), one[0]))[0]

    @property
    def _large(self) -> float:
        """The large tier's mean correctness over all requests."""
        return _weighted(self.large_correct, self.shares)

    def _options(self, of: Callable[[Expected], float], wanted: float) -> list[tuple[float, Expected]]:
        """Thresholds worth looking at: every edge, and inside the blocks those at which a value is as wanted.

        Everything is linear inside a block, so the best of what is allowed lies at one of them.
        """
        edges = [edge for edge in (*self.scores, self.defer_all) if edge > self.least_threshold]
        if self.least_threshold >= self.scores[0]:
            edges.insert(0, self.least_threshold)
        options = [(edge, self.expected(edge)) for edge in edges]
        for (low, before), (high, after) in pairwise(options[:]):
            one, other = of(before), of(after)
            if min(one, other) < wanted < max(one, other):
                crossing = low + (wanted - one) / (other - one) * (high - low)
                options += ((at, self.expected(at)) for at in _around(crossing) if low < at < high)
        return options


def fit(
    scores: Sequence[float],
    small_correct: Sequence[float | None],
    large_correct: Sequence[float],
    kept_cost: Sequence[float],
    deferred_cost: Sequence[float],
    *,
    scale: Scale = UNIT,
    blocks: int = MOST_BLOCKS,
) -> Calibration:
    """Calibrates from labelled requests, one value per request in every sequence.

    Costs are relative to the mean cost of always-large. Where `small_correct` is None the small answer was given up, so
    that its score is an upper bound: such requests are always deferred, no threshold up to the greatest of these scores
    is ever chosen, and for P(correct | score) below it they count as wrong. A request without a score is one of them,
    at the low end of the scale. Requests of equal score are never parted. Raises ValueError without a label, for a
    score outside the scale, for sequences of unequal length, and for values that Calibration does not take.
    """
    columns = (scores, small_correct, large_correct, kept_cost, deferred_cost)
    rows = sorted(zip(*columns, strict=True), key=lambda row: row[0])
    labels = sum(row[1] is not None for row in rows)
    _require(labels > 0, "small_correct", "there is no label")
    _require(scale.low <= rows[0][0] and rows[-1][0] <= scale.high, "scores", "must be inside the score's scale")
    unknown = max((row[0] for row in rows if row[1] is None), default=-math.inf)
    ordered = [row[0] for row in rows]
    parts = list(_parts(ordered, blocks, unknown))
    edges = list(_edges(ordered, parts, unknown))
    shares = [(end - start) / len(rows) for start, end in parts]
    small, large, kept, deferred = (
        [math.fsum(float(row[column] or 0.0) for row in rows[start:end]) / (end - start) for start, end in parts]
        for column in range(1, len(columns))
    )
    values = [edges, shares, pool(small, shares), large, kept, deferred]
    # nothing was seen outside the least and the greatest score: blocks of their own, so that nothing is spread there
    if edges[0] > scale.low:
        values = [[scale.low, *edges], [0.0, *values[1]], *([column[0], *column] for column in values[2:])]
    if ordered[-1] < scale.high:
        beyond = math.nextafter(ordered[-1], math.inf)
        values = [[*values[0], beyond], [*values[1], 0.0], *([*column, column[-1]] for column in values[2:])]
    scores_, shares_, small_, large_, kept_, deferred_ = map(tuple, values)
    least = math.nextafter(unknown, math.inf) if unknown > -math.inf else unknown
    return Calibration(scores_, shares_, small_, large_, kept_, deferred_, labels, scale.high, scale.low, least)


def pool(means: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The never decreasing values that are nearest to `means` in weighted squares: adjacent violators are pooled."""
    pools: list[tuple[float, float, int]] = []
    for mean, weight in zip(means, weights, strict=True):
        value, mass, size = mean, weight, 1
        while pools and pools[-1][0] >= value:
            before, before_mass, before_size = pools.pop()
            value = (before * before_mass + value * mass) / (before_mass + mass)
            mass, size = mass + before_mass, size + before_size
        pools.append((value, mass, size))
    return [value for value, _, size in pools for _ in range(size)]


def _parts(ordered: Sequence[float], blocks: int, unknown: float) -> Iterator[tuple[int, int]]:
    """Cuts ordered scores into about equal parts, never between equal ones, and always after `unknown`."""
    least = len(ordered) / blocks
    start = 0
    for end in range(1, len(ordered) + 1):
        last = end == len(ordered)
        if last or (ordered[end - 1] < ordered[end] and (end - start >= least or ordered[end - 1] == unknown)):
            yield start, end
            start = end


def _edges(ordered: Sequence[float], parts: Sequence[tuple[int, int]], unknown: float) -> Iterator[float]:
    """The least score of each part; just above the part before where nothing of that may be spread any further."""
    above = ordered[0]
    for start, end in parts:
        yield above
        last = ordered[end - 1]
        above = math.nextafter(last, math.inf) if last in (ordered[start], unknown) else ordered[end % len(ordered)]


def _around(threshold: float) -> tuple[float, float, float]:
    return math.nextafter(threshold, -math.inf), threshold, math.nextafter(threshold, math.inf)


def _weighted(values: Sequence[float], weights: Sequence[float]) -> float:
    return math.fsum(map(operator.mul, values, weights)) / math.fsum(weights)


def _require(holds: bool, field: str, wrong: str) -> None:
    if not holds:
        raise ValueError(f"{field}: {wrong}")
