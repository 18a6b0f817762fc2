"""`make bench`: what the router costs against a direct call of the same model, as ratios measured in one run."""

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.router_overhead import TOKENS, Overhead, Round, measure

LOADS = {"burst": f"scripted:tokens={TOKENS}", "paced": f"scripted:tokens={TOKENS},delay_ms=5"}
REQUESTS = {"burst": 40, "paced": 15}
"""Requests per round, per concurrent caller."""


async def run(concurrencies: list[int], rounds: int) -> list[Overhead]:
    measured = []
    with tempfile.TemporaryDirectory() as directory:
        for load, model in LOADS.items():
            for concurrency in concurrencies:
                overhead = await measure(
                    load,
                    model,
                    concurrency=concurrency,
                    requests=REQUESTS[load] * concurrency,
                    rounds=rounds,
                    state_dir=Path(directory),
                    say=lambda line: print(line, file=sys.stderr),  # noqa: T201
                )
                measured.append(overhead)
    return measured


def table(measured: list[Overhead]) -> Table:
    shown = Table(title=f"the router against a direct call, answers of {TOKENS} tokens, medians of rounds", box=None)
    shown.add_column("load, concurrency", no_wrap=True)
    first = "first token\n"
    for heading in ("direct\nreq/s", "router\nreq/s", "ratio", f"{first}direct ms", f"{first}router ms", "added\nms"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for each in measured:
        shown.add_row(
            f"{each.load}, {each.concurrency}",
            f"{each.direct.requests_per_second:.0f}",
            f"{each.router.requests_per_second:.0f}",
            f"{each.throughput_ratio:.2f}",
            f"{each.direct.first_token_ms_p50:.2f}",
            f"{each.router.first_token_ms_p50:.2f}",
            f"{each.added_first_token_ms:.2f}",
        )
    return shown


def as_json(measured: list[Overhead]) -> dict[str, object]:
    def figures(each: Round) -> dict[str, float]:
        return {name: getattr(each, name) for name in Round.__slots__}

    return {
        "tokens": TOKENS,
        "measured": [
            {
                "load": each.load,
                "concurrency": each.concurrency,
                "rounds": each.rounds,
                "direct": figures(each.direct),
                "router": figures(each.router),
                "throughput_ratio": each.throughput_ratio,
                "added_first_token_ms": each.added_first_token_ms,
            }
            for each in measured
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__, epilog="Example: python -m tests.bench --concurrency 1 16"
    )
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 16], metavar="N")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    given = parser.parse_args()
    measured = asyncio.run(run(given.concurrency, given.rounds))
    if given.json:
        print(json.dumps(as_json(measured)))  # noqa: T201
    else:
        Console().print(table(measured))


if __name__ == "__main__":
    main()
