import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marginal.policy.calibration import Calibration, fit, pool
from marginal.policy.scales import LOGPROB

TABLE = Calibration(
    scores=(0.0, 0.4, 0.8),
    shares=(0.2, 0.3, 0.5),
    small_correct=(0.2, 0.6, 0.9),
    large_correct=(0.8, 0.8, 0.9),
    kept_cost=(0.1, 0.1, 0.1),
    deferred_cost=(1.1, 1.1, 1.1),
    labels=700,
)

means = st.floats(0.0, 1.0)
requests = st.lists(
    st.tuples(st.integers(0, 20).map(lambda place: place / 20), st.booleans(), st.booleans(), means), min_size=2
).filter(lambda rows: any(row[2] for row in rows))


def fitted(rows: list[tuple[float, bool, bool, float]], *, blocks: int = 40) -> Calibration:
    scores, small, large, extra = zip(*rows, strict=True)
    return fit(scores, small, large, [0.1] * len(rows), [1.0 + one for one in extra], blocks=blocks)


@given(st.lists(st.tuples(means, st.floats(0.01, 5.0)), min_size=1))
def test_pooling_never_decreases_and_keeps_the_mean(values: list[tuple[float, float]]) -> None:
    raw, weights = zip(*values, strict=True)
    pooled = pool(raw, weights)
    assert pooled == sorted(pooled)
    assert math.fsum(map(float.__mul__, pooled, weights)) == pytest.approx(math.fsum(map(float.__mul__, raw, weights)))


def test_pooling_changes_nothing_that_is_in_order() -> None:
    assert pool([0.1, 0.2, 0.9], [1.0, 2.0, 3.0]) == [0.1, 0.2, 0.9]
    assert pool([0.5, 0.1, 0.9], [1.0, 3.0, 3.0]) == [0.2, 0.2, 0.9]


@settings(max_examples=50, deadline=None)
@given(requests, st.integers(1, 40))
def test_the_extremes_are_each_tier_alone(rows: list[tuple[float, bool, bool, float]], blocks: int) -> None:
    calibration = fitted(rows, blocks=blocks)
    small, large = sum(row[1] for row in rows), sum(row[2] for row in rows)
    kept, deferred = calibration.expected(0.0), calibration.expected(calibration.defer_all)
    assert (kept.quality, kept.cost, kept.share) == pytest.approx((small / large, 0.1, 0.0))
    aborted = 1.0 + sum(row[3] for row in rows) / len(rows)
    assert (deferred.quality, deferred.cost, deferred.share) == pytest.approx((1.0, aborted, 1.0))


@settings(max_examples=50, deadline=None)
@given(requests)
def test_a_share_is_what_was_below_where_scores_are_tied(rows: list[tuple[float, bool, bool, float]]) -> None:
    calibration = fitted(rows)
    for edge in calibration.scores:
        below = sum(row[0] < edge for row in rows) / len(rows)
        assert calibration.expected(edge).share == pytest.approx(below)


@settings(max_examples=50, deadline=None)
@given(requests, st.floats(0.3, 1.2))
def test_a_threshold_for_quality_reaches_it_and_nothing_cheaper_does(
    rows: list[tuple[float, bool, bool, float]], quality: float
) -> None:
    calibration = fitted(rows)
    tried = [calibration.expected(place / 50) for place in range(52)]
    try:
        chosen = calibration.expected(calibration.threshold_for_quality(quality))
    except ValueError:
        assert max(one.quality for one in tried) < quality
        return
    assert chosen.quality >= quality - 1e-9
    assert all(one.cost >= chosen.cost - 1e-9 for one in tried if one.quality >= quality)


@settings(max_examples=50, deadline=None)
@given(requests, st.floats(0.0, 2.0))
def test_a_threshold_for_cost_stays_under_it_and_nothing_better_does(
    rows: list[tuple[float, bool, bool, float]], cost: float
) -> None:
    calibration = fitted(rows)
    tried = [calibration.expected(place / 50) for place in range(52)]
    try:
        chosen = calibration.expected(calibration.threshold_for_cost(cost))
    except ValueError:
        assert cost < 0.1
        return
    assert chosen.cost <= cost + 1e-9
    assert all(one.quality <= chosen.quality + 1e-9 for one in tried if one.cost <= cost)


