"""The demo's figures, computed from replies alone."""

import json
import math

import pytest

from marginal.evaluation.demo import Measured, Reply, Row, measure
from marginal.evaluation.intervals import percentiles, wilson


def small(*, correct: bool, nanos: int = 10) -> Reply:
    return Reply(correct, cost_nanos=nanos, seconds=0.002)


def large(*, correct: bool = True, nanos: int = 100) -> Reply:
    return Reply(correct, deferred=True, called_large=True, cost_nanos=nanos, seconds=0.006)


def deferred(*, correct: bool = True) -> Reply:
    return Reply(correct, deferred=True, called_large=True, cost_nanos=105, seconds=0.007)


SMALL = [small(correct=turn < 60) for turn in range(100)]
LARGE = [large() for _ in range(100)]
KNOWING = [small(correct=True) if turn < 60 else deferred() for turn in range(100)]


def row(table: Measured, arm: str) -> Row:
    return next(row for row in table.rows if row.arm == arm)


def test_wilson_interval_agrees_with_the_published_figure() -> None:
    interval = wilson(81, of=263)
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.2553, 0.3662)


@pytest.mark.parametrize("successes", [0, 5])
def test_wilson_interval_stays_within_zero_and_one(successes: int) -> None:
    interval = wilson(successes, of=5)
    assert 0.0 <= interval.low < interval.high <= 1.0


def test_percentiles_hold_the_middle_of_what_was_resampled() -> None:
    interval = percentiles([float(value) for value in range(1_001)])
    assert (interval.low, interval.high) == (25.0, 975.0)


def test_table_goes_from_small_only_over_the_policies_to_large_only() -> None:
    table = measure(SMALL, LARGE, {"default": KNOWING, "careful": KNOWING})
    assert [(row.arm, row.policy) for row in table.rows] == [
        ("small-only", None),
        ("marginal", "default"),
        ("random deferral", "default"),
        ("marginal", "careful"),
        ("random deferral", "careful"),
        ("large-only", None),
    ]


def test_random_deferral_is_expected_between_the_tiers_at_the_measured_share() -> None:
    random_row = row(measure(SMALL, LARGE, {"default": KNOWING}), "random deferral")
    assert random_row.deferral_share == 0.4
    assert math.isclose(random_row.accuracy, 0.6 + 0.4 * 0.4)


def test_random_deferral_pays_only_the_tier_it_asks() -> None:
    random_row = row(measure(SMALL, LARGE, {"default": KNOWING}), "random deferral")
    assert random_row.cost_nanos_per_1000 == 1_000 * (0.6 * 10 + 0.4 * 100)
    assert math.isclose(random_row.mean_seconds, 0.6 * 0.002 + 0.4 * 0.006)


def test_a_policy_that_knows_when_it_is_wrong_beats_random_deferral() -> None:
    comparison = measure(SMALL, LARGE, {"default": KNOWING}).comparisons[0]
    assert math.isclose(comparison.gain_over_random_points, 24.0)
    assert comparison.gain_interval.low > 0.0
    assert "beats random deferral at that share by 24.0 points" in comparison.sentence
    assert "level with large-only" in comparison.sentence


def test_a_policy_that_defers_by_lot_is_not_called_better() -> None:
    by_lot = [deferred() if turn % 5 < 2 else SMALL[turn] for turn in range(100)]
    comparison = measure(SMALL, LARGE, {"default": by_lot}).comparisons[0]
    assert comparison.gain_interval.low < 0.0 < comparison.gain_interval.high
    assert "not clearly different from random deferral" in comparison.sentence
    assert "points below large-only" in comparison.sentence


def test_a_policy_that_defers_what_the_small_tier_knows_is_called_worse() -> None:
    backwards = [deferred() if turn < 60 else SMALL[turn] for turn in range(100)]
    assert "worse than random deferral" in measure(SMALL, LARGE, {"default": backwards}).comparisons[0].sentence


def test_a_failed_request_counts_as_not_right_and_is_shown() -> None:
    failing = [Reply(correct=False, error="TierUnavailable"), *KNOWING[1:]]
    table = measure(SMALL, LARGE, {"default": failing})
    assert table.failed == row(table, "marginal").failed == 1
    assert row(table, "marginal").accuracy == 0.99
    assert "1 of its requests failed" in table.comparisons[0].sentence


def test_the_time_of_a_failed_request_is_not_a_time_to_an_answer() -> None:
    failing = [Reply(correct=False, error="DeadlineExceeded", seconds=30.0), *SMALL[1:]]
    assert math.isclose(row(measure(failing, LARGE, {}), "small-only").mean_seconds, 0.002)


def test_degraded_answers_are_counted_and_keep_their_own_grade() -> None:
    degraded = [Reply(correct=False, deferred=True, degraded=True) if reply.deferred else reply for reply in KNOWING]
    marginal = row(measure(SMALL, LARGE, {"default": degraded}), "marginal")
    assert (marginal.degraded, marginal.accuracy, marginal.deferral_share) == (40, 0.6, 0.4)


def test_a_comparison_under_an_outage_says_that_random_deferral_had_none() -> None:
    degraded = [Reply(correct=False, deferred=True, degraded=True) if reply.deferred else reply for reply in KNOWING]
    comparison = measure(SMALL, LARGE, {"default": degraded}).comparisons[0]
    assert "40 of its answers are degraded; random deferral is reckoned as if none would be" in comparison.sentence


def test_questions_without_a_genuine_large_answer_are_left_out_of_the_comparison() -> None:
    interrupted = [*LARGE[:50], *(Reply(reply.correct, deferred=True, degraded=True) for reply in SMALL[50:])]
    table = measure(SMALL, interrupted, {"default": KNOWING})
    assert table.comparisons[0].requests == 50
    assert row(table, "random deferral").requests == 50
    assert row(table, "large-only").degraded == 50


def test_without_any_genuine_large_answer_nothing_is_compared() -> None:
    down = [Reply(reply.correct, deferred=True, degraded=True) for reply in SMALL]
    table = measure(SMALL, down, {"default": KNOWING})
    assert table.comparisons == ()
    assert [row.arm for row in table.rows] == ["small-only", "marginal", "large-only"]


def test_the_same_replies_give_the_same_table() -> None:
    assert measure(SMALL, LARGE, {"default": KNOWING}) == measure(SMALL, LARGE, {"default": KNOWING})


def test_json_holds_the_rows_the_comparisons_and_their_sentences() -> None:
    table = measure(SMALL, LARGE, {"default": KNOWING})
    parsed = json.loads(json.dumps(table.as_json()))
    assert parsed["rows"][1]["cost_nanos_per_1000"] == 48_000
    assert parsed["comparisons"][0]["sentence"] == table.comparisons[0].sentence
