"""The four figures of a report: accuracy against cost, the deferral curve, calibration, the histogram of scores.

The chosen score and the default one have a colour of their own; the others are drawn thin, to be read in the tables.
"""

import re

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from marginal.evaluation.conclusion import cost_in_words, default_of, rule_of, score_of
from marginal.evaluation.drawing import Palette, Picture
from marginal.evaluation.protocol import Cell, Evaluation, Setting
from marginal.evaluation.views import BARS, View
from marginal.policy.scores import SCORES

OTHERS = "other scores"
WIDE_LINE, LINE, THIN_LINE = 2.2, 1.4, 0.8


def pictures(evaluation: Evaluation) -> list[Picture]:
    """The figures of one run: first a curve for every cost model, then what the score is worth."""
    run = slug(evaluation.name)
    models = list(dict.fromkeys(setting.model for setting in evaluation.settings))
    curves = [
        _accuracy_against_cost(
            evaluation,
            [setting for setting in evaluation.settings if setting.model == model],
            f"{run}-{slug(model.label)}",
        )
        for model in models
    ]
    chosen = next(view for view in evaluation.views if view.score == score_of(evaluation))
    return [*curves, _deferral(evaluation, run), _calibration(chosen, run), _histogram(chosen, run)]


def slug(name: str) -> str:
    """A name that can be a file's and an id's."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "run"


def _accuracy_against_cost(evaluation: Evaluation, settings: list[Setting], name: str) -> Picture:
    rule = rule_of(evaluation)
    chosen, default = score_of(evaluation), default_of(evaluation)
    last, full = settings[-1], settings[0]

    def draw(figure: Figure, palette: Palette) -> None:
        axes = figure.add_subplot()
        costs = np.array(last.budgets) / last.large_cost
        random = np.linspace(evaluation.small_accuracy, evaluation.large_accuracy, len(costs))
        for score in evaluation.alike:
            if score not in (chosen, default):
                axes.plot(costs, last.cell(score, rule).accuracy, color=palette["faint"], lw=THIN_LINE, label=OTHERS)
        axes.plot(costs, last.oracle, ":", color=palette["muted"], lw=LINE, label="oracle")
        axes.plot(costs, random, "--", color=palette["muted"], lw=LINE, label="random")
        if default not in (None, chosen):
            axes.plot(costs, last.cell(str(default), rule).accuracy, color=palette["second"], lw=LINE, label=default)
        cell = last.cell(chosen, rule)
        axes.fill_between(costs, cell.low, cell.high, color=palette["best"], alpha=0.16, lw=0)
        if last is not full:
            before: Cell = full.cell(chosen, rule)
            axes.plot(costs, before.accuracy, "-.", color=palette["best"], lw=LINE, label=f"{chosen}, no early abort")
        axes.plot(costs, cell.accuracy, color=palette["best"], lw=WIDE_LINE, label=f"{chosen}, 95% band")
        ends = [evaluation.small_accuracy, evaluation.large_accuracy]
        axes.plot([costs[0], costs[-1]], ends, "o", color=palette["ink"], ms=5, clip_on=False, zorder=5)
        for named, at, end, offset, side in (("small", 0, 0, (8, -4), "left"), ("large", -1, 1, (-2, 9), "right")):
            axes.annotate(
                named, (costs[at], ends[end]), offset, textcoords="offset points", ha=side, color=palette["ink"],
                fontsize=9.0,
            )  # fmt: skip
        _percent(axes, x="cost, relative to always-large", y="accuracy")
        _legend(axes, palette, columns=1 if len(chosen) > 16 else 2)

    early = ", unsure answers aborted early" if last.early_abort else ""
    auc = last.cell(chosen, rule).auc
    return Picture(
        f"{name}-cost",
        f"Accuracy against cost: {last.model.label}{early}",
        f"Accuracy from {evaluation.small_accuracy:.1%} at the small model's cost to {evaluation.large_accuracy:.1%} at"
        f" the large one's, counted with {cost_in_words(last.model)}. {chosen} with {rule} has a normalised AUC of"
        f" {auc:.4f}, random deferral {last.random_auc:.4f}, the oracle {last.oracle_auc:.4f}.",
        draw,
        height=4.2,
    )


def _deferral(evaluation: Evaluation, run: str) -> Picture:
    chosen, default = score_of(evaluation), default_of(evaluation)

    def draw(figure: Figure, palette: Palette) -> None:
        axes = figure.add_subplot()
        by_score = {view.score: np.array(view.deferral) for view in evaluation.views}
        shares = np.linspace(0.0, 1.0, len(by_score[chosen]))
        for score, curve in by_score.items():
            if score not in (chosen, default):
                axes.plot(shares, curve, color=palette["faint"], lw=THIN_LINE, label=OTHERS)
        ends = [evaluation.small_accuracy, evaluation.large_accuracy]
        axes.plot([0.0, 1.0], ends, "--", color=palette["muted"], lw=LINE, label="random")
        if default not in (None, chosen):
            axes.plot(shares, by_score[str(default)], color=palette["second"], lw=LINE, label=default)
        axes.plot(shares, by_score[chosen], color=palette["best"], lw=WIDE_LINE, label=chosen)
        _percent(axes, x="share deferred, the least sure first", y="accuracy")
        _legend(axes, palette, columns=1 if len(chosen) > 16 else 2)

    best = max(next(view for view in evaluation.views if view.score == chosen).deferral)
    return Picture(
        f"{run}-deferral",
        "Accuracy against the share deferred",
        f"Deferring the least sure answers first, by {chosen}, accuracy goes from {evaluation.small_accuracy:.1%} to"
        f" {evaluation.large_accuracy:.1%}, at best {best:.1%}. Costs play no part here.",
        draw,
        height=3.8,
    )


def _calibration(view: View, run: str) -> Picture:
    def draw(figure: Figure, palette: Palette) -> None:
        axes = figure.add_subplot()
        places = [each.place for each in view.calibration]
        right = np.array([each.right for each in view.calibration])
        low = right - [each.interval.low for each in view.calibration]
        high = np.array([each.interval.high for each in view.calibration]) - right
        axes.plot([0.0, 1.0], [0.0, 1.0], "--", color=palette["muted"], lw=LINE, label="right as often as it says")
        isotonic = [each.isotonic for each in view.calibration]
        axes.step(places, isotonic, where="mid", color=palette["second"], lw=LINE, label="isotonic")
        axes.errorbar(
            places, right, (np.maximum(0.0, low), np.maximum(0.0, high)), fmt="o", ms=4.5, lw=LINE,
            color=palette["best"], label="right, 95% interval",
        )  # fmt: skip
        axes.set_xlim(-0.02, 1.02)
        _percent(axes, x=_score_axis(view.score), y="small answers right", percent_x=False)
        axes.set_ylim(-0.02, 1.02)
        _legend(axes, palette, columns=1)

    first, last = view.calibration[0], view.calibration[-1]
    return Picture(
        f"{run}-calibration",
        f"Calibration of {view.score}",
        f"Of the least sure twelfth of the answers {first.right:.0%} are right, of the surest {last.right:.0%}.",
        draw,
        height=3.9,
    )


def _histogram(view: View, run: str) -> Picture:
    def draw(figure: Figure, palette: Palette) -> None:
        axes = figure.add_subplot()
        edges = np.linspace(0.0, 1.0, BARS + 1)
        width = 0.86 / BARS
        middles = (edges[1:] + edges[:-1]) / 2.0
        axes.bar(middles, view.right, width, color=palette["right"], label="right")
        axes.bar(middles, view.wrong, width, bottom=view.right, color=palette["wrong"], label="wrong", alpha=0.85)
        axes.set_xlabel(_score_axis(view.score))
        axes.set_ylabel("small answers")
        axes.set_xlim(-0.02, 1.02)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        _legend(axes, palette, columns=2)

    auroc = "" if view.auroc is None else f" A right answer scores above a wrong one in {view.auroc:.1%} of the pairs."
    return Picture(
        f"{run}-histogram",
        f"How sure the small model is: {view.score}",
        f"{sum(view.right):,} right and {sum(view.wrong):,} wrong answers by their score.{auroc}",
        draw,
        height=3.8,
    )


def _score_axis(score: str) -> str:
    """The score's name, and that it is mapped when it has another range."""
    scale = SCORES[score.partition(":")[0]].scale
    return score if (scale.low, scale.high) == (0.0, 1.0) else f"{score}, mapped to [0, 1]"


def _percent(axes: Axes, *, x: str, y: str, percent_x: bool = True) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.yaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.6g}%")
    if percent_x:
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _legend(axes: Axes, palette: Palette, *, columns: int) -> None:
    """Under the axes, aligned with their left end, the most important first, each label once."""
    handles, labels = axes.get_legend_handles_labels()
    by_label = dict(zip(labels[::-1], handles[::-1], strict=True))
    axes.legend(
        list(by_label.values()), list(by_label), loc="upper left", bbox_to_anchor=(-0.02, -0.17), ncols=columns,
        labelcolor=palette["ink"], borderaxespad=0.0, columnspacing=1.4,
    )  # fmt: skip
