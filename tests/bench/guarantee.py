"""`python -m tests.bench.guarantee RUN...`: how often a certified threshold breaks its promise, over many splits.

A split draws labels from a run; the promise is about the population they come from, which is the run. On the rows left
over the same threshold is judged with the noise of that sample on top. Plug-in is the threshold without a certificate.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from marginal.evaluation.guarantee import PLACES, certify
from marginal.evaluation.runs import read_run
from marginal.policy.scores import judge

SCORE = "first_token_margin"


def of_run(path: Path, labels: int, splits: int, epsilon: float, delta: float, console: Console) -> dict[str, object]:
    run = read_run(path)
    scores = np.array([judge(SCORE, row.tokens, choices=row.choices) for row in run.rows], float)
    small, large = (np.array([getattr(row, tier).correct for row in run.rows], int) for tier in ("small", "large"))
    loss, seen = large - small, []
    for seed in track(
        range(splits), f"{run.name}, {labels}", console=console, disable=not console.is_terminal, transient=True
    ):
        order = np.random.RandomState(seed).permutation(len(scores))
        drawn, rest = order[:labels], order[labels:]
        found = certify(scores[drawn], small[drawn], large[drawn], epsilon=epsilon, delta=delta).threshold
        risks = [(loss[drawn] * (scores[drawn] >= place)).mean() for place in PLACES]
        harmless = next((count for count, risk in enumerate(risks) if risk > epsilon), len(risks))
        plugged = PLACES[harmless - 1]
        kept = scores >= (np.inf if found is None else found)
        seen.append(
            (kept.mean(), (loss * kept).mean(), (loss[rest] * kept[rest]).mean(), (loss * (scores >= plugged)).mean())
        )
    share, whole, left, plug = np.array(seen).T
    return {
        "run": run.name,
        "labels": labels,
        "kept": float(share.mean()),
        "violations": float((whole > epsilon).mean()),
        "violations_left_over": float((left > epsilon).mean()),
        "violations_plug_in": float((plug > epsilon).mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.guarantee",
        description=__doc__,
        epilog="Example: python -m tests.bench.guarantee run.jsonl.gz --labels 500 1000 --splits 200",
    )
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--labels", type=int, nargs="+", default=[500, 1000, 4000], metavar="N")
    parser.add_argument("--splits", type=int, default=200, metavar="N")
    parser.add_argument("--epsilon", type=float, default=0.05)
    parser.add_argument("--delta", type=float, default=0.1)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    given = parser.parse_args()
    progress = Console(stderr=True)
    rows = [
        of_run(path, labels, given.splits, given.epsilon, given.delta, progress)
        for path in given.runs
        for labels in given.labels
    ]
    if given.json:
        print(json.dumps({"epsilon": given.epsilon, "delta": given.delta, "splits": given.splits, "rows": rows}))  # noqa: T201
        return
    table = Table("run", "labels", "kept", "violations", "on rows left over", "plug-in", box=None)
    for row in rows:
        table.add_row(*(f"{cell:.1%}" if isinstance(cell, float) else str(cell) for cell in row.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
