"""The sweep decides as the rules of production do, and its figures are the paper's protocol."""

import numpy as np
import pytest

from marginal.errors import ConfigurationError
from marginal.evaluation import lanes
from marginal.evaluation.cells import deferral_share
from marginal.evaluation.costs import CostModel, Costs, Unit, price
from marginal.evaluation.lanes import DEFERRED, DIRECT, KEPT, NOBODY
from marginal.evaluation.protocol import BUDGET, FIXED, RULES, SPEND_RATE, TARGET_RATE, Evaluation, Protocol
from marginal.evaluation.replay import Ints, Replayed, ScoreChoice, replay
from marginal.evaluation.results import Row, Run
from marginal.evaluation.sweep import sweep
from marginal.policy.deferral import Decision, Reason, Verdict
from marginal.policy.horizon import Horizon, Route
from marginal.policy.scores import SCORES
from marginal.policy.thresholds import Budget, Lesson, SpendRate, TargetRate
from unit.evaluation.made_runs import made_run

ORDERS, SETTINGS = 2, 9
MARGIN = ScoreChoice("first_token_margin")


def streamed(rows: tuple[Row, ...], choice: ScoreChoice = MARGIN) -> tuple[lanes.Streams, Ints]:
    order = np.stack([np.random.RandomState(seed).permutation(len(rows)) for seed in range(ORDERS)])
    return lanes.streams(replay(rows, choice), order), order


def by_horizon(
    replayed: Replayed, rows: Ints, costs: Costs, budget: float, share: float, means: tuple[float, float]
) -> list[int]:
    """The paper's rule as production has it, request by request."""
    horizon = Horizon(budget, small_cost=means[0], large_cost=means[1], requests=len(rows))
    horizon.rule = Budget(budget, small_cost=means[0], large_cost=means[1], scale=SCORES[replayed.choice.name].scale)
    assert horizon.rule.share == share
    codes = []
    for row in rows:
        route = horizon.route
        if route is Route.EXHAUSTED:
            codes.append(NOBODY)
        elif route is Route.LARGE_DIRECTLY:
            horizon.pay(float(costs.large[row]))
            codes.append(DIRECT)
        elif horizon.score(float(replayed.values[row]), cost=float(costs.small[row])):
            horizon.pay(float(costs.large[row]))
            codes.append(DEFERRED)
        else:
            codes.append(KEPT)
        horizon.passed()
    return codes


@pytest.mark.parametrize("unit", [Unit.FIXED, Unit.TIME, Unit.TOKENS])
@pytest.mark.parametrize("score", ["first_token_margin", "first_token_logit_margin", "entropy"])
def test_the_budget_rule_decides_as_horizon_does_decision_for_decision(unit: Unit, score: str) -> None:
    rows = made_run(300).rows
    streams, order = streamed(rows, ScoreChoice(score))
    costs = price(rows, CostModel(unit, 5.0)).without_abort
    means = float(costs.small.mean()), float(costs.large.mean())
    budgets = np.linspace(0.9 * means[0], means[1], SETTINGS)
    shares = deferral_share(budgets, *means)
    answered = lanes.spend_budgets(streams, costs, budgets, shares, means, large_is_better=True)
    seen = set()
    for each in range(ORDERS):
        for setting, (budget, share) in enumerate(zip(budgets.tolist(), shares.tolist(), strict=True)):
            expected = by_horizon(streams.replayed, order[each], costs, budget, share, means)
            assert answered.codes[:, each, setting].tolist() == expected
            seen |= set(expected)
    assert seen == {KEPT, DEFERRED, DIRECT, NOBODY}


def lesson(*, deferred: bool, cost: int = 0) -> Lesson:
    return Lesson(Decision(Verdict.DEFER if deferred else Verdict.KEEP, Reason.SCORE), cost)


