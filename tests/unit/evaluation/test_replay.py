"""Replaying a row asks the scores of production, and prices what an early verdict would have saved."""

import math
import random

import numpy as np
import pytest

from evidence import blind, sure
from marginal.errors import ConfigurationError
from marginal.evaluation.costs import CostModel, Unit, cost_models, output_price, price
from marginal.evaluation.replay import ScoreChoice, answers, replay, score_choice
from marginal.evaluation.results import LARGE, Row, Run, TierResult
from marginal.policy.deferral import Decision, Deferral, Verdict
from marginal.policy.scores import SCORES
from marginal.tokens import EarlyStop, Usage
from unit.evaluation.made_runs import INPUT_NANOS, OUTPUT_NANOS, header, made_row, made_run

CHOICES = [
    ScoreChoice("first_token_margin"),
    ScoreChoice("min_margin"),
    ScoreChoice("min_margin", window=3),
    ScoreChoice("mean_margin", window=4),
    ScoreChoice("quantile_margin", window=4, quantile=0.3),
    ScoreChoice("first_token_logit_margin"),
    ScoreChoice("entropy", window=2),
    ScoreChoice("mean_logprob"),
]


def decided(row: Row, choice: ScoreChoice, threshold: float, *, exact: bool) -> Decision:
    """What production decides about a row's tokens."""
    rule = EarlyStop(choice.name, choice.window, threshold, quantile=choice.quantile, exact=exact)
    deferral = Deferral(rule, choices=row.choices)
    for token in row.tokens:
        if deferral.feed(token) is not Verdict.UNDECIDED:
            break
    return deferral.finish()


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: choice.label)
def test_the_exact_score_and_the_tokens_it_takes_are_those_of_production(choice: ScoreChoice) -> None:
    rows = made_run(40, tokens=5).rows
    replayed = replay(rows, choice)
    for position, row in enumerate(rows):
        decision = decided(row, choice, 0.5, exact=True)
        assert decision.score is not None
        assert math.isclose(replayed.values[position], decision.score, abs_tol=1e-12)
        assert replayed.seen[position] == decision.tokens_seen


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: choice.label)
def test_a_threshold_defers_at_the_token_at_which_production_would(choice: ScoreChoice) -> None:
    rows = made_run(40, tokens=5).rows
    replayed, scale = replay(rows, choice), SCORES[choice.name].scale
    drawing = random.Random(1)  # noqa: S311 (no secret)
    deferred = 0
    for position, row in enumerate(rows):
        place = min(0.999, float(drawing.choice(replayed.places)) + 0.001)
        decision = decided(row, choice, scale.at(place), exact=False)
        assert (decision.verdict is Verdict.DEFER) == (replayed.places[position] < place)
        if decision.verdict is Verdict.DEFER:
            deferred += 1
            assert replayed.seen_at(position, np.array([place]))[0] == decision.tokens_seen
    assert deferred > 5


def test_a_row_without_evidence_has_no_score_from_the_token_that_lacks_it() -> None:
    row = made_row(1, 0.9, small=True, large=True)
    broken = Row(row.id, row.task, row.small, row.large, tokens=(sure(0.9), blind(), sure(0.9)))
    replayed = replay([broken], ScoreChoice("min_margin"))
    assert np.isnan(replayed.values[0])
    assert replayed.seen[0] == decided(broken, ScoreChoice("min_margin"), 0.5, exact=True).tokens_seen == 2


def test_a_row_without_tokens_has_the_score_that_was_recorded_and_nothing_to_abort() -> None:
    tier = TierResult(True, Usage(10, 6), 100, 0.1)
    rows = [Row("1", "", tier, tier, scores={"min_margin": 0.25}), Row("2", "", tier, tier)]
    replayed = replay(rows, ScoreChoice("min_margin"))
    assert replayed.values[0] == 0.25
    assert np.isnan(replayed.values[1])
    assert replayed.seen.tolist() == [6, 6]
    assert replayed.seen_at(0, np.array([0.5])).tolist() == [6]


def test_scores_that_say_the_same_of_every_row_are_recognised() -> None:
    rows = made_run(20).rows
    assert replay(rows, ScoreChoice("min_margin")).same_as(replay(rows, ScoreChoice("mean_margin")))
    assert not replay(rows, ScoreChoice("min_margin")).same_as(replay(rows, ScoreChoice("entropy")))


def test_rows_that_nobody_graded_are_left_out_and_counted() -> None:
    graded, tier = made_row(1, 0.5, small=False, large=True), TierResult(None, Usage(10, 1), 100, 0.1)
    judged = answers(Run(header(), (graded, Row("2", "", tier, tier)), "made"))
    assert (len(judged.rows), judged.left_out) == (1, 1)
    assert (judged.small[0], judged.large[0]) == (0.0, 1.0)