@given(st.floats(0.0, 1.0))
def test_a_threshold_for_a_share_defers_it(share: float) -> None:
    assert TABLE.expected(TABLE.threshold_for_share(share)).share == pytest.approx(share, abs=1e-9)


def test_probabilities_are_those_of_the_block() -> None:
    assert [TABLE.probability(score) for score in (-1.0, 0.0, 0.39, 0.4, 0.8, 1.0)] == [0.2, 0.2, 0.2, 0.6, 0.9, 0.9]


def test_inside_a_block_everything_is_linear() -> None:
    half = TABLE.expected(0.6)
    assert half.share == pytest.approx(0.35)
    assert half.cost == pytest.approx(0.1 + 0.35)
    assert half.quality == pytest.approx((0.2 * 0.8 + 0.15 * 0.8 + 0.15 * 0.6 + 0.5 * 0.9) / 0.85)


def test_blocks_are_fine_and_few() -> None:
    rows = [(place / 2000, place % 3 > 0, True, 0.0) for place in range(2000)]
    calibration = fitted(rows)
    assert 40 <= len(calibration.scores) <= 42
    assert max(calibration.shares) <= 0.05


def test_what_cannot_be_had_is_said_with_the_best_there_is() -> None:
    with pytest.raises(ValueError, match=r"reach quality 1.2: the best is 1\.0000"):
        TABLE.threshold_for_quality(1.2)
    with pytest.raises(ValueError, match=r"cost at most 0.05 of always-large: the least is 0\.1000"):
        TABLE.threshold_for_cost(0.05)


def test_answers_given_up_are_always_deferred() -> None:
    scores = [0.1, 0.2, 0.3, 0.5, 0.7, 0.9]
    small = [None, True, None, False, True, True]
    calibration = fit(scores, small, [True] * 6, [0.1] * 6, [1.1] * 6)
    least = math.nextafter(0.3, 1.0)
    assert calibration.labels == 4
    assert calibration.least_threshold == least
    assert calibration.threshold_for_cost(0.6) == least
    assert calibration.threshold_for_share(0.0) == least
    assert calibration.expected(least).share == pytest.approx(0.5)
    with pytest.raises(ValueError, match=r"the least is 0\.6000"):
        calibration.threshold_for_cost(0.5)


def test_other_scales_are_calibrated_alike() -> None:
    calibration = fit([-5.0, -1.0, -0.5], [False, True, True], [True] * 3, [0.1] * 3, [1.1] * 3, scale=LOGPROB)
    assert calibration.scores[0] == -100.0
    assert calibration.high == 0.0
    assert calibration.threshold_for_quality(1.0) == math.nextafter(-5.0, 0.0)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"shares": (0.5, 0.5)}, "shares: has 2 values, there are 3 blocks"),
        ({"scores": ()}, "scores: has 0 values"),
        ({"scores": (0.0, 0.4, 0.4)}, "scores: must be ascending"),
        ({"scores": (0.0, 0.4, 1.4)}, "high: must be finite, and no score above it"),
        ({"shares": (0.2, 0.3, 0.4)}, "shares: must sum to 1"),
        ({"small_correct": (0.2, 0.1, 0.9)}, "small_correct: must not decrease"),
        ({"small_correct": (0.2, 0.6, 1.1)}, "small_correct: no value may be above 1"),
        ({"large_correct": (0.0, 0.0, 0.0)}, "large_correct: the large tier is never right"),
        ({"kept_cost": (0.1, -0.1, 0.1)}, "kept_cost: no value may be below 0"),
        ({"deferred_cost": (1.1, math.nan, 1.1)}, "deferred_cost: every value must be a finite number"),
        ({"labels": 0}, "labels: must be at least 1"),
        ({"least_threshold": 1.5}, "least_threshold: is above every score"),
    ],
)
def test_an_impossible_table_names_the_field(change: dict[str, tuple[float, ...]], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        replace(TABLE, **change)


def test_nothing_is_fitted_without_a_label_or_outside_the_scale() -> None:
    with pytest.raises(ValueError, match="small_correct: there is no label"):
        fit([0.5], [None], [True], [0.1], [1.1])
    with pytest.raises(ValueError, match="scores: must be inside"):
        fit([1.5], [True], [True], [0.1], [1.1])
