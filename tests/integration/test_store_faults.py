"""Faults of a real store of budgets under load, by the numbers of the catalogue: F27 to F34.

Whatever happens to the store, nobody waits longer than one timeout of the driver, tenants get what their slices allow,
and the ledger agrees with the journal to the nano-unit when it is over. F32 is a failover on one machine: the new
primary comes up under the old one's address without the last writes. What needs several machines is not here: a network
that is cut in two, with clients on both sides.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import pytest

from engines.valkey import ValkeyProcess
from marginal.errors import LedgerUnavailable
from marginal.ledger.leased import AWAY, JOINED, LeasedStore
from marginal.ledger.ports import Settled
from marginal.ledger.retelling import EpochFile
from marginal.ledger.slices import FailureMode, Slices
from marginal.ledger.valkey import ValkeyStore
from marginal.ledger.valkey_link import open_client
from marginal.routing.holds import Ask, Budget, Scope, Window
from marginal.routing.records import DegradedReason
from marginal.transport.statuses import OUTSIDE

DURABLE = ("--appendonly", "yes", "--appendfsync", "everysec")
"""What survives the end of the process; the power stays on."""
TIMEOUT = 0.5
SLACK = 0.15
"""What two busy cores may add to a wait."""
WORKERS = 6
FULL, SMALL, REFUSED = "full", "small: budget unknown", "UNAVAILABLE BUDGET_STORE_DOWN"


def asks() -> Iterator[tuple[str, Ask]]:
    """Requests of three tenants: slices that allow the large tier, the small one only, and nothing."""
    kinds = cycle([("rich", 10**12, 10, 90), ("poor", 10**9, 10, 20_000_000), ("broke", 50_000, 600, 700)])
    for number, (tenant, limit, small, full) in enumerate(kinds):
        yield tenant, Ask(f"{tenant}-{number}-{time.time_ns()}", tenant, small, full, Budget({Window.MONTH: limit}))


@dataclass
class Seen:
    """What callers saw, and how long each waited for it, in seconds."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    waits: list[float] = field(default_factory=list)

    @property
    def slow(self) -> int:
        """How many waited for something that did not come."""
        return sum(wait > TIMEOUT / 2 for wait in self.waits)

    @property
    def p99(self) -> float:
        return sorted(self.waits)[len(self.waits) * 99 // 100]


class Lines:
    def __init__(self) -> None:
        self.events: list[str] = []

    def info(self, event: str, **fields: Any) -> None:  # noqa: ARG002
        self.events.append(event)

    def warning(self, event: str, **fields: Any) -> None:  # noqa: ARG002
        self.events.append(event)


class Scene:
    """One router at one store: its requests, its journal, and what it told."""

    def __init__(self, server: ValkeyProcess, *, timeout: float = TIMEOUT) -> None:
        self.server = server
        self.journal: dict[str, Settled] = {}
        self.lines = Lines()
        self.store = ValkeyStore(open_client(server.url, timeout_seconds=timeout), timeout_seconds=timeout)
        self.leased = LeasedStore(
            self.store,
            self.replay,
            EpochFile(None),
            slices=Slices(FailureMode.LEASE),
            log=self.lines,
            clock=time.time,
            ticks=time.monotonic,
            others_seconds=0.1,
            look_seconds=0.1,
        )
        self._asks = asks()

    def replay(self, since: float) -> Iterator[Sequence[Settled]]:
        yield [one for one in self.journal.values() if one.admitted_at >= since]

    async def request(self, seen: Seen) -> None:
        tenant, ask = next(self._asks)
        begun = time.monotonic()
        try:
            grant = await self.leased.reserve(ask, lease_seconds=60.0)
        except LedgerUnavailable as error:
            outside = OUTSIDE[type(error)]
            seen.outcomes[tenant, f"{outside.code.name} {outside.reason}"] += 1
            return
        finally:
            seen.waits.append(time.monotonic() - begun)
        assert (grant.scope is Scope.SMALL) == (grant.blocked is DegradedReason.BUDGET_UNKNOWN)
        seen.outcomes[tenant, FULL if grant.scope is Scope.FULL else SMALL] += 1
        await asyncio.sleep(0.002)
        begun = time.monotonic()
        self.journal[ask.request_id] = Settled(ask.request_id, tenant, 1 + len(seen.waits) % 7, grant.admitted_at)
        await self.leased.settle([self.journal[ask.request_id]])
        seen.waits.append(time.monotonic() - begun)

    @asynccontextmanager
    async def load(self) -> AsyncIterator[Seen]:
        """Requests one after the other, by several workers, until the block ends."""
        seen, over = Seen(), asyncio.Event()

        async def work() -> None:
            while not over.is_set():
                await self.request(seen)

        workers = [asyncio.create_task(work()) for _ in range(WORKERS)]
        try:
            yield seen
        finally:
            over.set()
            await asyncio.gather(*workers)

    async def difference(self) -> int:
        """The ledger less the journal, once everything was told: in nano-units, holds included."""
        await until(lambda: self.leased.joined)
        assert await self.leased.drained(10.0)
        balances = [one for one in await self.leased.balances() if one.window is Window.MONTH]
        assert [one.held_nanos for one in balances if one.held_nanos] == []
        return sum(one.committed_nanos for one in balances) - sum(one.nanos for one in self.journal.values())

    @asynccontextmanager
    async def running(self, *, joined: bool = True) -> AsyncIterator[None]:
        async with self.store, self.leased.running():
            if joined:
                await until(lambda: self.leased.joined)
                self.lines.events.clear()
            yield


async def until(seen: Callable[[], object]) -> None:
    for _ in range(2_000):
        if seen():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not happen within 10 s")


@asynccontextmanager
async def killed(server: ValkeyProcess) -> AsyncIterator[None]:
    await asyncio.to_thread(server.stop)
    yield
    await asyncio.to_thread(server.start)


@asynccontextmanager
async def frozen(server: ValkeyProcess) -> AsyncIterator[None]:
    with server.frozen():
        yield


@asynccontextmanager
async def out_of_memory(server: ValkeyProcess) -> AsyncIterator[None]:
    with server.client() as client:
        await asyncio.to_thread(client.config_set, "maxmemory", "1")
        yield
        await asyncio.to_thread(client.config_set, "maxmemory", "0")


@asynccontextmanager
async def demoted(server: ValkeyProcess) -> AsyncIterator[None]:
    with server.client() as client:
        await asyncio.to_thread(client.replicaof, "127.0.0.1", "1")
        yield
        await asyncio.to_thread(client.replicaof, "NO", "ONE")


@asynccontextmanager
async def busy(server: ValkeyProcess) -> AsyncIterator[None]:
    with server.client() as client, server.client() as killer:
        await asyncio.to_thread(client.config_set, "busy-reply-threshold", "20")
        script = asyncio.create_task(asyncio.to_thread(_runs_until_killed, client))
        yield
        await asyncio.to_thread(killer.script_kill)
        await script


def _runs_until_killed(client: Any) -> None:
    with pytest.raises(Exception, match="killed"):
        client.eval("while true do end", 0)


OUTAGES = {
    "F27 killed": killed,
    "F28 frozen": frozen,
    "F30 out of memory": out_of_memory,
    "F30 demoted": demoted,
    "F30 busy": busy,
}

Outage = Callable[[ValkeyProcess], AbstractAsyncContextManager[None]]


@pytest.mark.parametrize("outage", [pytest.param(outage, id=name) for name, outage in OUTAGES.items()])
async def test_an_outage_costs_one_timeout_and_not_a_nano_unit(outage: Outage) -> None:
    with ValkeyProcess(*DURABLE) as server:
        scene = Scene(server)
        async with scene.running():
            async with scene.load() as before:
                await asyncio.sleep(0.3)
            async with scene.load() as entering, outage(server):
                await until(lambda: AWAY in scene.lines.events)
                await asyncio.sleep(TIMEOUT)  # those who were asking
                async with scene.load() as during:
                    await asyncio.sleep(0.7)
            async with scene.load() as after:
                await until(lambda: scene.leased.joined)
            assert await scene.difference() == 0
    assert set(before.outcomes) == {("rich", FULL), ("poor", FULL), ("broke", FULL)}
    assert set(during.outcomes) == {("rich", FULL), ("poor", SMALL), ("broke", REFUSED)}
    assert max(entering.waits) < TIMEOUT + SLACK
    assert entering.slow <= 2 * WORKERS
    assert during.p99 < 0.01
    assert after.outcomes["rich", FULL]
    assert scene.lines.events == [AWAY, JOINED]


@pytest.mark.parametrize(("stall", "timeout"), [(0.12, TIMEOUT), (0.3, 0.2)], ids=["shorter", "longer"])
async def test_f29_stalls_shorter_or_longer_than_the_timeout_charge_nobody_twice(stall: float, timeout: float) -> None:
    with ValkeyProcess(*DURABLE) as server:
        scene = Scene(server, timeout=timeout)
        async with scene.running():
            async with scene.load() as seen:
                for _ in range(8):
                    async with frozen(server):
                        await asyncio.sleep(stall)
                    await asyncio.sleep(0.1)
            assert await scene.difference() == 0
    assert max(seen.waits) < TIMEOUT + SLACK
    assert not any(outcome == REFUSED for tenant, outcome in seen.outcomes if tenant != "broke")
    if stall < timeout:
        assert scene.lines.events == []
        assert {outcome for _, outcome in seen.outcomes} == {FULL}


@pytest.mark.parametrize("empties", ["restart", "flush"])
async def test_f31_a_store_that_came_back_empty_is_told_before_it_grants(empties: str) -> None:
    with ValkeyProcess() as server:
        scene = Scene(server)
        async with scene.running():
            async with scene.load() as seen:
                await asyncio.sleep(0.4)
                await asyncio.to_thread(server.restart if empties == "restart" else server.empty)
                await until(lambda: scene.lines.events[:2] == [AWAY, JOINED])
                await asyncio.sleep(0.2)
            assert await scene.difference() == 0
    assert max(seen.waits) < TIMEOUT + SLACK


async def test_f32_a_failover_that_lost_the_last_writes_is_told_of_them() -> None:
    at_once = ("--repl-diskless-sync-delay", "0")
    with ExitStack() as servers:
        primary = servers.enter_context(ValkeyProcess(*at_once))
        replica = servers.enter_context(ValkeyProcess(*at_once, "--replicaof", "127.0.0.1", str(primary.port)))
        promoted = ValkeyProcess("--replicaof", "127.0.0.1", str(replica.port))
        promoted.port = primary.port
        scene = Scene(primary)
        async with scene.running():
            async with scene.load():
                await asyncio.sleep(0.3)
                await cut_off(replica)
                known = len(scene.journal)
                await asyncio.sleep(0.3)  # these writes are lost
                primary.stop()
                await until(lambda: AWAY in scene.lines.events)
                servers.enter_context(promoted)
                await cut_off(promoted)
                await until(lambda: scene.leased.joined)
            assert await scene.difference() == 0
    assert len(scene.journal) > known
    assert scene.lines.events == [AWAY, JOINED]


async def cut_off(replica: ValkeyProcess) -> None:
    """Makes a replica a primary of its own, with what it has."""
    with replica.client() as client:
        await until(lambda: client.info("replication")["master_link_status"] == "up")
        client.replicaof("NO", "ONE")


async def test_f33_flushed_scripts_are_noticed_by_nobody() -> None:
    with ValkeyProcess() as server:
        scene = Scene(server)
        async with scene.running():
            async with scene.load() as seen:
                with server.client() as client:
                    for _ in range(10):
                        await asyncio.to_thread(client.script_flush)
                        await asyncio.sleep(0.05)
            assert await scene.difference() == 0
    assert {outcome for _, outcome in seen.outcomes} == {FULL}
    assert scene.lines.events == []


async def test_f34_a_router_starts_without_its_store_and_joins_it_when_it_comes() -> None:
    server = ValkeyProcess()
    scene = Scene(server)
    begun = time.monotonic()
    async with scene.running(joined=False):
        assert time.monotonic() - begun < TIMEOUT + SLACK
        async with scene.load() as seen:
            await asyncio.sleep(0.3)
        assert set(seen.outcomes) == {("rich", FULL), ("poor", SMALL), ("broke", REFUSED)}
        with server:
            assert await scene.difference() == 0
    assert scene.lines.events[:2] == [AWAY, JOINED]


async def test_f31_two_routers_at_an_emptied_store_tell_each_its_own() -> None:
    with ValkeyProcess() as server:
        scenes = [Scene(server), Scene(server)]
        async with scenes[0].running(), scenes[1].running():
            async with scenes[0].load(), scenes[1].load():
                await asyncio.sleep(0.3)
                await asyncio.to_thread(server.restart)
                for scene in scenes:
                    await until(lambda scene=scene: scene.lines.events[:2] == [AWAY, JOINED])
            for scene in scenes:
                assert await scene.leased.drained(10.0)
            own = sum(one.nanos for one in scenes[0].journal.values())
            assert await scenes[1].difference() == own
