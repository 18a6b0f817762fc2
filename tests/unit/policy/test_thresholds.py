import json
import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marginal.policy.deferral import Decision, Reason, Verdict
from marginal.policy.scales import LOGIT, LOGPROB, UNIT, Scale
from marginal.policy.thresholds import WARM_UP, Budget, Fixed, Lesson, SpendRate, TargetRate, Threshold
from marginal.policy.tracking import LEAST, MOST

RULES: dict[str, Callable[[], Threshold]] = {
    "fixed": lambda: Fixed(0.4),
    "budget": lambda: Budget(3.0, small_cost=1.0, large_cost=10.0),
    "target_rate": lambda: TargetRate(0.3),
    "spend_rate": lambda: SpendRate(3_000, kept_nanos=1_000, deferred_nanos=11_000),
}


def lesson(score: float, rule: Threshold, *, cost_nanos: int = 0) -> Lesson:
    deferred = score < rule.value
    return Lesson(Decision(Verdict.DEFER if deferred else Verdict.KEEP, Reason.SCORE, score=score), cost_nanos)


def drifting(count: int, *, scale: Scale = UNIT) -> list[float]:
    """Scores that fall from mostly sure to mostly unsure."""
    draw = random.Random(7)  # noqa: S311 (a repeatable stream)
    places = [draw.betavariate(5 - 4 * step / count, 2) for step in range(count)]
    return [scale.at(min(MOST, max(LEAST, place))) for place in places]


def shares(rule: Threshold, scores: list[float]) -> float:
    """The share of deferrals after the first 500."""
    lessons = []
    for score in scores:
        lessons.append(lesson(score, rule))
        rule.learn(lessons[-1])
    late = lessons[500:]
    return sum(one.deferred for one in late) / len(late)


def test_a_fixed_threshold_learns_nothing() -> None:
    rule = Fixed(0.4)
    rule.learn(lesson(0.1, rule))
    assert rule.value == 0.4


