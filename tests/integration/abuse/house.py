"""A router in a process of its own, its callers' keys, and its books."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engines import callers
from engines.callers import Caller, Request
from engines.valkey import ValkeyProcess
from integration.abuse.unruly import Tiers
from marginal.entrypoints.processes import Program, Running, free_addresses, start
from marginal.ledger.conservation import differences, not_once
from marginal.ledger.journal_lines import settled_from
from marginal.ledger.reading import read_journals
from marginal.ledger.valkey import ValkeyStore
from marginal.ledger.valkey_link import open_client
from marginal.settings.keys_file import minted, written_keys
from marginal.transport.router_client import wait_until_serving
from marginal.transport.router_servicer import SERVICE

SMALL_NANOS, LARGE_NANOS = 104_000, 1_000_040_000
"""What an answer of four tokens costs; held for it is the same, if no more than four are asked for."""

POLICIES = """
default = "plain"
currency = "USD"

[prices.small]
per_call = 0.0001
input_per_million_tokens = 0
output_per_million_tokens = 1

[prices.large]
per_call = 1
input_per_million_tokens = 0
output_per_million_tokens = 10

[policies.plain]
version = "1"
score = "min_margin"
window = 2
threshold = { rule = "fixed", value = 0.5 }

[policies.learning]
version = "1"
score = "min_margin"
window = 2
threshold = { rule = "target_rate", rate = 0.3, start = 0.5, step = 0.02 }
"""

TENANTS = """
[tenants.poor.budget]
per_day = 0.5

[tenants.broke.budget]
per_hour = 0.00001

[tenants.edge.budget]
per_day = 1.0101

[tenants.hasty]
per_second = 0.5

[tenants.narrow]
concurrency = 1

[tenants.restricted]
policies = ["learning"]

[tenants.greedy]
deferral_share = 0.1

[tenants.grounded]
deferral_share = 0.0
"""

CALLERS = (
    *("search", "ads", "poor", "broke", "edge", "hasty", "narrow", "restricted", "greedy", "grounded"),
    *("calm", "calm-undisturbed", "calmer", "calmer-undisturbed", "crowd"),
)


def asking(prompt: str = "a question", *, max_tokens: int = 4, **others: Any) -> Request:
    """A request like any other."""
    return callers.asking(prompt, max_tokens=max_tokens, **others)


@dataclass
class House:
    """A running router: its tiers, its callers' keys, and everything that it wrote."""

    running: Running
    directory: Path
    keys: Mapping[str, str]
    tiers: Tiers
    valkey: ValkeyProcess | None
    _callers: dict[str, Caller] = field(default_factory=dict)

    @property
    def target(self) -> str:
        return self.running.program.target

    @property
    def journal(self) -> Path:
        return self.directory / "journal"

    def caller(self, tenant: str = "search") -> Caller:
        """Who calls with the tenant's key; "" has none."""
        if tenant not in self._callers:
            self._callers[tenant] = Caller(self.target, key=self.keys.get(tenant, ""))
        return self._callers[tenant]

    async def closed(self) -> None:
        for caller in self._callers.values():
            await caller.close()

    def admitted(self) -> dict[str, Mapping[str, Any]]:
        """The journal's lines of requests that were let in, by their ids."""
        return {line["request_id"]: line for line in self._lines("admitted")}

    def record(self, request_id: str) -> Mapping[str, Any]:
        """The final record of a request."""
        records = read_journals([self.journal]).final_records()
        return next(line for line in records if line["request_id"] == request_id)

    def spent(self, tenant: str) -> dict[str, int]:
        """What each of the tenant's requests cost, in nano-units, by its id."""
        records = read_journals([self.journal]).final_records()
        return {line["request_id"]: line["total_nanos"] for line in records if line["tenant"] == tenant}

    async def settled(self) -> None:
        """Waits until nothing is open; then the books must add up, request by request and window by window."""
        await until(lambda: not read_journals([self.journal]).unfinished)
        recorded = [line["request_id"] for line in self._lines("cost_record") if not line["open"]]
        assert not_once(self.admitted(), recorded) == {}
        if self.valkey is not None:
            await self._conserved(self.valkey)

    async def _conserved(self, valkey: ValkeyProcess) -> None:
        async with ValkeyStore(open_client(valkey.url, timeout_seconds=30.0), timeout_seconds=30.0) as store:
            records = [settled_from(line) for line in read_journals([self.journal]).final_records()]
            for _ in range(200):
                balances = await store.balances()
                if not any(balance.held_nanos for balance in balances):
                    break
                await asyncio.sleep(0.02)
        assert [balance for balance in balances if balance.held_nanos] == []
        assert differences(records, (), balances) == []

    def _lines(self, event: str) -> list[dict[str, Any]]:
        lines = (json.loads(line) for path in self.journal.glob("*.jsonl") for line in path.read_bytes().splitlines())
        return [line for line in lines if line["event"] == event]


@asynccontextmanager
async def house(directory: Path, tiers: Tiers, valkey: ValkeyProcess | None) -> AsyncIterator[House]:
    """Starts a router with keys and limits, its budgets in `valkey` or in its own memory."""
    keys, arguments = settings(directory, POLICIES)
    store = ("--store", valkey.url) if valkey else ()
    async with router(directory, tiers.targets, (*arguments, *store), journal=directory / "journal") as running:
        built = House(running, directory, keys, tiers, valkey)
        yield built
        await built.closed()


def settings(directory: Path, policies: str) -> tuple[Mapping[str, str], tuple[str, ...]]:
    """Writes a router's files; gives every tenant's key, and the options that name the files."""
    owned = {tenant: minted(tenant, now=0.0) for tenant in CALLERS}
    for name, text in (
        ("keys.jsonl", written_keys(kept for _, kept in owned.values())),
        ("tenants.toml", TENANTS),
        ("policies.toml", policies),
    ):
        directory.joinpath(name).write_text(text)
    arguments = (
        *("--keys-file", str(directory / "keys.jsonl"), "--tenants-file", str(directory / "tenants.toml")),
        *("--policy-file", str(directory / "policies.toml"), "--state-file", str(directory / "state.json")),
    )
    return {tenant: key for tenant, (key, _) in owned.items()}, arguments


@asynccontextmanager
async def router(
    directory: Path, targets: tuple[str, str], arguments: tuple[str, ...], *, journal: Path
) -> AsyncIterator[Running]:
    """Starts a router that logs to `directory`, and waits until it serves."""
    own = ("--admin-listen", "", "--journal", str(journal), "--small", targets[0], "--large", targets[1])
    async with started("router", SERVICE, directory, (*own, *arguments)) as running:
        yield running


@asynccontextmanager
async def started(name: str, service: str, directory: Path, arguments: tuple[str, ...]) -> AsyncIterator[Running]:
    """Starts one of our programs on a free port and waits until it serves."""
    (address,) = free_addresses("127.0.0.1", 1)
    arguments = ("--listen", address, *arguments)
    running = await start(Program(name, f"marginal-{name}", service, address, address, "", arguments, directory))
    try:
        await wait_until_serving(address, service, timeout_seconds=60.0)
        yield running
    finally:
        await running.drain()


async def until(seen: Callable[[], object]) -> None:
    """Waits for what is to be seen soon."""
    for _ in range(1_000):
        if seen():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen within 10 s")
