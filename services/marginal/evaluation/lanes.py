"""The threshold rules of `marginal.policy`, stepped over many streams and settings at once.

A sweep asks the same rule for a hundred budgets in three orders. Here they advance side by side, a lane for every order
and setting, in the same floating-point operations, so that a lane decides as the rule does: tests compare them decision
for decision. Scores are places in [0, 1], as the controllers see them; the paper's rule needs their order only.
"""

from bisect import bisect_right, insort
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from marginal.evaluation.costs import Costs
from marginal.evaluation.replay import Bools, Floats, Ints, Replayed
from marginal.policy.thresholds import WARM_UP
from marginal.policy.tracking import LEAST, MOST, MOST_STEP

KEPT, DEFERRED, DIRECT, NOBODY = range(4)
"""Who answers: the small tier, the large one after it, the large one alone, nobody because the budget is spent."""

STEP = 0.02
"""The step of both controllers (`TargetRate`, `SpendRate`)."""

REMEMBERED = 500
"""Requests over which `SpendRate` means what they cost."""

Codes = NDArray[np.int8]


@dataclass(frozen=True, slots=True, eq=False)
class Streams:
    """One score's rows in several orders; `order[o]` holds the rows' positions.

    `below[o, i]` counts the scored rows before the i-th with a score at most its own, `before[o, i]` all scored ones,
    and `ranks` are places among the scores of the order, equal scores at the highest.
    """

    replayed: Replayed
    order: Ints
    below: Ints
    before: Ints
    ranks: Ints

    @property
    def length(self) -> int:
        return int(self.order.shape[1])


def streams(replayed: Replayed, order: Ints) -> Streams:
    """Counts once, for every sweep over these orders, how each score compares with those before it."""
    below, before, ranks = np.zeros_like(order), np.zeros_like(order), np.zeros_like(order)
    for each, rows in enumerate(order):
        history: list[float] = []
        values = replayed.values[rows]
        ranks[each] = np.searchsorted(np.sort(values[~np.isnan(values)]), values, side="right")
        for position, value in enumerate(values.tolist()):
            before[each, position] = len(history)
            if value == value:
                below[each, position] = bisect_right(history, value)
                insort(history, value)
    return Streams(replayed, order, below, before, ranks)


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """Who answered, [position, order, setting], and the place of the threshold then, where the rule has one."""

    codes: Codes
    places: Floats | None = None


def spend_budgets(
    streams: Streams,
    costs: Costs,
    budgets: Floats,
    shares: Floats,
    means: tuple[float, float],
    *,
    large_is_better: bool,
) -> Answered:
    """The paper's rule within its reserves (`Horizon`): lanes of budgets, whose shares are to be deferred.

    `means` are what the tiers cost on average. A row without a score is deferred while the budget pays it, and not
    remembered.
    """
    small_mean, large_mean = means
    order, (orders, length) = streams.order, streams.order.shape
    remaining = np.tile(budgets * length, (orders, 1))
    passed_over = _PassedOver(int(streams.ranks.max(initial=0)), remaining.shape)
    passed_any = False
    length_of_warm_up = WARM_UP if streams.replayed.scored.all() else length
    codes = np.empty((length, *remaining.shape), dtype=np.int8)
    kept, large, scored = costs.small[order], costs.large[order], streams.replayed.scored[order]
    aborted = costs.aborted(streams.replayed.seen)[order]
    aborts, gaps, full = bool((aborted != kept).any()), not scored.all(), bool(shares.max(initial=0.0) >= 1.0)
    for position in range(length):
        left, now = length - position, (slice(None), position, None)
        direct = remaining >= left * large_mean if large_is_better else np.zeros(remaining.shape, dtype=np.bool_)
        cascade = (remaining > left * small_mean) & ~direct
        exhausted = remaining < small_mean
        below, count = streams.below[now], streams.before[now] + 1
        if passed_any:
            count = count - passed_over.total
            if (cascade & (passed_over.total > 0)).any():
                below = below - passed_over.up_to(streams.ranks[:, position])
        quantile = (count * shares).astype(np.int64)
        wanted = below < quantile
        if full:
            wanted |= quantile >= count
        if position < length_of_warm_up or passed_any:
            wanted &= count > WARM_UP
        if gaps:
            wanted |= ~scored[now]
        wanted &= cascade
        asked_small = ~(exhausted | direct)
        paid = np.where(wanted, aborted[now], kept[now]) if aborts else kept[now]
        remaining -= paid * asked_small
        deferred = wanted & (remaining >= large_mean)
        asked_large = deferred | direct
        remaining -= large[now] * asked_large
        codes[position] = deferred
        if aborts:
            remaining -= (kept[now] - paid) * (wanted & ~deferred)
        if exhausted.any():
            codes[position][exhausted] = NOBODY
        if direct.any():
            codes[position][direct] = DIRECT
            passed_any = True
            passed_over.add(streams.ranks[:, position], direct & scored[now])
    return Answered(codes)


