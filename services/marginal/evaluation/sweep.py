"""The paper's protocol: every score under every rule over all budgets, against random deferral and the oracle.

Budgets lie evenly from what the small tier costs (c1) to what the large one does (c2); at the last the large tier
answers everything. Accuracy at a budget is the mean over orders; its area over the budgets, divided by c2 - c1, is the
normalised AUC. Rows held out come before the stream, in the order of the run; `fixed` takes its thresholds from them
and the controllers their start. Without any, `fixed` is chosen on the rows it is judged by, which flatters it. Source:
guillemram97/margin_llms, plots.py and utils.py.

The budget rule is judged at the budget it was given and keeps to; the others at what they really spent.
"""

from collections.abc import Callable, Sequence

import numpy as np

from marginal.errors import ConfigurationError
from marginal.evaluation import lanes
from marginal.evaluation.cells import Bench
from marginal.evaluation.costs import Costs, cost_models, price
from marginal.evaluation.protocol import (
    HELD_OUT,
    LEAST_ROWS,
    LEAST_TO_HOLD_OUT,
    Evaluation,
    Protocol,
)
from marginal.evaluation.replay import Answers, Replayed, ScoreChoice, answers, replay
from marginal.evaluation.resampling import Resamples, interval
from marginal.evaluation.results import Row, Run
from marginal.evaluation.views import area, view

Tell = Callable[[str], None]
"""Takes what is being worked on, once per step."""


def steps(protocol: Protocol) -> int:
    """About how many steps an evaluation tells of."""
    return len(protocol.scores) * (1 + 2 * len(protocol.rules) * len(protocol.ratios))


def sweep(run: Run, protocol: Protocol, *, tell: Tell = lambda _: None) -> Evaluation:
    """Runs the protocol over a run. Raises ConfigurationError when there are too few rows or nothing to weigh."""
    judged = answers(run)
    held = _held_out(run, len(judged.rows), protocol)
    order = np.stack(
        [held + np.random.RandomState(seed).permutation(len(judged.rows) - held) for seed in range(protocol.orders)]
    )
    models = cost_models(judged.rows, protocol.ratios)
    if not models:
        raise ConfigurationError(f"{run.name}: records neither costs nor seconds, give a --cost-ratio")
    replayed, alike = _distinct(judged.rows, protocol.scores, tell)
    small, large = judged.small[held:], judged.large[held:]
    resamples = Resamples(len(small), resamples=protocol.resamples)
    tiers = resamples.means(np.stack([small, large], axis=1))
    bench = Bench(judged, protocol, order, held, resamples, tiers, tell)
    share = 1.0 if protocol.aborted_share is None else protocol.aborted_share
    modelled = [price(judged.rows, model, aborted_share=share) for model in models]
    priced = [variant for costs in modelled for variant in _variants(costs)]
    return Evaluation(
        name=run.name,
        header=run.header,
        protocol=protocol,
        rows=len(judged.rows) - held,
        held_out=held,
        left_out=judged.left_out,
        small_accuracy=float(small.mean()),
        large_accuracy=float(large.mean()),
        gap_interval=interval(tiers[:, 1] - tiers[:, 0]),
        agreement_oracle=float(np.maximum(small, large).mean()),
        chosen=_best(replayed, judged, held),
        alike=alike,
        views=tuple(view(one, judged, slice(held, None)) for one in replayed),
        settings=tuple(bench.settings([lanes.streams(one, order) for one in replayed], priced)),
    )


def _variants(costs: Costs) -> list[Costs]:
    """Without early abort, and with it where it would save anything."""
    return [costs.without_abort, costs] if costs.saves else [costs]


def _held_out(run: Run, rows: int, protocol: Protocol) -> int:
    held = protocol.holdout
    if held is None:
        held = HELD_OUT if rows >= LEAST_TO_HOLD_OUT else 0
    if rows - held < LEAST_ROWS:
        raise ConfigurationError(
            f"{run.name}: {rows} rows that can be judged, {held} of them held out, leave less than {LEAST_ROWS}:"
            " record more, or hold out less with --holdout"
        )
    return held


def _distinct(
    rows: Sequence[Row], choices: Sequence[ScoreChoice], tell: Tell
) -> tuple[list[Replayed], dict[str, tuple[str, ...]]]:
    """Replays every score, and sorts out those that say the same: on answers of one token most margins do."""
    kept: list[Replayed] = []
    alike: dict[str, tuple[str, ...]] = {}
    for choice in dict.fromkeys(choices):
        tell(choice.label)
        replayed = replay(rows, choice)
        if not replayed.scored.any():
            continue
        same = next((one for one in kept if one.same_as(replayed)), None)
        if same is None:
            kept.append(replayed)
            alike[choice.label] = ()
        else:
            alike[same.choice.label] += (choice.label,)
    if not kept:
        raise ConfigurationError("no score has evidence in any row: was the run recorded with alternatives?")
    return kept, alike


def _best(replayed: Sequence[Replayed], judged: Answers, held: int) -> str | None:
    """The score under which deferring the least sure helps most on the held-out rows."""
    if not held:
        return None
    return max(replayed, key=lambda one: area(one, judged, slice(0, held))).choice.label
