"""Chooses a score and a threshold on one part of a run, and measures on the rest what they do.

A quality is relative to always asking the large tier, a cost to what that costs. Deferred requests pay for the tokens
of the small answer that were seen until the verdict, as in the router.

A row whose small answer was given up (deferred traffic of a router's log) has a score that is only an upper bound, and
nobody knows whether its small answer was right: it is always deferred, and no threshold up to the greatest of these
scores is considered. Rows without a score are deferred, too. Rows whose large answer nobody can judge are left out.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from marginal.errors import ConfigurationError
from marginal.evaluation.costs import CostModel, Costs, Unit, cost_models, price
from marginal.evaluation.guarantee import Certificate, certify
from marginal.evaluation.intervals import Interval, percentiles
from marginal.evaluation.replay import Floats, Ints, Replayed, ScoreChoice, replay
from marginal.evaluation.results import LARGE, Row, Run
from marginal.policy.calibration import Calibration, Expected, fit
from marginal.policy.scores import SCORES

RESAMPLES = 1000
CLOSE = 0.005
"""Quality or cost within which the score named first is taken: such a difference may be this part's alone."""

LEAST_ROWS = 20
"""Rows in either part, with fewer of which nothing is fitted or measured."""

FIND: Mapping[str, Callable[[Calibration, float], float]] = {
    "quality": Calibration.threshold_for_quality,
    "cost": Calibration.threshold_for_cost,
    "share": Calibration.threshold_for_share,
}
"""What can be asked for, and how its threshold is found."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is wanted: `aim` is a key of FIND, and how much; `confidence` in (0, 1) asks for a promise of a quality."""

    aim: str
    value: float
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Ways:
    """How to go about it: `split` in (0, 1) is the part that is fitted on, `cost_ratio` None takes the run's costs."""

    scores: tuple[ScoreChoice, ...]
    split: float = 0.5
    seed: int = 0
    cost_ratio: float | None = None
    early_abort: bool = True


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % bootstrap interval."""

    value: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class Measured:
    """What a threshold did on `rows` that were not fitted on; `large_accuracy` is that of the large tier alone."""

    rows: int
    quality: Estimate
    cost: Estimate
    share: Estimate
    large_accuracy: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """The threshold that was found: what it is `expected` to do by the part fitted on, and what was `measured`.

    `tried` are all scores with what each was expected to do, None where the wish was out of reach.
    """

    wish: Wish
    choice: ScoreChoice
    threshold: float
    calibration: Calibration
    expected: Expected
    measured: Measured
    certificate: Certificate | None
    tried: tuple[tuple[ScoreChoice, Expected | None], ...]
    cost_model: CostModel
    early_abort: bool
    left_out: int


def calibrate(run: Run, wish: Wish, ways: Ways) -> Outcome:
    """Calibrates on a part of the run that `ways.seed` draws, and measures on the rest.

    With several scores the one that serves the wish best is chosen on the part fitted on; for a promise on one half of
    that part, the other half being what is certified on. Raises ConfigurationError for too few rows, for costs that
    are not known, and in a sentence when the wish cannot be granted.
    """
    labelled, left_out = _labelled(run, ways)
    by_id = np.argsort([row.id for row in labelled.rows])  # a run's rows are in the order in which they were answered
    order = by_id[np.random.default_rng(ways.seed).permutation(len(by_id))]
    cut = round(ways.split * len(order))
    if min(cut, len(order) - cut) < LEAST_ROWS:
        raise ConfigurationError(
            f"{run.name}: {len(order)} labelled rows, of which {cut} to fit on, are too few:"
            f" {LEAST_ROWS} are needed to fit on and as many to measure"
        )
    fitting, rest = labelled.take(order[:cut]), labelled.take(order[cut:])
    if not (fitting.large.any() and rest.large.any()):
        raise ConfigurationError(f"{run.name}: the large tier is never right: no quality is relative to that")
    choosing = fitting.take(np.arange(cut // 2)) if wish.confidence and len(ways.scores) > 1 else fitting
    tried, choice, sentence = _tried(choosing, wish, ways.scores)
    if choice is None:
        raise ConfigurationError(sentence)
    calibration = _calibration(fitting, replay(fitting.rows, choice))
    certificate, threshold = None, math.nan
    if wish.confidence is None:
        threshold = FIND[wish.aim](calibration, wish.value)
    else:
        certified_on = fitting if choosing is fitting else fitting.take(np.arange(cut // 2, cut))
        # the large tier's accuracy is that of the rest, so that what is promised does not depend on these labels
        epsilon = (1.0 - wish.value) * float(rest.large.mean())
        certificate = _certificate(certified_on, choice, epsilon=epsilon, delta=1.0 - wish.confidence)
        if certificate.threshold is None:
            spent = f"of {len(order)} rows {certificate.labels} are certified on, the rest chooses and measures"
            raise ConfigurationError(f"{certificate.sentence} ({spent})")
        threshold = certificate.threshold
    return Outcome(
        wish=wish,
        choice=choice,
        threshold=threshold,
        calibration=calibration,
        expected=calibration.expected(threshold),
        measured=_measure(rest, replay(rest.rows, choice), threshold, seed=ways.seed),
        certificate=certificate,
        tried=tried,
        cost_model=labelled.costs.model,
        early_abort=ways.early_abort,
        left_out=left_out,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Labelled:
    """Rows as columns; `small` is NaN where the small answer was given up."""

    rows: tuple[Row, ...]
    small: Floats
    large: Floats
    costs: Costs

    def take(self, which: Ints) -> "_Labelled":
        costs = self.costs
        columns = (column[which] for column in (costs.small, costs.large, costs.base, costs.per_token))
        rows = tuple(self.rows[one] for one in which)
        return _Labelled(rows, self.small[which], self.large[which], Costs(costs.model, *columns))

    def scores(self, replayed: Replayed) -> tuple[Floats, list[bool | None]]:
        """Each row's score, or the low end where there is none, and whether its small answer is right, if known."""
        low = SCORES[replayed.choice.name].scale.low
        known = replayed.scored & ~np.isnan(self.small)
        right = [bool(one) if is_known else None for one, is_known in zip(self.small, known, strict=True)]
        return np.where(replayed.scored, replayed.values, low), right


