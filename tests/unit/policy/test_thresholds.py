import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marginal.policy.deferral import Decision, Reason, Verdict
from marginal.policy.thresholds import LEAST, MOST, Fixed, TargetRate

DEFERRED = Decision(Verdict.DEFER, Reason.SCORE)
KEPT = Decision(Verdict.KEEP, Reason.SCORE)


def run(rule: TargetRate, scores: list[float]) -> float:
    """The share of deferrals over the second half of a stream of scores."""
    verdicts = []
    for score in scores:
        deferred = score < rule.value
        verdicts.append(deferred)
        rule.learn(DEFERRED if deferred else KEPT)
    late = verdicts[len(verdicts) // 2 :]
    return sum(late) / len(late)


def test_a_fixed_threshold_learns_nothing() -> None:
    rule = Fixed(0.4)
    rule.learn(DEFERRED)
    assert rule.value == 0.4


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5])
def test_a_target_rate_is_held_under_drift(rate: float) -> None:
    draw = random.Random(7)  # noqa: S311 (a repeatable stream)
    easy_to_hard = [draw.betavariate(5 - 4 * step / 4000, 2) for step in range(4000)]
    assert run(TargetRate(rate, start=0.5), easy_to_hard) == pytest.approx(rate, abs=0.03)


def test_decisions_without_a_score_move_nothing() -> None:
    rule = TargetRate(0.3, start=0.5)
    for reason in (Reason.NO_SCORE, Reason.MODE, Reason.SMALL_UNAVAILABLE):
        rule.learn(Decision(Verdict.DEFER, reason))
    assert rule.value == 0.5


@given(st.floats(0.01, 0.99), st.lists(st.booleans(), max_size=400))
def test_a_moving_threshold_never_reaches_the_ends(rate: float, deferrals: list[bool]) -> None:
    rule = TargetRate(rate, start=0.5, step=0.2)
    for deferred in deferrals:
        before = rule.value
        rule.learn(DEFERRED if deferred else KEPT)
        assert LEAST <= rule.value <= MOST
        assert abs(rule.value - before) <= 0.2
