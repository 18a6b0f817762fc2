"""The conclusion says what the numbers say, and how far they can be trusted."""

from dataclasses import replace

import pytest

from marginal.evaluation.conclusion import Conclusion, conclude, score_of
from marginal.evaluation.intervals import Interval
from marginal.evaluation.protocol import RULES, Evaluation, Protocol
from marginal.evaluation.replay import ScoreChoice
from marginal.evaluation.results import Run
from marginal.evaluation.sweep import sweep
from unit.evaluation.made_runs import header, made_row, made_run

SCORES = (ScoreChoice("first_token_margin"), ScoreChoice("entropy"))


def evaluated(
    run: Run,
    *,
    holdout: int = 0,
    ratio: float = 10.0,
    share: float | None = None,
    rules: tuple[str, ...] = tuple(RULES),
) -> Evaluation:
    wanted = Protocol(
        scores=SCORES,
        rules=rules,
        ratios=(ratio,),
        budgets=21,
        orders=2,
        holdout=holdout,
        aborted_share=share,
        resamples=200,
    )
    return sweep(run, wanted)


@pytest.fixture(scope="module")
def paying() -> Evaluation:
    return evaluated(made_run(900, priced=False), share=0.05)


def remarks(found: Conclusion) -> str:
    return " ".join(found.remarks)


def test_a_cascade_that_pays_is_told_with_quality_cost_interval_and_random(paying: Evaluation) -> None:
    found = conclude(paying)
    assert found.verdict == "pays"
    assert found.headline.startswith("first_token_margin with target_rate keeps 98% of the large model's accuracy at ")
    assert "% of its cost (95% interval " in found.headline
    assert "asking the large model by lot takes " in found.headline
    assert "a large answer costing 10 small ones, unsure answers aborted early" in found.headline


def test_the_figures_without_early_abort_are_told_too(paying: Evaluation) -> None:
    assert "A large answer costing 10 small ones, paying every small answer in full: AUC 0." in remarks(
        conclude(paying)
    )


def test_a_score_that_says_nothing_does_not_pay() -> None:
    found = conclude(evaluated(made_run(900, informative=False, priced=False), ratio=4.0))
    assert found.verdict == "does_not_pay"
    assert found.headline.startswith("The cascade does not pay here: first_token_margin with target_rate does worse")


def test_what_cannot_be_told_from_random_is_called_open(paying: Evaluation) -> None:
    setting = paying.settings[-1]
    cells = tuple(replace(cell, gain=0.001, gain_interval=Interval(-0.002, 0.004)) for cell in setting.cells)
    found = conclude(replace(paying, settings=(replace(setting, cells=cells),)))
    assert found.verdict == "open"
    assert "does not clearly pay here" in found.headline
    assert "not to be told from random, +0.1 points (95% interval -0.2 to +0.4)" in remarks(found)


def test_a_large_model_that_is_not_better_needs_no_cascade() -> None:
    rows = tuple(made_row(turn, 0.1 + turn % 9 / 10, small=turn % 5 > 0, large=turn % 5 < 4) for turn in range(200))
    found = conclude(evaluated(Run(header(), rows, "level")))
    assert found.verdict == "does_not_pay"
    assert "the large model is not clearly better than the small one, 80.0% against 80.0%" in found.headline


def test_a_small_model_that_is_better_is_called_the_better_one() -> None:
    rows = tuple(made_row(turn, 0.1 + turn % 9 / 10, small=turn % 5 > 0, large=turn % 5 < 1) for turn in range(200))
    assert (
        "the small model is the better one, 80.0% against 20.0%"
        in conclude(evaluated(Run(header(), rows, "odd"))).headline
    )


def test_a_score_chosen_on_held_out_rows_is_said_to_be() -> None:
    evaluation = evaluated(made_run(900, priced=False), holdout=300)
    assert f"{score_of(evaluation)} was chosen on the 300 rows held out" in remarks(conclude(evaluation))


def test_the_best_cell_of_the_table_is_called_hindsight(paying: Evaluation) -> None:
    setting = paying.settings[-1]
    best = replace(setting.cell("entropy", "budget"), auc=0.99)
    cells = tuple(best if (cell.score, cell.rule) == ("entropy", "budget") else cell for cell in setting.cells)
    found = conclude(replace(paying, settings=(*paying.settings[:-1], replace(setting, cells=cells))))
    assert "Best on these rows is entropy with budget, AUC 0.9900: picked with hindsight from 8" in remarks(found)


def test_few_rows_ungraded_rows_and_borrowed_labels_are_cautioned_about(paying: Evaluation) -> None:
    poor = replace(paying, rows=120, left_out=7, header=header(labels="large"))
    text = remarks(conclude(poor))
    assert "120 rows are few" in text
    assert "7 rows are left out" in text
    assert "its own mistakes count as right" in text
    assert "No rows were held out" in text


def test_without_target_rate_the_first_rule_swept_is_spoken_of() -> None:
    evaluation = evaluated(made_run(400, priced=False), rules=("budget",))
    assert " with budget" in conclude(evaluation).headline
