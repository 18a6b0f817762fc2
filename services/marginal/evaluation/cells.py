"""One score under one rule: who answers at every budget, what that is worth, and how sure one can be of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from marginal.evaluation import lanes
from marginal.evaluation.costs import Costs
from marginal.evaluation.lanes import DEFERRED, Answered, Streams
from marginal.evaluation.protocol import (
    BUDGET,
    FIXED,
    QUALITIES,
    SPEND_RATE,
    TARGET_RATE,
    Cell,
    Protocol,
    Saving,
    Setting,
)
from marginal.evaluation.replay import Answers, Floats, Ints
from marginal.evaluation.resampling import Resamples, interval


def deferral_share(budget: Floats, small: float, large: float, *, aborted: float = 1.0) -> Floats:
    """The share p to defer so that a request costs `budget` on average.

    A deferral costs the large tier and, of the small answer, the share `aborted` that was paid before it was stopped:
    (1 - p) c1 + p (aborted c1 + c2) = b gives p = (b - c1) / (c2 - (1 - aborted) c1), the paper's (b - c1) / c2 when
    nothing is saved.
    """
    share: Floats = np.maximum(0.0, np.minimum((budget - small) / (large - (1.0 - aborted) * small), 1.0))
    return share


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """Everything about a run that its settings share.

    `order` has the positions of the rows in the stream, before which `held` are held out; `tiers` has both tiers'
    accuracies in every resample.
    """

    judged: Answers
    protocol: Protocol
    order: Ints
    held: int
    resamples: Resamples
    tiers: Floats
    tell: Callable[[str], None]

    def settings(self, ordered: Sequence[Streams], priced: Sequence[Costs]) -> list[Setting]:
        """Sweeps every score and rule under every cost model."""
        cells: list[list[Cell]] = [[] for _ in priced]
        for streams in ordered:
            # what does not ask for costs is the same under all of them
            free = {rule: self._run(streams, rule) for rule in self.protocol.rules if rule in (TARGET_RATE, FIXED)}
            for costs, row in zip(priced, cells, strict=True):
                for rule in self.protocol.rules:
                    self.tell(f"{costs.model.label}, {streams.replayed.choice.label}, {rule}")
                    ran = free.get(rule) or self._run(streams, rule, costs)
                    row.append(self._cell(streams, rule, costs, ran))
        return [self._setting(costs, tuple(row)) for costs, row in zip(priced, cells, strict=True)]

    def _setting(self, costs: Costs, cells: tuple[Cell, ...]) -> Setting:
        c1, c2 = self._means(costs)
        budgets = self._budgets(costs)
        small, large = self._accuracies
        oracle = self._oracle(costs)
        return Setting(
            model=costs.model,
            early_abort=costs.saves,
            small_cost=c1,
            large_cost=c2,
            budgets=tuple(budgets.tolist()),
            random_auc=(small + large) / 2.0,
            random_interval=interval(self.tiers.mean(axis=1)),
            oracle=tuple(oracle.tolist()),
            oracle_auc=float(_auc(oracle, budgets)),
            cells=cells,
        )

    def _oracle(self, costs: Costs) -> Floats:
        """Accuracy at every budget when exactly those are deferred whom that helps, the cheapest first."""
        helped = (self.judged.large > self.judged.small)[self.held :]
        first = costs.aborted(np.ones(len(costs.small), dtype=np.int64))
        added = np.maximum(0.0, first + costs.large - costs.small)[self.held :][helped]
        spent = self._mean(costs.small) + np.append(0.0, np.cumsum(np.sort(added))) / len(helped)
        right = self._mean(self.judged.small) + np.arange(len(spent)) / len(helped)
        oracle: Floats = np.interp(self._budgets(costs), spent, right)
        return oracle

    def _cell(self, streams: Streams, rule: str, costs: Costs, ran: "_Ran") -> Cell:
        budgets = self._budgets(costs)
        small, large = self._accuracies
        if rule == BUDGET:
            accuracy = np.append(ran.right.mean(axis=0), large)
            accuracies = np.column_stack([ran.resampled, self.tiers[:, 1]])
        else:
            paid = self._paid(streams, costs, ran.answered)
            accuracy = _at(budgets, paid.mean(axis=0), ran.right.mean(axis=0), (small, large))
            each = zip(self.resamples.means(paid), ran.resampled, self.tiers, strict=True)
            accuracies = np.stack([_at(budgets, cost, right, (tiers[0], tiers[1])) for cost, right, tiers in each])
        auc, aucs = _auc(accuracy, budgets), _auc(accuracies, budgets)
        low, high = np.percentile(accuracies, (2.5, 97.5), axis=0)
        return Cell(
            score=streams.replayed.choice.label,
            rule=rule,
            accuracy=tuple(accuracy.tolist()),
            low=tuple(low.tolist()),
            high=tuple(high.tolist()),
            auc=float(auc),
            auc_interval=interval(aucs),
            gain=float(auc) - (small + large) / 2.0,
            gain_interval=interval(aucs - self.tiers.mean(axis=1)),
            savings=tuple(
                _saving(quality, accuracy, accuracies, budgets, (small, large), self.tiers) for quality in QUALITIES
            ),
        )

    def _run(self, streams: Streams, rule: str, costs: Costs | None = None) -> "_Ran":
        answered = self._answered(streams, rule) if costs is None else self._spending(streams, rule, costs)
        right = self._right(streams, answered)
        return _Ran(answered, right, self.resamples.means(right))

    def _answered(self, streams: Streams, rule: str) -> Answered:
        """Runs a rule that knows no costs, at shares evenly from nothing to everything."""
        rates = np.linspace(0.0, 1.0, self.protocol.budgets)
        if rule == FIXED:
            return lanes.fix(streams, self._thresholds(streams, rates))
        return lanes.hold_rates(streams, rates, self._thresholds(streams, rates) if self.held else rates)

    def _spending(self, streams: Streams, rule: str, costs: Costs) -> Answered:
        """Runs a rule that spends budgets; the paper's not at the last, which is the large tier's by definition."""
        budgets, (c1, c2) = self._budgets(costs), self._means(costs)
        stopped = self._mean(costs.aborted(streams.replayed.seen))
        shares = deferral_share(budgets, c1, c2, aborted=stopped / c1)
        if rule == SPEND_RATE:
            start = self._thresholds(streams, shares) if self.held else shares
            return lanes.hold_spend(streams, costs, budgets, start, (c1, stopped + c2))
        small, large = self._accuracies
        return lanes.spend_budgets(streams, costs, budgets[:-1], shares[:-1], (c1, c2), large_is_better=large > small)

    def _thresholds(self, streams: Streams, shares: Floats) -> Floats:
        """Places below which these shares of the held-out rows lie; of the stream's own when none is held out."""
        places = streams.replayed.places[: self.held] if self.held else streams.replayed.places
        known = np.sort(places[~np.isnan(places)])
        if not len(known):
            return shares
        beyond = np.append(known, np.inf)
        thresholds: Floats = beyond[np.ceil(shares * len(known)).astype(np.int64)]
        return thresholds

    def _right(self, streams: Streams, answered: Answered) -> Floats:
        """Whether each row of the stream is answered right, the mean over orders: [row, setting]."""
        judged, orders = self.judged, answered.codes.shape[1]
        right = np.zeros((len(judged.rows) - self.held, answered.codes.shape[2]), dtype=np.float32)
        for order in range(orders):
            rows = streams.order[order]
            # by code: kept, deferred, direct, nobody
            worth = np.stack([judged.small, judged.large, judged.large, judged.guess], axis=1).astype(np.float32)[rows]
            right[rows - self.held] += np.take_along_axis(worth, answered.codes[:, order], axis=1)
        mean: Floats = right / orders
        return mean

    def _paid(self, streams: Streams, costs: Costs, answered: Answered) -> Floats:
        """What each row of the stream costs, the mean over orders: [row, setting]."""
        orders = answered.codes.shape[1]
        paid = np.zeros((len(self.judged.rows) - self.held, answered.codes.shape[2]), dtype=np.float32)
        for order in range(orders):
            rows, codes = streams.order[order], answered.codes[:, order]
            places = None if answered.places is None else answered.places[:, order]
            deferred = lanes.stopped(streams, costs, rows, places) + costs.large[rows, None]
            paid[rows - self.held] += np.where(codes == DEFERRED, deferred, costs.small[rows, None])
        mean: Floats = paid / orders
        return mean

    def _budgets(self, costs: Costs) -> Floats:
        return np.linspace(*self._means(costs), self.protocol.budgets)

    def _means(self, costs: Costs) -> tuple[float, float]:
        return self._mean(costs.small), self._mean(costs.large)

    @property
    def _accuracies(self) -> tuple[float, float]:
        return self._mean(self.judged.small), self._mean(self.judged.large)

    def _mean(self, column: Floats) -> float:
        """Over the rows of the stream."""
        return float(column[self.held :].mean())