def test_with_labels_of_the_large_tier_it_is_right_and_the_small_one_where_both_agree() -> None:
    tier = TierResult(None, Usage(10, 1), 100, 0.1)
    rows = (Row("1", "", tier, tier, agrees=True), Row("2", "", tier, tier, agrees=False))
    judged = answers(Run(header(labels=LARGE), rows, "made"))
    assert judged.small.tolist() == [1.0, 0.0]
    assert judged.large.tolist() == [1.0, 1.0]


def test_a_run_in_which_nothing_is_graded_is_refused_by_name() -> None:
    tier = TierResult(None, Usage(10, 1), 100, 0.1)
    with pytest.raises(ConfigurationError, match=r"made: no row says"):
        answers(Run(header(), (Row("1", "", tier, tier),), "made"))


def test_fixed_costs_charge_the_share_of_tokens_seen() -> None:
    rows = [made_row(1, 0.9, 0.8, 0.7, 0.6, small=True, large=True)]
    costs = price(rows, CostModel(Unit.FIXED, 5.0))
    assert (costs.small[0], costs.large[0]) == (1.0, 5.0)
    assert costs.aborted(np.array([1]))[0] == 0.25
    assert costs.aborted(np.array([4]))[0] == 1.0


def test_an_answer_of_one_token_is_paid_in_full_unless_a_share_is_stated() -> None:
    rows = [made_row(1, 0.9, small=True, large=True)]
    assert not price(rows, CostModel(Unit.FIXED, 5.0)).saves
    stated = price(rows, CostModel(Unit.FIXED, 5.0), aborted_share=0.05)
    assert stated.saves
    assert stated.aborted(np.array([1]))[0] == 0.05
    assert not stated.without_abort.saves


def test_token_costs_of_an_aborted_answer_are_its_input_and_the_tokens_seen() -> None:
    rows = made_run(30, tokens=4).rows
    costs = price(rows, CostModel(Unit.TOKENS))
    seen = np.full(len(rows), 2)
    expected = [row.small.usage.input_tokens * INPUT_NANOS + 2 * OUTPUT_NANOS for row in rows]
    assert costs.aborted(seen) == pytest.approx(expected)


def test_the_price_of_a_token_is_unknown_when_costs_leave_it_open_or_are_no_prices() -> None:
    usages = [Usage(10, 4), Usage(12, 4), Usage(15, 4)]
    assert output_price([TierResult(True, usage, 9 * usage.input_tokens + 800, 0.1) for usage in usages]) is None
    odd = [TierResult(True, Usage(10, 4 + turn), 1_000 + turn**3, 0.1) for turn in range(6)]
    assert output_price(odd) is None
    known = [TierResult(True, Usage(10 + turn % 3, 4 + turn, turn % 2), 7 * (4 + turn) + 5, 0.1) for turn in range(6)]
    assert output_price(known) == 7.0


def test_time_costs_of_an_aborted_answer_begin_with_the_time_to_its_first_token() -> None:
    rows = [made_row(1, 0.9, 0.8, 0.7, 0.6, small=True, large=True)]
    costs = price(rows, CostModel(Unit.TIME))
    assert costs.aborted(np.array([2]))[0] == pytest.approx(0.004 + (0.018 - 0.004) * 2 / 4)


def test_a_time_to_the_first_token_that_was_not_measured_saves_nothing() -> None:
    tier = TierResult(True, Usage(10, 4), 0, 0.5)
    costs = price([Row("1", "", tier, TierResult(True, Usage(10, 4), 0, 2.0))], CostModel(Unit.TIME))
    assert costs.aborted(np.array([1]))[0] == 0.5


def test_only_cost_models_that_tell_the_tiers_apart_are_used() -> None:
    assert [model.label for model in cost_models(made_run(5).rows, [5.0, 5.0])] == ["tokens", "time", "fixed 1:5"]
    assert [model.label for model in cost_models(made_run(5, priced=False).rows, [4.0])] == ["fixed 1:4"]
    with pytest.raises(ConfigurationError, match="--cost-ratio: 1 is not above 1"):
        cost_models(made_run(5).rows, [1.0])


@pytest.mark.parametrize(
    ("written", "choice"),
    [
        ("min_margin", ScoreChoice("min_margin")),
        ("min_margin:8", ScoreChoice("min_margin", 8)),
        ("quantile_margin:0:0.25", ScoreChoice("quantile_margin", 0, 0.25)),
    ],
)
def test_a_score_is_read_as_it_is_written(written: str, choice: ScoreChoice) -> None:
    assert score_choice(written) == choice
    assert choice.label == written


@pytest.mark.parametrize("written", ["guess", "min_margin:x", "min_margin:-1", "min_margin:1:1", "min_margin:1:0.5:2"])
def test_a_score_that_is_none_is_refused(written: str) -> None:
    with pytest.raises(ConfigurationError, match="--scores"):
        score_choice(written)