def test_the_target_rate_rule_decides_as_production_does_decision_for_decision() -> None:
    rows = made_run(300).rows
    streams, order = streamed(rows)
    rates, start = np.linspace(0.05, 0.95, SETTINGS), np.linspace(0.9, 0.1, SETTINGS)
    answered = lanes.hold_rates(streams, rates, start)
    for each in range(ORDERS):
        for setting in range(SETTINGS):
            rule = TargetRate(float(rates[setting]), start=float(start[setting]))
            for position, row in enumerate(order[each]):
                deferred = bool(streams.replayed.values[row] < rule.value)
                assert answered.codes[position, each, setting] == deferred
                rule.learn(lesson(deferred=deferred))


@pytest.mark.parametrize("tokens", [1, 4])
def test_the_spend_rate_rule_decides_as_production_does_decision_for_decision(tokens: int) -> None:
    rows = made_run(300, tokens=tokens).rows
    streams, order = streamed(rows, ScoreChoice("min_margin"))
    costs = price(rows, CostModel(Unit.TOKENS))
    kept, deferred_cost = float(costs.small.mean()), float(costs.small.mean() + costs.large.mean())
    budgets, start = np.linspace(1.2 * kept, deferred_cost, SETTINGS), np.linspace(0.1, 0.9, SETTINGS)
    answered = lanes.hold_spend(streams, costs, budgets, start, (kept, deferred_cost))
    for each in range(ORDERS):
        for setting in range(SETTINGS):
            rule = SpendRate(
                float(budgets[setting]), kept_nanos=kept, deferred_nanos=deferred_cost, start=float(start[setting])
            )
            for position, row in enumerate(order[each].tolist()):
                threshold = rule.value
                deferred = bool(streams.replayed.values[row] < threshold)
                assert answered.codes[position, each, setting] == deferred
                seen = streams.replayed.seen_at(row, np.array([threshold]))[0]
                aborted = costs.base[row] + costs.per_token[row] * seen
                cost = aborted + costs.large[row] if deferred else costs.small[row]
                rule.learn(lesson(deferred=deferred, cost=round(cost)))


def test_the_share_to_defer_is_the_papers_when_an_aborted_answer_is_paid_in_full() -> None:
    budgets = np.linspace(1.0, 5.0, 9)
    assert deferral_share(budgets, 1.0, 5.0).tolist() == [max(0.0, min((b - 1.0) / 5.0, 1)) for b in budgets.tolist()]


def test_the_share_to_defer_spends_the_budget_when_aborting_saves() -> None:
    share = deferral_share(np.array([3.0]), 1.0, 5.0, aborted=0.05)[0]
    assert (1.0 - share) * 1.0 + share * (0.05 + 5.0) == pytest.approx(3.0)


def protocol(
    *scores: str, holdout: int | None = 0, ratios: tuple[float, ...] = (5.0,), share: float | None = None
) -> Protocol:
    return Protocol(
        scores=tuple(map(ScoreChoice, scores or ("first_token_margin",))),
        ratios=ratios,
        budgets=21,
        orders=2,
        holdout=holdout,
        aborted_share=share,
        resamples=200,
    )


@pytest.fixture(scope="module")
def swept() -> Evaluation:
    """An evaluation of a run whose margins say something, in which a single token is aborted at 5 % of its cost."""
    return sweep(made_run(800, priced=False), protocol("first_token_margin", "entropy", "min_margin", share=0.05))


def test_every_score_and_rule_is_swept_without_and_with_early_abort(swept: Evaluation) -> None:
    assert [(setting.model.label, setting.early_abort) for setting in swept.settings] == [
        ("fixed 1:5", False),
        ("fixed 1:5", True),
    ]
    for setting in swept.settings:
        assert {(cell.score, cell.rule) for cell in setting.cells} == {
            (score, rule) for score in ("first_token_margin", "entropy") for rule in RULES
        }


def test_scores_that_say_the_same_are_swept_once_and_named_together(swept: Evaluation) -> None:
    assert swept.alike == {"first_token_margin": ("min_margin",), "entropy": ()}