def _labelled(run: Run, ways: Ways) -> tuple[_Labelled, int]:
    by_large = run.header.labels == LARGE
    rows = tuple(row for row in run.rows if by_large or row.large.correct is not None)
    if not any(_small_correct(row, by_large=by_large) is not None for row in rows):
        raise ConfigurationError(f"{run.name}: no row says of both tiers whether they are right, nothing to fit on")
    models = cost_models(rows, [] if ways.cost_ratio is None else [ways.cost_ratio])
    wanted = Unit.TOKENS if ways.cost_ratio is None else Unit.FIXED
    model = next((model for model in models if model.unit is wanted), None)
    if model is None:
        raise ConfigurationError(f"{run.name}: has no costs of which the large tier's are higher: give --cost-ratio")
    costs = price(rows, model)
    small = [_small_correct(row, by_large=by_large) for row in rows]
    return _Labelled(
        rows,
        np.array([math.nan if right is None else float(right) for right in small]),
        np.array([1.0 if by_large else float(bool(row.large.correct)) for row in rows]),
        costs if ways.early_abort else costs.without_abort,
    ), len(run.rows) - len(rows)


def _small_correct(row: Row, *, by_large: bool) -> bool | None:
    return row.agrees if by_large and row.agrees is not None else row.small.correct


def _tried(
    part: _Labelled, wish: Wish, scores: Sequence[ScoreChoice]
) -> tuple[tuple[tuple[ScoreChoice, Expected | None], ...], ScoreChoice | None, str]:
    """What each score is expected to do, the one that serves best, and else why none does."""
    tried: list[tuple[ScoreChoice, Expected | None]] = []
    sentences = ["no row has one of these scores"]
    for choice in scores:
        replayed = replay(part.rows, choice)
        if not (replayed.scored & ~np.isnan(part.small)).any():
            tried.append((choice, None))
            continue
        try:
            calibration = _calibration(part, replayed)
            tried.append((choice, calibration.expected(FIND[wish.aim](calibration, wish.value))))
        except ValueError as error:
            tried.append((choice, None))
            sentences.insert(-1, f"{choice.label}: {error}")
    granted = [(choice, expected) for choice, expected in tried if expected is not None]
    if not granted:
        return tuple(tried), None, sentences[0]
    worth = [-expected.cost if wish.aim == "quality" else expected.quality for _, expected in granted]
    best = next(index for index, value in enumerate(worth) if value >= max(worth) - CLOSE)
    return tuple(tried), granted[best][0], ""


def _calibration(part: _Labelled, replayed: Replayed) -> Calibration:
    """Fits; an attempt is taken to be aborted where the row's own score is reached, the latest that it can be."""
    scores, right = part.scores(replayed)
    above = np.nextafter(np.nan_to_num(replayed.places), np.inf)
    seen = np.array([int(replayed.seen_at(row, above[row : row + 1])[0]) for row in range(len(above))])
    always_large = float(part.costs.large.mean())
    return fit(
        scores.tolist(),
        right,
        part.large.tolist(),
        (part.costs.small / always_large).tolist(),
        ((part.costs.aborted(seen) + part.costs.large) / always_large).tolist(),
        scale=SCORES[replayed.choice.name].scale,
    )


def _certificate(part: _Labelled, choice: ScoreChoice, *, epsilon: float, delta: float) -> Certificate:
    scores, right = part.scores(replay(part.rows, choice))
    scale, large = SCORES[choice.name].scale, [bool(one) for one in part.large]
    return certify(scores.tolist(), right, large, epsilon=epsilon, delta=delta, scale=scale)


def _measure(part: _Labelled, replayed: Replayed, threshold: float, *, seed: int) -> Measured:
    scores, _ = part.scores(replayed)
    deferred = (scores < threshold) | ~replayed.scored | np.isnan(part.small)
    place = np.array([SCORES[replayed.choice.name].scale.place(threshold)])
    seen = np.array([int(replayed.seen_at(row, place)[0]) for row in range(len(scores))])
    right = np.where(deferred, part.large, np.nan_to_num(part.small))
    cost = np.where(deferred, part.costs.aborted(seen) + part.costs.large, part.costs.small)
    columns = np.stack([right, part.large, cost, part.costs.large, deferred.astype(np.float64)])
    draw = np.random.default_rng(seed)
    means = [columns.mean(axis=1)]
    means += [columns[:, draw.integers(len(right), size=len(right))].mean(axis=1) for _ in range(RESAMPLES)]
    right_mean, large_mean, cost_mean, always_large, share = np.array(means).T
    quality = np.divide(right_mean, large_mean, out=np.ones_like(right_mean), where=large_mean > 0.0)
    return Measured(
        rows=len(right),
        quality=_estimate(quality),
        cost=_estimate(cost_mean / always_large),
        share=_estimate(share),
        large_accuracy=float(large_mean[0]),
    )


def _estimate(values: Floats) -> Estimate:
    """The first value is that of the rows themselves, the others are resampled."""
    return Estimate(float(values[0]), percentiles(values[1:].tolist()))