@dataclass(frozen=True, slots=True, eq=False)
class _Ran:
    """A rule's answers, whether they are right, [row, setting], and the shares of right ones in every resample."""

    answered: Answered
    right: Floats
    resampled: Floats


def _at(budgets: Floats, cost: Floats, right: Floats, tiers: tuple[float, float]) -> Floats:
    """Accuracy at every budget, from what settings really cost, between the small tier alone and the large one."""
    inside = (cost > budgets[0]) & (cost < budgets[-1])
    by_cost = np.argsort(cost[inside], kind="stable")
    costs = np.concatenate([budgets[:1], cost[inside][by_cost], budgets[-1:]])
    accuracy: Floats = np.interp(budgets, costs, np.concatenate([tiers[:1], right[inside][by_cost], tiers[1:]]))
    return accuracy


def _auc(accuracy: Floats, budgets: Floats) -> Floats:
    area: Floats = np.trapezoid(accuracy, budgets, axis=-1) / (budgets[-1] - budgets[0])
    return area


def _saving(
    quality: float, accuracy: Floats, accuracies: Floats, budgets: Floats, tiers: tuple[float, float], resampled: Floats
) -> Saving:
    """Where the curve first reaches a share of the large tier's accuracy, and where the random line does."""
    small, large = tiers
    reached = _first_at(accuracy[None], np.array([quality * large]), budgets)[0]
    reaches = _first_at(accuracies, quality * resampled[:, 1], budgets)
    line = small + (large - small) * np.linspace(0.0, 1.0, len(budgets))
    by_lot = _first_at(line[None], np.array([quality * large]), budgets)[0]
    return Saving(quality, float(reached / budgets[-1]), interval(reaches / budgets[-1]), float(by_lot / budgets[-1]))


def _first_at(curves: Floats, targets: Floats, budgets: Floats) -> Floats:
    """The least budget at which each curve is at its target, straight between budgets; the last when it never is."""
    above = curves >= targets[:, None] - 1e-12
    above[:, -1] = True
    after = above.argmax(axis=1)
    before = np.maximum(0, after - 1)
    rows = np.arange(len(curves))
    low, high = curves[rows, before], curves[rows, after]
    part = np.where(after > before, (targets - low) / np.where(high > low, high - low, 1.0), 0.0)
    found: Floats = budgets[before] + np.clip(part, 0.0, 1.0) * (budgets[after] - budgets[before])
    return np.where(high > low, found, budgets[after])
