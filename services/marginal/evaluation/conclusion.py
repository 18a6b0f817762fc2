"""The conclusion in words: what one saves at which quality, or that the cascade does not pay here.

One cell is spoken of: the score chosen on the held-out rows (the default score without any), under the rule that a
service would run, at the run's own costs where there are some. It pays when the whole 95 % interval of its gain over
the random line is above 0. The best cell of the table is named too, as what it is: picked on the rows it is judged by.
"""

from dataclasses import dataclass

from marginal.evaluation.costs import CostModel, Unit
from marginal.evaluation.intervals import Interval
from marginal.evaluation.protocol import TARGET_RATE, Cell, Evaluation, Saving, Setting

DEFAULT_SCORE = "first_token_margin"
"""The paper's, and the default of the design."""

QUALITY = 0.98
"""The share of the large tier's accuracy at which a saving is told."""

WORTHWHILE = 0.005
"""A gain in AUC under half a point is told as slight."""


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The verdict in one word for programs (`pays`, `open`, `does_not_pay`), in a sentence, and its reasons."""

    verdict: str
    headline: str
    remarks: tuple[str, ...]


def spoken_of(evaluation: Evaluation) -> tuple[Setting, Cell]:
    """The setting and the cell that the conclusion speaks of."""
    first = evaluation.settings[0].model
    setting = [setting for setting in evaluation.settings if setting.model == first][-1]
    return setting, setting.cell(score_of(evaluation), rule_of(evaluation))


def score_of(evaluation: Evaluation) -> str:
    """The score chosen on the held-out rows, or the default, or the first that was swept."""
    return evaluation.chosen or default_of(evaluation) or next(iter(evaluation.alike))


def default_of(evaluation: Evaluation) -> str | None:
    """The default score, or the one swept that says the same."""
    return next((score for score, alike in evaluation.alike.items() if DEFAULT_SCORE in (score, *alike)), None)


def rule_of(evaluation: Evaluation) -> str:
    """The rule a service would run: it holds a share of deferrals whatever the traffic."""
    rules = evaluation.protocol.rules
    return TARGET_RATE if TARGET_RATE in rules else rules[0]


def conclude(evaluation: Evaluation) -> Conclusion:
    """What the numbers say."""
    setting, cell = spoken_of(evaluation)
    reasons = [_reason(setting, cell), *_other_settings(evaluation, setting, cell), *_chosen(evaluation, setting, cell)]
    if evaluation.gap_interval.low <= 0.0:
        return Conclusion("does_not_pay", _no_better(evaluation), (*reasons, *_cautions(evaluation)))
    saving = next(saving for saving in cell.savings if saving.quality == QUALITY)
    named = f"{cell.score} with {cell.rule}"
    if cell.gain_interval.low > 0.0 and saving.cost < 1.0:
        return Conclusion("pays", _pays(setting, named, saving), (*reasons, *_cautions(evaluation)))
    if cell.gain_interval.high < 0.0:
        headline = f"The cascade does not pay here: {named} does worse than asking the large model by lot."
        return Conclusion("does_not_pay", headline, (*reasons, *_cautions(evaluation)))
    headline = f"The cascade does not clearly pay here: {named} is not to be told from asking the large model by lot."
    return Conclusion("open", headline, (*reasons, *_cautions(evaluation)))


def cost_in_words(model: CostModel) -> str:
    """What is counted, for a sentence."""
    if model.unit is Unit.FIXED:
        return f"a large answer costing {model.ratio:g} small ones"
    return "tokens at the run's prices" if model.unit is Unit.TOKENS else "seconds"


def _pays(setting: Setting, named: str, saving: Saving) -> str:
    abort = ", unsure answers aborted early" if setting.early_abort else ""
    slight = "" if saving.random - saving.cost >= 0.02 else " It is a slight advantage."
    return (
        f"{named} keeps {saving.quality:.0%} of the large model's accuracy at {saving.cost:.0%} of its cost"
        f" (95% interval {_percent(saving.interval)}); asking the large model by lot takes {saving.random:.0%}."
        f" Counted with {cost_in_words(setting.model)}{abort}.{slight}"
    )


def _no_better(evaluation: Evaluation) -> str:
    small, large = evaluation.small_accuracy, evaluation.large_accuracy
    if evaluation.gap_interval.high < 0.0:
        return f"The cascade does not pay here: the small model is the better one, {small:.1%} against {large:.1%}."
    return (
        f"The cascade does not pay here: the large model is not clearly better than the small one,"
        f" {large:.1%} against {small:.1%} (difference {_points(evaluation.gap_interval)} points):"
        " the small one alone does as well."
    )


def _reason(setting: Setting, cell: Cell) -> str:
    return (
        f"Over all budgets its accuracy is {cell.auc:.4f} in the mean (normalised AUC), the random line's"
        f" {setting.random_auc:.4f}, the oracle's {setting.oracle_auc:.4f}: {_gain(cell)}."
    )


def _gain(cell: Cell) -> str:
    """The gain over the random line in points, in words."""
    points, interval = 100.0 * cell.gain, _points(cell.gain_interval)
    if cell.gain_interval.low > 0.0:
        slightly = "slightly " if cell.gain < WORTHWHILE else ""
        return f"{slightly}above random by {points:.1f} points (95% interval {interval})"
    if cell.gain_interval.high < 0.0:
        return f"below random by {-points:.1f} points (95% interval {interval})"
    return f"not to be told from random, {points:+.1f} points (95% interval {interval})"


def _other_settings(evaluation: Evaluation, spoken: Setting, cell: Cell) -> list[str]:
    """What the same score and rule do under the other cost models, and without early abort."""
    remarks = []
    for setting in evaluation.settings:
        if setting is spoken:
            continue
        other = setting.cell(cell.score, cell.rule)
        abort = "with early abort" if setting.early_abort else "paying every small answer in full"
        words = cost_in_words(setting.model)
        remarks.append(f"{words[0].upper()}{words[1:]}, {abort}: AUC {other.auc:.4f}, {_gain(other)}.")
    return remarks


def _chosen(evaluation: Evaluation, setting: Setting, cell: Cell) -> list[str]:
    """How the score was come by, and what is best in the table."""
    others = len(evaluation.alike) - 1
    if evaluation.chosen and others:
        how = f"{cell.score} was chosen on the {evaluation.held_out:,} rows held out, not on those it is judged by."
    elif others:
        how = f"{cell.score} was not chosen for doing well: without rows held out it stands for the default."
    else:
        how = ""
    best = max((one for one in setting.cells if one.rule != "fixed"), key=lambda one: one.auc, default=cell)
    if (best.score, best.rule) == (cell.score, cell.rule):
        return [how] if how else []
    seen = (
        f"Best on these rows is {best.score} with {best.rule}, AUC {best.auc:.4f}: picked with hindsight from"
        f" {len(setting.cells)}, expect a little less of it."
    )
    return [" ".join(filter(None, (how, seen)))]


def _cautions(evaluation: Evaluation) -> list[str]:
    """What limits the figures."""
    remarks = []
    if not evaluation.held_out and "fixed" in evaluation.protocol.rules:
        remarks.append(
            "No rows were held out: thresholds of `fixed` are chosen on the rows they are judged by. With --holdout the"
            " first rows choose the score and the thresholds."
        )
    if evaluation.rows < 500:
        remarks.append(f"{evaluation.rows} rows are few: intervals are wide, and a choice among scores is mostly luck.")
    if evaluation.left_out:
        remarks.append(f"{evaluation.left_out:,} rows are left out: nobody knows whether their answers are right.")
    if evaluation.header.labels == "large":
        remarks.append("Right means what the large model answers: its own mistakes count as right.")
    return remarks


def _percent(interval: Interval) -> str:
    return f"{100 * interval.low:.0f}–{100 * interval.high:.0f}%"  # noqa: RUF001 (a range)


def _points(interval: Interval) -> str:
    return f"{100 * interval.low:+.1f} to {100 * interval.high:+.1f}"
