"""`marginal drift`: how threshold rules hold a budget when a run's requests come in constructed orders."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from marginal.entrypoints.cli_options import AsJson
from marginal.entrypoints.progress import counted
from marginal.entrypoints.wording import as_json, bulleted
from marginal.evaluation.drifting import RULES, SETTLING, SHUFFLED, Drift, Plan, drift, passages
from marginal.evaluation.replay import score_choice
from marginal.evaluation.runs import AUTO, read_run

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


@app.command(
    "drift",
    epilog="[bold]Examples[/]\n\n"
    "marginal drift run.jsonl.gz\n\n"
    "marginal drift run.jsonl.gz --cost-ratio 10 --budget 3 --budget 5 --seeds 20 --json",
)
def drift_command(
    run: Annotated[Path, typer.Argument(help="A run, see `marginal record`.")],
    budget: Annotated[
        list[float], typer.Option(help="Per request, in mean small answers; may be given several times.")
    ] = [3.0, 5.0],  # noqa: B006 (typer copies it)
    score: Annotated[str, typer.Option(help="NAME[:WINDOW[:QUANTILE]].")] = "first_token_margin",
    cost_ratio: Annotated[
        float | None, typer.Option(min=1.0, help="A large answer costs so many small ones.", show_default="run's costs")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Draws of every order.")] = 5,
    noise: Annotated[float, typer.Option(min=0.0, help="Added to the score, as a place in 0 to 1, in sorting.")] = 0.3,
    step: Annotated[float, typer.Option(min=0.0001, max=0.2, help="Of the controllers.")] = 0.02,
    format: Annotated[str, typer.Option(help="The run's format.")] = AUTO,  # noqa: A002 (as the option is called)
    json: AsJson = False,
) -> None:
    """Compare the rules with the paper's at equal spend: shuffled, from easy to hard, and from hard to easy."""
    plan = Plan(score_choice(score), tuple(dict.fromkeys(budget)), seeds, noise, step, cost_ratio)
    recorded = read_run(run, format=format)
    with counted(Console(stderr=True, highlight=False), total=passages(plan), verb="passed") as tell:
        found = drift(recorded, plan, tell=tell)
    console = Console(highlight=False)
    if json:
        console.out(as_json(_json(found, plan)), highlight=False)
    else:
        show(found, plan, console)


def show(found: Drift, plan: Plan, console: Console) -> None:
    """Writes the table and what it says."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("order, budget, rule", no_wrap=True)
    for heading in ("spent", "deferred", "furthest", "accuracy", "gain", "least"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in found.findings:
        first = one.rule == RULES[0]
        if first:
            table.add_row(Text(f"{one.order}, {one.budget:g}: target {one.target:.1%}", "bold"))
        table.add_row(
            f"  {one.rule}",
            f"{one.spend:.1%}",
            f"{one.share:.1%}",
            f"{100 * one.share_error:.1f}",
            f"{one.accuracy:.2%}",
            "" if first else f"{100 * one.gain:+.2f}",
            "" if first else f"{100 * one.least_gain:+.2f}",
        )
    console.print(table)
    console.print()
    console.print(bulleted([Text(remark) for remark in _remarks(found, plan)]))


def _remarks(found: Drift, plan: Plan) -> list[str]:
    draws = "one draw" if plan.seeds == 1 else f"the mean of {plan.seeds} draws"
    remarks = [
        f"{draws[0].upper()}{draws[1:]} of {found.requests:,} requests, {plan.choice.label}. Costs are"
        f" {found.cost_model.label}, a large answer {found.large_ratio:.3g} small ones; budgets are per request.",
        f"Deferred: after the first {min(SETTLING, found.requests // 2)} requests. Furthest: from the target, in any"
        " draw, in points.",
        "Gain: points of accuracy over `budget`, the paper's rule over all history with its reserve rules, given what"
        " the rule spent. Least: of any draw.",
        f"`fixed` is the target's quantile of {found.held_out:,} rows held out of all of the traffic, so it knows what"
        " is to come; the other rules start without a threshold.",
    ]
    if any(one.order != SHUFFLED for one in found.findings):
        remarks.append(f"The drift is constructed: sorted by the score and normal noise of {plan.noise:g}.")
    if found.left_out:
        remarks.append(f"{found.left_out:,} rows have no score or are not labelled, and are left out.")
    return remarks


def _json(found: Drift, plan: Plan) -> dict[str, object]:
    return {
        "score": plan.choice.label,
        "costs": found.cost_model.label,
        "large_ratio": found.large_ratio,
        "requests": found.requests,
        "held_out": found.held_out,
        "left_out": found.left_out,
        "seeds": plan.seeds,
        "noise": plan.noise,
        "step": plan.step,
        "findings": [asdict(finding) for finding in found.findings],
    }
