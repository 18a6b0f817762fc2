"""`python -m tests.bench.mixed`: requests of all kinds at real services, and what `marginal costs reconcile` says then.

Callers leave after some messages or at any moment, have too little time, insist on a tier, ask for a shadow; of both
tiers one replica in three fails in the midst of each answer. Ends with 1 unless records and logs differ by nothing.
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from marginal.entrypoints.processes import free_addresses
from marginal.v1 import router_pb2
from tests.engines.callers import Caller, Request, asking, taken
from tests.engines.services import Service

SMALL = "scripted:tokens=12,delay_ms=4,unsure=0.35"
LARGE = "scripted:tokens=14,delay_ms=5"
FAILS = "fail_at=9"
WAIT_SECONDS = 20.0
HASTY_SECONDS = (0.01, 0.12)
LEAVES_SECONDS = (0.0, 0.12)
LEAVES_AFTER = 8
LEFT = "left"

KINDS = {"plain": 4.0, "small": 1.0, "large": 1.0, "shadow": 1.0, "leaving": 2.0, "cancelling": 3.0, "hasty": 1.5}
"""How often each kind of request is made."""

MODES = {
    "small": router_pb2.MODE_SMALL_ONLY,
    "large": router_pb2.MODE_LARGE_ONLY,
    "shadow": router_pb2.MODE_SHADOW,
}

POLICIES = """
default = "default"
currency = "USD"

[prices.small]
input_per_million_tokens = 0.05
output_per_million_tokens = 0.20
per_call = 0.000001

[prices.large]
input_per_million_tokens = 0.50
output_per_million_tokens = 2.00
per_call = 0.000003

[policies.default]
version = "1"
score = "min_margin"
window = 8
threshold = { rule = "fixed", value = 0.25 }
degrade = { retry_seconds = 0.01 }
shadow = { share = 1.0, concurrency = 8, per_hour = 1000.0 }
"""


@dataclass
class Mixed:
    """Callers that make so many requests of all kinds between them, and how each kind ended."""

    target: str
    lot: random.Random
    left: int
    ended: dict[str, Counter[str]] = field(default_factory=lambda: {kind: Counter() for kind in KINDS})

    async def run(self, callers: int) -> None:
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
            for _ in range(callers):
                tasks.create_task(self._caller(await stack.enter_async_context(Caller(self.target))))

    async def _caller(self, caller: Caller) -> None:
        while self.left > 0:
            self.left -= 1
            kind = self.lot.choices(tuple(KINDS), tuple(KINDS.values()))[0]
            mode = MODES.get(kind, router_pb2.MODE_AUTO)
            request = asking(f"question {self.left}", mode=mode)
            self.ended[kind][await self._asked(caller, kind, request)] += 1

    async def _asked(self, caller: Caller, kind: str, request: Request) -> str:
        if kind == "leaving":
            await caller.call(request, timeout=WAIT_SECONDS, leaves_after=self.lot.randrange(LEAVES_AFTER))
            return LEFT
        if kind == "cancelling":
            with suppress(TimeoutError):
                async with asyncio.timeout(self.lot.uniform(*LEAVES_SECONDS)):
                    return (await taken(caller.begun(request))).status
            return LEFT
        seconds = self.lot.uniform(*HASTY_SECONDS) if kind == "hasty" else WAIT_SECONDS
        return (await caller.call(request, timeout=seconds)).status


async def asked(folder: Path, *, requests: int, callers: int, seed: int, small: str, large: str) -> Mixed:
    """Starts the services in `folder`, asks, and lets them drain."""
    policies = folder / "policies.toml"
    policies.write_text(POLICIES)
    tiers = {
        "small": [Service("small-model", folder, "--model", model) for model in _replicas(small)],
        "large": [Service("large-model", folder, "--model", model) for model in _replicas(large)],
    }
    targets = [word for tier, some in tiers.items() for word in (f"--{tier}", ",".join(one.target for one in some))]
    (admin,) = free_addresses("127.0.0.1", 1)
    kept = ("--policy-file", str(policies), "--journal", str(folder / "journal"), "--admin-listen", admin)
    router = Service("router", folder, *targets, *kept)
    services = (*tiers["small"], *tiers["large"], router)
    mixed = Mixed(router.target, random.Random(seed), requests)  # noqa: S311
    async with AsyncExitStack() as stack:
        for service in services:
            stack.enter_context(service).start()
        for service in services:
            await service.serving()
        await mixed.run(callers)
        await asyncio.to_thread(router.stop)
    return mixed


def _replicas(model: str) -> tuple[str, ...]:
    """Those of a tier: a scripted one has one that fails, an engine does not fail at command."""
    return (model, model, f"{model},{FAILS}") if model.startswith("scripted:") else (model,)


def reconciled(folder: Path) -> dict[str, Any]:
    """What `marginal costs reconcile` says."""
    command = (sys.executable, "-P", "-m", "marginal.entrypoints.cli", "costs", "reconcile", "--json")
    done = subprocess.run((*command, "--state-dir", str(folder)), capture_output=True, text=True, check=False)  # noqa: S603
    if not done.stdout:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def tables(mixed: Mixed, found: dict[str, Any]) -> tuple[Table, Table]:
    """How each kind of request ended, and both accounts."""
    kinds, accounts = (
        Table(box=None, title="requests by kind and end"),
        Table(box=None, title="records, logs, difference"),
    )
    for heading in ("kind", "requests", "ended"):
        kinds.add_column(heading)
    for kind, ended in mixed.ended.items():
        kinds.add_row(kind, f"{ended.total():,}", ", ".join(f"{count:,} {end}" for end, count in ended.most_common()))
    for heading in ("tier", "attempts", "generations", "tokens in", "tokens out", "nano-units"):
        accounts.add_column(heading, justify="right")
    for tier, account in found["tiers"].items():
        accounts.add_row(
            tier,
            f"{account['attempts']:,}",
            f"{account['generations']:,}",
            f"{account['recorded']['input_tokens']:,} ({account['input_difference']:+,})",
            f"{account['recorded']['output_tokens']:,} ({account['output_difference']:+,})",
            f"{account['charged_nanos']:,} ({account['nanos_difference']:+,})",
        )
    return kinds, accounts


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.mixed",
        description=__doc__,
        epilog="Example: python -m tests.bench.mixed --requests 5000 --callers 24 --json",
    )
    parser.add_argument("--requests", type=int, default=5_000)
    parser.add_argument("--callers", type=int, default=24, help="at a time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--small", default=SMALL, help="the model, e.g. home-small")
    parser.add_argument("--large", default=LARGE, help="the model, e.g. home-large")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="an empty directory for all that is written")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the tables")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        folder = given.keep or Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        how = {"requests": given.requests, "callers": given.callers, "seed": given.seed}
        mixed = asyncio.run(asked(folder, **how, small=given.small, large=given.large))
        found = reconciled(folder)
    if given.json:
        print(json.dumps({**how, "ended": mixed.ended, "reconciliation": found}))  # noqa: T201
    else:
        console = Console(width=140)
        for table in tables(mixed, found):
            console.print(table)
        difference, counted = found["nanos_difference"], found["counted"]
        console.print(
            f"{found['records']:,} records, difference {difference:,} nano-units; {counted:,} attempts estimated"
        )
    raise SystemExit(0 if found["balanced"] else 1)


if __name__ == "__main__":
    main()