def test_curves_go_from_about_the_small_tier_to_the_large_one(swept: Evaluation) -> None:
    for setting in swept.settings:
        for cell in setting.cells:
            assert cell.accuracy[0] == pytest.approx(swept.small_accuracy, abs=0.02)
            assert cell.accuracy[-1] == pytest.approx(swept.large_accuracy)
            assert all(low <= high for low, high in zip(cell.low, cell.high, strict=True))
            assert cell.auc == pytest.approx(float(np.trapezoid(cell.accuracy, dx=1 / 20)))
            assert cell.auc_interval.low < cell.auc < cell.auc_interval.high


def test_the_random_line_is_the_mean_of_the_tiers_and_nothing_is_above_the_oracle(swept: Evaluation) -> None:
    for setting in swept.settings:
        assert setting.random_auc == pytest.approx((swept.small_accuracy + swept.large_accuracy) / 2)
        assert max(cell.auc for cell in setting.cells) < setting.oracle_auc


def test_margins_that_say_something_beat_random_and_more_so_with_early_abort(swept: Evaluation) -> None:
    full, early = (setting.cell("first_token_margin", TARGET_RATE) for setting in swept.settings)
    assert full.gain_interval.low > 0.0
    assert early.gain > full.gain + 0.005


@pytest.mark.parametrize("rule", [BUDGET, TARGET_RATE, SPEND_RATE, FIXED])
def test_margins_that_say_nothing_lose_the_price_of_the_small_answer(rule: str) -> None:
    run = made_run(800, informative=False, priced=False)
    cell = sweep(run, protocol()).settings[0].cell("first_token_margin", rule)
    assert cell.gain < 0.0


@pytest.fixture(scope="module")
def priced() -> Evaluation:
    """An evaluation of a run with answers of several tokens, times and prices."""
    return sweep(made_run(300, tokens=4), protocol("min_margin"))


def test_early_abort_with_tokens_is_counted_at_the_runs_own_prices(priced: Evaluation) -> None:
    labels = [(setting.model.label, setting.early_abort) for setting in priced.settings]
    assert labels == [(unit, early) for unit in ("tokens", "time", "fixed 1:5") for early in (False, True)]
    full, early = (setting.cell("min_margin", TARGET_RATE) for setting in priced.settings[:2])
    assert early.auc > full.auc


def test_the_budget_rule_saves_nothing_on_a_score_that_is_known_at_the_end_only(priced: Evaluation) -> None:
    full, early = (setting.cell("min_margin", BUDGET) for setting in priced.settings[:2])
    assert early.auc == pytest.approx(full.auc)


def test_held_out_rows_are_no_part_of_the_stream_and_choose_the_score() -> None:
    run = made_run(600, priced=False)
    evaluation = sweep(run, protocol("first_token_margin", "entropy", holdout=200))
    small = np.mean([row.small.correct for row in run.rows[200:]])
    assert (evaluation.rows, evaluation.held_out) == (400, 200)
    assert evaluation.small_accuracy == pytest.approx(float(small))
    assert evaluation.chosen in ("first_token_margin", "entropy")


def test_a_thousand_rows_are_held_out_where_there_are_three_thousand() -> None:
    few, many = made_run(2_999, priced=False), made_run(3_000, priced=False)
    wanted = Protocol(scores=(MARGIN,), rules=(FIXED,), budgets=5, orders=1, resamples=20)
    assert sweep(few, wanted).held_out == 0
    assert sweep(many, wanted).held_out == 1_000


def test_too_few_rows_are_refused_with_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match=r"made: 50 rows .* hold out less with --holdout"):
        sweep(made_run(50), protocol(holdout=20))


def test_a_run_without_evidence_is_refused() -> None:
    run = made_run(60)
    blind = tuple(Row(row.id, row.task, row.small, row.large) for row in run.rows)
    with pytest.raises(ConfigurationError, match="no score has evidence"):
        sweep(Run(run.header, blind, run.name), protocol())


def test_the_same_run_gives_the_same_evaluation(swept: Evaluation) -> None:
    again = sweep(made_run(800, priced=False), protocol("first_token_margin", "entropy", "min_margin", share=0.05))
    assert again == swept