class _PassedOver:
    """How many scores of each lane were passed over, up to any rank: a Fenwick tree per lane, filled when first read.

    With the same costs for every row a lane that asks the large tier directly goes on to do so, and none is ever read.
    """

    def __init__(self, ranks: int, lanes: tuple[int, ...]) -> None:
        self._tree = np.zeros((ranks + 1, *lanes), dtype=np.int32)
        self._pending: list[tuple[Ints, Bools]] = []
        self.total = np.zeros(lanes, dtype=np.int64)

    def add(self, ranks: Ints, lanes: Bools) -> None:
        """Counts a score of that rank, one per order, in these lanes."""
        self.total += lanes
        self._pending.append((ranks, lanes))

    def up_to(self, ranks: Ints) -> Ints:
        """Those up to that rank, one per order."""
        for added, lanes in self._pending:
            for order, rank in enumerate(added.tolist()):
                while 0 < rank < len(self._tree):
                    self._tree[rank, order] += lanes[order]
                    rank += rank & -rank
        self._pending.clear()
        counted = np.zeros_like(self.total)
        for order, rank in enumerate(ranks.tolist()):
            while rank > 0:
                counted[order] += self._tree[rank, order]
                rank -= rank & -rank
        return counted


class _Tracked:
    """`thresholds._Tracked` in lanes."""

    def __init__(self, start: Floats) -> None:
        self.place = np.minimum(MOST, np.maximum(LEAST, start))
        self._owed = np.zeros_like(self.place)

    def correct(self, error: Floats) -> None:
        """Takes how far a request was below its target (positive) or above, in deferrals."""
        most = 4.0 / STEP
        self._owed = _within(-most, self._owed + error, most)
        moved = STEP * error + STEP**2 / 16.0 * self._owed
        self.place = _within(LEAST, self.place + _within(-MOST_STEP, moved, MOST_STEP), MOST)


def _within(low: float, values: Floats, high: float) -> Floats:
    np.maximum(values, low, out=values)
    np.minimum(values, high, out=values)
    return values


def hold_rates(streams: Streams, rates: Floats, start: Floats) -> Answered:
    """`TargetRate`: lanes of shares to be deferred. A row without a score is deferred, and a lesson as any."""
    order, (orders, length) = streams.order, streams.order.shape
    tracked = _Tracked(np.tile(start, (orders, 1)))
    codes = np.empty((length, orders, len(rates)), dtype=np.int8)
    places = np.empty(codes.shape)
    scores = _deferring(streams.replayed)[order]
    for position in range(length):
        places[position] = tracked.place
        deferred = scores[:, position, None] < tracked.place
        codes[position] = deferred
        tracked.correct(rates - deferred)
    return Answered(codes, places)


def hold_spend(
    streams: Streams, costs: Costs, budgets: Floats, start: Floats, expected: tuple[float, float]
) -> Answered:
    """`SpendRate`: lanes of mean costs to be held; `expected` are those of a kept and of a deferred request."""
    order, (orders, length) = streams.order, streams.order.shape
    tracked = _Tracked(np.tile(start, (orders, 1)))
    shape = (orders, len(budgets))
    means = [np.full(shape, expected[0]), np.full(shape, expected[1])]
    seen = [np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)]
    codes = np.empty((length, *shape), dtype=np.int8)
    places = np.empty(codes.shape)
    scores = _deferring(streams.replayed)[order]
    kept, large = costs.small[order], costs.large[order]
    early = bool(np.any(streams.replayed.seen > 1)) and bool(np.any(costs.per_token > 0.0))
    known = costs.aborted(streams.replayed.seen)[order]
    for position in range(length):
        places[position] = tracked.place
        deferred = scores[:, position, None] < tracked.place
        aborted = known[:, position, None]
        if early:
            aborted = np.stack(
                [
                    _aborted(streams.replayed, costs, int(row), tracked.place[o])
                    for o, row in enumerate(order[:, position])
                ]
            )
        cost = np.where(deferred, aborted + large[:, position, None], kept[:, position, None])
        for mean, count, which in zip(means, seen, (~deferred, deferred), strict=True):
            np.minimum(count + 1, REMEMBERED, out=count, where=which)
            np.add(mean, (cost - mean) / (count + 1), out=mean, where=which)
        added = means[1] - means[0]
        error = np.ones_like(added)
        np.divide(budgets - cost, added, out=error, where=added > 0.0)
        tracked.correct(error)
        codes[position] = deferred
    return Answered(codes, places)


def fix(streams: Streams, places: Floats) -> Answered:
    """`Fixed`: thresholds at these places, in one order, which does not matter. A row without a score is deferred."""
    deferred = _deferring(streams.replayed)[streams.order[0], None] < places
    return Answered(deferred.astype(np.int8)[:, None], np.broadcast_to(places, deferred.shape)[:, None])


def stopped(streams: Streams, costs: Costs, rows: Ints, places: Floats | None) -> Floats:
    """What the small answer of each row costs when it is aborted: [row, 1], or [row, setting] for these thresholds.

    Without thresholds it is stopped when its score is known to the last digit, as a rule that learns from scores needs.
    """
    replayed = streams.replayed
    if places is None or not (np.any(replayed.seen > 1) and np.any(costs.per_token > 0.0)):
        return costs.aborted(replayed.seen)[rows, None]
    return np.stack([_aborted(replayed, costs, int(row), place) for row, place in zip(rows, places, strict=True)])


def _aborted(replayed: Replayed, costs: Costs, row: int, places: Floats) -> Floats:
    seen = replayed.seen_at(row, places)
    cost: Floats = np.minimum(costs.small[row], costs.base[row] + costs.per_token[row] * seen)
    return cost


def _deferring(replayed: Replayed) -> Floats:
    """Places, those without a score under every threshold."""
    return np.where(np.isnan(replayed.places), -1.0, replayed.places)
