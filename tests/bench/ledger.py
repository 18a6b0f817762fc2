"""`python -m tests.bench.ledger`: what holding and settling a request's money costs, in memory and in Valkey.

Each pair is one reserve, with a budget on every window and an idempotency key, and one settle. The Valkey is a process
of its own on the loopback, without an append-only file; its `empty` pair is two scripts that do nothing.
"""

import argparse
import asyncio
import itertools
import json
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator

from rich.console import Console
from rich.table import Table

from engines.valkey import ValkeyProcess
from marginal.ledger.hold_book import HoldBook
from marginal.ledger.memory import MemoryStore
from marginal.ledger.ports import Settled, Store
from marginal.ledger.valkey import ValkeyStore
from marginal.ledger.valkey_link import open_client
from marginal.routing.holds import MOST_NANOS, Ask, Budget, Window

LEASE_SECONDS = 30.0
PATIENT_SECONDS = 5.0
WARM_UP = 200
BUDGET = Budget(dict.fromkeys(Window, MOST_NANOS))

Pair = Callable[[Ask], Awaitable[None]]


def asks() -> Iterator[Ask]:
    for number in itertools.count():
        name = f"{number:032x}"
        yield Ask(name, f"tenant-{number % 10}", 1_000, 50_000, BUDGET, key=name, fingerprint=name)


def in_book(book: HoldBook) -> Pair:
    async def pair(ask: Ask) -> None:
        grant = book.reserve(ask, time.time(), lease_seconds=LEASE_SECONDS)
        book.settle(Settled(ask.request_id, ask.tenant, 700, grant.admitted_at, key=ask.key), time.time())

    return pair


def in_store(store: Store) -> Pair:
    async def pair(ask: Ask) -> None:
        grant = await store.reserve(ask, lease_seconds=LEASE_SECONDS)
        await store.settle([Settled(ask.request_id, ask.tenant, 700, grant.admitted_at, key=ask.key)])

    return pair


async def measured(name: str, pairs: int, pair: Pair) -> dict[str, object]:
    """Microseconds of one pair, of one at a time: waited for, and this process's own."""
    waits, given = [], asks()
    for ask in itertools.islice(given, WARM_UP):
        await pair(ask)
    own = time.process_time_ns()
    for ask in itertools.islice(given, pairs):
        started = time.perf_counter_ns()
        await pair(ask)
        waits.append((time.perf_counter_ns() - started) / 1_000)
    cpu = (time.process_time_ns() - own) / 1_000 / pairs
    cuts = statistics.quantiles(waits, n=100)
    return {
        "store": name,
        "pairs": pairs,
        "p50_microseconds": cuts[49],
        "p99_microseconds": cuts[98],
        "cpu_microseconds": cpu,
    }


async def of_all(pairs: int) -> list[dict[str, object]]:
    memory = in_store(MemoryStore(time.time))
    rows = [await measured("hold book", pairs * 10, in_book(HoldBook())), await measured("memory", pairs * 10, memory)]
    with ValkeyProcess() as server:
        client = open_client(server.url, timeout_seconds=PATIENT_SECONDS)
        async with ValkeyStore(client, timeout_seconds=PATIENT_SECONDS) as store:
            store.join(await store.found("bench"))

            async def nothing(_: Ask) -> None:
                for _ in range(2):
                    await client.execute_command("EVAL", "return 1", 0)  # type: ignore[no-untyped-call]

            rows.append(await measured("valkey, empty", pairs, nothing))
            rows.append(await measured("valkey", pairs, in_store(store)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.ledger",
        description=__doc__,
        epilog="Example: python -m tests.bench.ledger --pairs 5000 --json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--pairs", type=int, default=5_000, metavar="N", help="ten times as many in memory")
    parser.add_argument("--json", action="store_true", help="one JSON array instead of the table")
    given = parser.parse_args()
    rows = asyncio.run(of_all(given.pairs))
    if given.json:
        print(json.dumps(rows))  # noqa: T201
        return
    table = Table(*rows[0], box=None)
    for row in rows:
        table.add_row(*(f"{cell:.1f}" if isinstance(cell, float) else f"{cell}" for cell in row.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