class TestBudget:
    def test_it_keeps_all_while_it_warms_up(self) -> None:
        rule = Budget(9.0, small_cost=1.0, large_cost=10.0)
        for _ in range(WARM_UP):
            assert rule.value == UNIT.keep_all
            rule.learn(lesson(0.5, rule))

    def test_a_quantile_past_the_end_defers_everything(self) -> None:
        rule = Budget(11.0, small_cost=1.0, large_cost=10.0)
        for _ in range(WARM_UP + 1):
            rule.remember(1.0)
        assert rule.value > 1.0

    @given(st.lists(st.floats(0.0, 1.0), min_size=21, max_size=80), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
    def test_its_threshold_says_what_the_quantile_with_the_score_itself_says(
        self, past: list[float], share: float, score: float
    ) -> None:
        rule = Budget(1.0 + share * 10.0, small_cost=1.0, large_cost=10.0)
        for one in past:
            rule.remember(one)
        every = sorted([*past, score])
        rank = int(len(every) * rule.share)
        quantile = every[rank] if rank < len(every) else math.inf
        assert (score < rule.value) == (score < quantile)

    def test_a_memory_forgets_the_oldest(self) -> None:
        rule = Budget(6.0, small_cost=1.0, large_cost=10.0, memory=30)
        for score in [0.9] * 30 + [0.1] * 30:
            rule.remember(score)
        assert rule.value == 0.1


class TestTargetRate:
    @pytest.mark.parametrize("scale", [UNIT, LOGIT, LOGPROB], ids=["margins", "logits", "logprobs"])
    @pytest.mark.parametrize("rate", [0.1, 0.3, 0.5])
    def test_the_share_is_held_within_a_point_under_drift_on_any_scale(self, rate: float, scale: Scale) -> None:
        rule = TargetRate(rate, scale=scale)
        assert shares(rule, drifting(4_000, scale=scale)) == pytest.approx(rate, abs=0.01)

    def test_it_never_starts_at_an_end(self) -> None:
        assert TargetRate(0.3).value == pytest.approx(0.3)
        assert TargetRate(0.3, start=0.0).value == LEAST
        assert TargetRate(0.3, start=1.0).value == MOST

    @given(st.floats(0.01, 0.99), st.lists(st.booleans(), max_size=400))
    def test_it_takes_bounded_steps_and_never_reaches_the_ends(self, rate: float, deferrals: list[bool]) -> None:
        rule = TargetRate(rate, step=0.2)
        for deferred in deferrals:
            before = rule.value
            rule.learn(Lesson(Decision(Verdict.DEFER if deferred else Verdict.KEEP, Reason.SCORE)))
            assert LEAST <= rule.value <= MOST
            assert abs(rule.value - before) <= 0.2 + 1e-12

    def test_what_was_deferred_too_little_is_made_up_for(self) -> None:
        rule = TargetRate(0.3)
        for _ in range(300):
            rule.learn(Lesson(Decision(Verdict.KEEP, Reason.SCORE)))
        deferrals = 0
        for _ in range(300):
            rule.learn(Lesson(Decision(Verdict.DEFER, Reason.SCORE)))
            deferrals += rule.value > 0.5
        owing = TargetRate(0.3, start=0.999)
        without = 0
        for _ in range(300):
            owing.learn(Lesson(Decision(Verdict.DEFER, Reason.SCORE)))
            without += owing.value > 0.5
        assert deferrals > without

    def test_an_unreachable_target_does_not_wind_it_up(self) -> None:
        short, long = TargetRate(0.3), TargetRate(0.3)
        for rule, keeps in ((short, 1_000), (long, 100_000)):
            for _ in range(keeps):
                rule.learn(Lesson(Decision(Verdict.KEEP, Reason.SCORE)))
        assert long.state() == short.state()

    def test_it_asks_for_nothing_but_verdicts_so_that_censored_scores_do_not_matter(self) -> None:
        one, other = TargetRate(0.3), TargetRate(0.3)
        for score in drifting(300):
            seen = lesson(score, one)
            one.learn(seen)
            verdict = seen.decision.verdict
            other.learn(Lesson(Decision(verdict, Reason.SCORE, score=0.0, censored=True)))
        assert one.value == other.value


class TestSpendRate:
    def test_money_per_request_is_held_though_costs_are_not_as_expected(self) -> None:
        draw = random.Random(11)  # noqa: S311 (a repeatable stream)
        rule, spent = SpendRate(4_000, kept_nanos=500, deferred_nanos=20_000), []
        for score in drifting(6_000):
            kept, large = draw.randint(500, 1_500), draw.randint(5_000, 15_000)
            aborted = kept // 4
            seen = lesson(score, rule, cost_nanos=aborted + large if score < rule.value else kept)
            rule.learn(seen)
            spent.append(seen.cost_nanos)
        assert sum(spent[500:]) / len(spent[500:]) == pytest.approx(4_000, rel=0.02)

    def test_a_request_under_way_counts_as_expected_and_is_settled_when_it_has_ended(self) -> None:
        at_once, later = (SpendRate(3_000, kept_nanos=1_000, deferred_nanos=11_000, start=0.5) for _ in range(2))
        for score in drifting(400):
            cost = 21_000 if score < at_once.value else 900
            at_once.learn(lesson(score, at_once, cost_nanos=cost))
            under_way = Lesson(lesson(score, later).decision)
            reckoned = later.learn(under_way)
            cost = 21_000 if under_way.deferred else 900
            later.settle(Lesson(under_way.decision, cost), reckoned=reckoned)
        assert later.value == pytest.approx(at_once.value, abs=0.1)

    def test_what_was_not_settled_moves_as_much_as_was_expected(self) -> None:
        rule = SpendRate(3_000, kept_nanos=1_000, deferred_nanos=11_000)
        assert rule.learn(Lesson(Decision(Verdict.DEFER, Reason.SCORE))) == 11_000
        assert rule.learn(Lesson(Decision(Verdict.KEEP, Reason.SCORE))) == 1_000

    def test_one_dear_request_moves_it_by_a_bounded_step(self) -> None:
        rule = SpendRate(3_000, kept_nanos=1_000, deferred_nanos=11_000)
        before = rule.value
        rule.learn(lesson(0.0, rule, cost_nanos=10**12))
        assert before - 0.2 - 1e-12 <= rule.value < before


@pytest.mark.parametrize("name", sorted(RULES))
def test_a_rule_goes_on_after_a_restart_as_if_there_had_been_none(name: str) -> None:
    rule, restored = RULES[name](), RULES[name]()

    def learnt(one: Threshold, score: float) -> float:
        one.learn(lesson(score, one, cost_nanos=15_000 if score < one.value else 700))
        return one.value

    for score in drifting(300):
        learnt(rule, score)
    restored.restore(json.loads(json.dumps(rule.state())))
    assert restored.value == rule.value
    for score in drifting(50):
        assert learnt(restored, score) == pytest.approx(learnt(rule, score), abs=1e-9)


@pytest.mark.parametrize("value", [None, "0.5", math.nan, math.inf, True, [1.0]])
def test_a_state_that_is_no_number_is_not_taken(value: object) -> None:
    for rule in (TargetRate(0.3), SpendRate(3_000, kept_nanos=1_000, deferred_nanos=11_000)):
        with pytest.raises((TypeError, ValueError, KeyError)):
            rule.restore({**rule.state(), "place": value})  # type: ignore[dict-item]


@pytest.mark.parametrize(("name", "value"), [("kept_nanos", -1.0), ("deferred_nanos", 1e300), ("kept_seen", -3)])
def test_a_state_that_no_traffic_could_have_made_is_not_taken(name: str, value: float) -> None:
    rule = SpendRate(3_000, kept_nanos=1_000, deferred_nanos=11_000)
    with pytest.raises(ValueError, match="state holds"):
        rule.restore({**rule.state(), name: value})
