import random
from dataclasses import replace

import numpy as np
import pytest

from marginal.errors import ConfigurationError
from marginal.evaluation.drifting import (
    EASY_TO_HARD,
    HARD_TO_EASY,
    ORDERS,
    RULES,
    SHUFFLED,
    Drift,
    Finding,
    Plan,
    Stream,
    drift,
    pass_budget,
    pass_rule,
    passages,
)
from marginal.evaluation.replay import ScoreChoice
from marginal.evaluation.results import Header, Row, Run, TierResult
from marginal.policy.thresholds import Fixed
from marginal.tokens import Sampling, Usage

HEADER = Header("small", "large", "USD", "exact", "expected", Sampling(), 20, "2026-11-24T18:00:00Z")
PLAN = Plan(ScoreChoice("min_margin"), (3.0,), seeds=2, noise=0.3, step=0.02, cost_ratio=10.0)


def recorded(number: int, seed: int = 1) -> Run:
    """The small model is right as often as it is sure, the large one in 9 of 10; ten times the small one's costs."""
    draw = random.Random(seed)  # noqa: S311 (repeatable rows)
    rows = []
    for index in range(number):
        sure = draw.random()
        small = TierResult(draw.random() < sure, Usage(10, 2), 120, 0.1)
        large = TierResult(draw.random() < 0.9, Usage(10, 2), 1_200, 0.2)
        rows.append(Row(str(index), "", small, large, scores={"min_margin": sure}))
    return Run(HEADER, tuple(rows), "made")


@pytest.fixture(scope="module")
def found() -> Drift:
    return drift(recorded(3000), PLAN)


def finding(found: Drift, order: str, rule: str) -> Finding:
    return next(one for one in found.findings if (one.order, one.rule) == (order, rule))


def stream(places: list[float], *, budget_costs: tuple[float, float, float] = (1.0, 11.0, 10.0)) -> Stream:
    """The small answers are wrong, the large ones right, and a guess is right in one of four."""
    ones = np.ones(len(places))
    kept, deferred, large = budget_costs
    return Stream(np.array(places), 0 * ones, ones, ones / 4, kept * ones, deferred * ones, large * ones)


@pytest.mark.parametrize("rule", ["target_rate", "spend_rate"])
def test_the_controllers_beat_the_whole_history_where_traffic_drifts(found: Drift, rule: str) -> None:
    for order in (EASY_TO_HARD, HARD_TO_EASY):
        one = finding(found, order, rule)
        assert one.gain > 0.0
        assert one.spend == pytest.approx(1.0, abs=0.06)
        assert one.share_error < 0.04
    assert finding(found, SHUFFLED, rule).gain == pytest.approx(0.0, abs=0.02)


def test_the_papers_rule_spends_its_budget_and_gains_nothing_over_itself(found: Drift) -> None:
    for order in ORDERS:
        one = finding(found, order, "budget")
        assert one.spend == pytest.approx(1.0, abs=0.005)
        assert one.gain == one.least_gain == 0.0


def test_a_fixed_threshold_is_indifferent_to_the_order_as_a_whole(found: Drift) -> None:
    everywhere = {finding(found, order, "fixed").accuracy for order in ORDERS}
    assert max(everywhere) == pytest.approx(min(everywhere))
    assert found.held_out == 600
    assert found.requests == 2400


def test_everything_is_told_and_repeatable() -> None:
    told: list[str] = []
    plan = replace(PLAN, budgets=(2.0, 4.0), seeds=1)
    run = recorded(200)
    first = drift(run, plan, tell=told.append)
    assert len(told) == passages(plan) == len(ORDERS) * len(RULES) * 2
    assert drift(run, plan) == first


def test_costs_of_the_run_are_used_unless_a_ratio_is_given() -> None:
    found = drift(recorded(200), replace(PLAN, cost_ratio=None, seeds=1))
    assert found.cost_model.label == "tokens"
    assert found.large_ratio == pytest.approx(10.0)


def test_rows_without_a_score_or_a_label_are_left_out() -> None:
    run = recorded(200)
    unscored = replace(run.rows[0], scores={})
    unlabelled = replace(run.rows[1], small=replace(run.rows[1].small, correct=None))
    found = drift(replace(run, rows=(unscored, unlabelled, *run.rows[2:])), replace(PLAN, seeds=1))
    assert found.left_out == 2
    assert found.requests + found.held_out == 198


def test_a_budget_without_use_and_a_short_run_are_refused() -> None:
    for budget in (1.0, 11.0):
        with pytest.raises(ConfigurationError, match=f"--budget {budget:g}: must be above 1, a small answer"):
            drift(recorded(200), replace(PLAN, budgets=(budget,)))
    with pytest.raises(ConfigurationError, match="99 rows with min_margin are too few"):
        drift(recorded(99), PLAN)
    run = recorded(200)
    free = tuple(replace(row, small=replace(row.small, cost_nanos=0)) for row in run.rows)
    with pytest.raises(ConfigurationError, match="give --cost-ratio"):
        drift(replace(run, rows=free), replace(PLAN, cost_ratio=None))


def test_a_rule_defers_below_its_threshold_and_pays_for_both() -> None:
    passage = pass_rule(stream([0.1, 0.2, 0.6, 0.9]), Fixed(0.5))
    assert (passage.accuracy, passage.spend) == (0.5, 6.0)
    assert passage.share == 0.0  # of the second half: the first is for settling


def test_the_reserve_rules_ask_the_large_tier_directly_while_it_is_paid_for_all() -> None:
    passage = pass_budget(stream([0.5] * 8), 10.0)
    assert (passage.accuracy, passage.spend, passage.share) == (1.0, 10.0, 1.0)


def test_what_nobody_answers_for_want_of_money_counts_as_a_guess() -> None:
    passage = pass_budget(stream([0.5] * 8), 0.5)
    assert passage.spend == 0.5
    assert passage.accuracy == pytest.approx(4 / 8 * 0.25)
