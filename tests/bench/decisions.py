"""`python -m tests.bench.decisions`: the paper's rule against its transcription, and what feeding a token costs.

Parity counts differing decisions over random streams, and over runs when some are named: at 40 budgets and 3 orders.
"""

import argparse
import json
import math
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from marginal.evaluation.runs import read_run
from marginal.policy.deferral import Deferral
from marginal.policy.horizon import Horizon, Route
from marginal.policy.scores import SCORES, judge
from marginal.tokens import Alternative, EarlyStop, Token
from unit.policy import published

BUDGETS, ORDERS = 40, 3
TOKENS, ROUNDS, ALTERNATIVES = 64, 200, 5
MODES = ("fixed", "time", "tokens")


def decided(
    margins: Sequence[float], *, budget: float, cost1: float, cost2: float, costs1: list[float], costs2: list[float]
) -> list[str]:
    """Who answers each query, by `policy.horizon`."""
    horizon = Horizon(budget, small_cost=cost1, large_cost=cost2, requests=len(margins))
    answered = []
    for margin, small, large in zip(margins, costs1, costs2, strict=True):
        route = horizon.route
        if route is Route.EXHAUSTED:
            answered.append(published.EXHAUSTED)
        elif route is Route.LARGE_DIRECTLY:
            answered.append(published.DIRECT)
            horizon.pay(large)
        elif horizon.score(margin, cost=small):
            answered.append(published.LARGE)
            horizon.pay(large)
        else:
            answered.append(published.SMALL)
        horizon.passed()
    return answered


def differing(margins: Sequence[float], **stream: float | list[float]) -> int:
    """Decisions of a stream that are not the published ones."""
    expected, _ = published.cascade(margins, **stream)  # type: ignore[arg-type]
    return sum(ours != theirs for ours, theirs in zip(decided(margins, **stream), expected, strict=True))  # type: ignore[arg-type]


def random_stream(draw: random.Random) -> tuple[list[float], dict[str, float | list[float]]]:
    """Margins, a budget and costs: fixed, or each query's own, as by time or by tokens."""
    queries, cost1 = draw.randint(1, 150), draw.uniform(0.1, 2.0)
    cost2 = cost1 * draw.uniform(1.0, 50.0)
    margins = [draw.choice((draw.random(), round(draw.random(), 1))) for _ in range(queries)]
    own = draw.choice(MODES) != "fixed"
    return margins, {
        "budget": cost1 + draw.uniform(0.0, 1.1) * (cost2 - cost1),
        "cost1": cost1,
        "cost2": cost2,
        "costs1": [cost1 * (draw.uniform(0.2, 3.0) if own else 1.0) for _ in margins],
        "costs2": [cost2 * (draw.uniform(0.2, 3.0) if own else 1.0) for _ in margins],
    }


def of_random_streams(streams: int, console: Console) -> dict[str, object]:
    draw, decisions, different = random.Random(2024), 0, 0  # noqa: S311 (a repeatable stream)
    for _ in track(range(streams), "random streams", console=console, disable=not console.is_terminal, transient=True):
        margins, stream = random_stream(draw)
        decisions += len(margins)
        different += differing(margins, **stream)
    return {"streams": f"{streams:,} random", "decisions": decisions, "differing": different}


def of_run(path: Path, ratio: float, console: Console) -> dict[str, object]:
    run = read_run(path)
    margins = [judge("first_token_margin", row.tokens, choices=row.choices) for row in run.rows]
    scored = [margin for margin in margins if margin is not None]
    decisions = different = 0
    sweeps = [(share, seed) for share in range(BUDGETS) for seed in range(ORDERS)]
    for share, seed in track(sweeps, run.name, console=console, disable=not console.is_terminal, transient=True):
        order = [scored[index] for index in np.random.RandomState(seed).permutation(len(scored))]
        budget = 1.0 + share / (BUDGETS - 1) * (ratio - 1.0)
        ones, ratios = [1.0] * len(order), [ratio] * len(order)
        decisions += len(order)
        different += differing(order, budget=budget, cost1=1.0, cost2=ratio, costs1=ones, costs2=ratios)
    return {"streams": f"{run.name} at c = {ratio:g}", "decisions": decisions, "differing": different}


def some_tokens() -> Iterator[Token]:
    draw = random.Random(1)  # noqa: S311 (repeatable tokens)
    for _ in range(TOKENS):
        weights = sorted((draw.random() + 0.1 for _ in range(ALTERNATIVES)), reverse=True)
        shares = [weight / sum(weights) / 1.1 for weight in weights]
        listed = tuple(Alternative(chr(97 + index) * 3, math.log(share)) for index, share in enumerate(shares))
        yield Token(listed[0].text, listed[0].logprob, listed)


def feeding() -> list[dict[str, object]]:
    """Median microseconds of `Deferral.feed` of a token with 5 alternatives: of the first, and of any."""
    tokens = list(some_tokens())
    measured = []
    for name in SCORES:
        rule, first, later = EarlyStop(name, TOKENS + 1, SCORES[name].scale.low, exact=True), [], []
        for _ in range(ROUNDS):
            deferral = Deferral(rule)
            for position, token in enumerate(tokens):
                started = time.perf_counter_ns()
                deferral.feed(token)
                (later if position else first).append(time.perf_counter_ns() - started)
        measured.append(
            {
                "score": name,
                "first_token_microseconds": statistics.median(first) / 1_000,
                "token_microseconds": statistics.median([*first, *later]) / 1_000,
            }
        )
    return measured


def shown(cell: object) -> str:
    return f"{cell:.2f}" if isinstance(cell, float) else f"{cell:,}" if isinstance(cell, int) else str(cell)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.decisions",
        description=__doc__,
        epilog="Example: python -m tests.bench.decisions --streams 10000 run.jsonl.gz",
    )
    parser.add_argument("runs", type=Path, nargs="*", help="runs to compare decisions on")
    parser.add_argument("--cost-ratio", type=float, default=5.0, metavar="C", help="large over small cost, for runs")
    parser.add_argument("--streams", type=int, default=10_000, metavar="N")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the tables")
    given = parser.parse_args()
    progress, console = Console(stderr=True), Console()
    parity = [
        of_random_streams(given.streams, progress),
        *(of_run(path, given.cost_ratio, progress) for path in given.runs),
    ]
    fed = feeding()
    if given.json:
        print(json.dumps({"parity": parity, "feed": fed}))  # noqa: T201
    else:
        for title, rows in (("decisions against the published rule", parity), ("Deferral.feed", fed)):
            console.print(f"[bold]{title}")
            table = Table(*rows[0], box=None)
            for row in rows:
                table.add_row(*map(shown, row.values()))
            console.print(table)
    sys.exit(1 if any(row["differing"] for row in parity) else 0)


if __name__ == "__main__":
    main()
