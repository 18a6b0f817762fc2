"""A19: secrets driven through every error path and every kind of answer, then looked for in every sink."""

import asyncio
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from google.type.money_pb2 import Money

from dialects.server import DialectServer
from engines.callers import Caller, Request, Seen
from engines.valkey import ValkeyProcess
from integration.abuse import house as houses
from integration.abuse.canaries import (
    ANSWERED,
    CHOICE,
    ENGINE_KEY,
    FAIL,
    IDEMPOTENCY,
    KEY,
    OTHER,
    POLICIES,
    PROMPT,
    REFUSED,
    SLOWLY,
    SMALL_ONLY,
    TRACE,
)
from integration.abuse.house import asking, until
from integration.abuse.sinks import Collector, collecting, files, stored
from marginal.entrypoints.processes import Running
from marginal.transport import model_servicer
from marginal.transport.statuses import OUTSIDE

ELSEWHERE = {"CONFIGURATION", "MODEL_NOT_FETCHED", "SLOW_CONSUMER"}
"""Reasons that these callers cannot bring about: `test_bad_requests` shows that their texts are ours."""


@dataclass
class Scene:
    """A deployment, and all that its callers were told."""

    directory: Path
    keys: dict[str, str]
    engines: tuple[DialectServer, DialectServer]
    collector: Collector
    valkey: ValkeyProcess
    targets: tuple[str, str]
    arguments: tuple[str, ...]
    seen: list[Seen] = field(default_factory=list)

    @asynccontextmanager
    async def router(self, life: str, *arguments: str) -> AsyncIterator[Running]:
        """One life of the router; its journal outlives it."""
        (self.directory / life).mkdir()
        journal, arguments = self.directory / "journal", (*self.arguments, *arguments)
        async with houses.router(self.directory / life, self.targets, arguments, journal=journal) as running:
            yield running

    @asynccontextmanager
    async def calling(self, running: Running, tenant: str = "search") -> AsyncIterator["Asks"]:
        caller = Caller(running.program.target, key=self.keys.get(tenant, ""))
        yield Asks(caller, self.seen)
        await caller.close()


@dataclass
class Asks:
    """A caller whose answers are all remembered."""

    caller: Caller
    seen: list[Seen]

    async def __call__(self, request: Request | bytes, *metadata: tuple[str, str], **how: object) -> Seen:
        seen = await self.caller.call(request, *metadata, **how)  # type: ignore[arg-type]
        self.seen.append(seen)
        return seen


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    (tmp_path / "engine.key").write_text(ENGINE_KEY)
    async with AsyncExitStack() as stack:
        valkey = stack.enter_context(ValkeyProcess())
        collector = await stack.enter_async_context(collecting())
        engines = [await stack.enter_async_context(DialectServer("vllm", key=ENGINE_KEY)) for _ in range(2)]
        tiers = await asyncio.gather(
            *(
                stack.enter_async_context(
                    houses.started(name, model_servicer.SERVICE, tmp_path, _tier(engine.url, tmp_path, name))
                )
                for name, engine in zip(("small-model", "large-model"), engines, strict=True)
            )
        )
        keys, arguments = houses.settings(tmp_path, POLICIES)
        small, large = (tier.program.target for tier in tiers)
        arguments = (*arguments, "--store", valkey.url, "--failure-mode", "closed")
        yield Scene(tmp_path, dict(keys), (engines[0], engines[1]), collector, valkey, (small, large), arguments)


def _tier(url: str, directory: Path, name: str) -> tuple[str, ...]:
    spans = ("--trace-exporter", "file", "--trace-file", str(directory / f"{name}.spans.jsonl"))
    return ("--engine", "openai", "--endpoint", url, "--api-key-file", str(directory / "engine.key"), *spans)


async def test_a19_no_sink_holds_what_callers_and_models_said(scene: Scene) -> None:
    spans = scene.directory / "crashed.spans.jsonl"
    async with scene.router("crashed", "--trace-exporter", "file", "--trace-file", str(spans)) as running:
        await crash(scene, running, spans)
    otlp = ("--trace-exporter", "otlp", "--otlp-endpoint", scene.collector.endpoint)
    async with scene.router("abused", *otlp) as running:
        async with scene.calling(running) as ask:
            await answers(ask)
            await refusals(ask)
            await repetitions(ask)
            await faults(ask)
        await tenants(scene, running)
        await broken_books(scene, running)
        async with scene.calling(running) as ask:
            await ask(asking(f"{ANSWERED} FAULT:F8/503:0 {PROMPT}", mode=SMALL_ONLY))
    reached = {each.reason for each in scene.seen}
    assert {outside.reason for outside in OUTSIDE.values()} - ELSEWHERE - reached == set()
    sinks = dict(everything(scene))
    assert [name for name, content in sinks.items() if TRACE in content.lower()] == []
    secrets = [key.split("_", 2)[2].encode() for key in scene.keys.values()]
    assert [name for name, content in sinks.items() for secret in secrets if secret in content] == []
    assert found_what_may_be_found(scene, sinks)


async def crash(scene: Scene, running: Running, spans: Path) -> None:
    """The router dies while it answers, one request under an idempotency key."""
    async with scene.calling(running) as ask:
        answered = await ask(asking(f"{ANSWERED} {PROMPT}", policy="learning"))
        await until(lambda: answered.request_id in spans.read_text())
        asked = asyncio.create_task(ask(asking(SLOWLY, idempotency_key=IDEMPOTENCY + "-lost", max_tokens=40)))
        await until(lambda: any(engine.active for engine in scene.engines))
        running.kill()
        assert (await asked).code is grpc.StatusCode.UNAVAILABLE
        await running.ended()


async def answers(ask: Asks) -> None:
    """Kept, deferred, compared, with choices, cut, and given up by the caller."""
    prompt = f"{ANSWERED} {PROMPT}"
    for policy in ("keeps", "defers", "learning", "shadowed"):
        seen = await ask(asking(prompt, policy=policy), ("baggage", f"marginal.tenant={OTHER}"), ("x-note", OTHER))
        assert seen.code is grpc.StatusCode.OK
        assert policy == "defers" or ANSWERED in seen.text
    await ask(asking(prompt, choices=[CHOICE, ANSWERED], return_margins=True))
    await ask(asking(SLOWLY, max_tokens=40), leaves_after=1)


async def refusals(ask: Asks) -> None:
    """What is wrong with the request itself."""
    for what, request in REFUSED.items():
        seen = await ask(request)
        assert seen.reason == "INVALID_REQUEST", what
    await ask(asking(PROMPT), ("marginal-tenant", OTHER))
    await ask(asking(PROMPT), ("marginal-tenant", OTHER.lower()))
    await ask(asking(PROMPT, max_cost=Money(currency_code="USD", nanos=1)))
    await ask(asking(PROMPT, policy="unhurried"))


async def repetitions(ask: Asks) -> None:
    """The same key at a time, again, and with something else."""
    keyed = asking(SLOWLY, idempotency_key=IDEMPOTENCY, max_tokens=8)
    first, second = await asyncio.gather(ask(keyed), ask(keyed))
    assert {first.reason, second.reason} == {"", "IN_PROGRESS"}
    await until_refused(ask, "ALREADY_ANSWERED", keyed)  # the store hears of the answer behind the caller's back
    await ask(asking(PROMPT, idempotency_key=IDEMPOTENCY))


async def faults(ask: Asks) -> None:
    """What the engine does wrong, in words that hold the prompt or none."""
    for fault in ("F5/reset:6", "F19/json:0", "F19/html:0", "F19/utf8:3", "F17/nan:0"):
        await ask(asking(f"{ANSWERED} FAULT:{fault} {PROMPT}", mode=SMALL_ONLY, max_tokens=40))
    await until_refused(ask, "DEADLINE_EXCEEDED", asking(SLOWLY, max_tokens=40), timeout=0.5)
    await ask(asking(f"{PROMPT} " * 300))
    for _ in range(2):
        await ask(asking(f"{ANSWERED} FAULT:F9/500:0 {PROMPT}"))


async def tenants(scene: Scene, running: Running) -> None:
    """Who is nobody, may not, asks too often, or has no money."""
    async with scene.calling(running, "") as ask:
        await ask(asking(PROMPT), ("authorization", f"Bearer {KEY}"))
        await ask(asking(PROMPT), ("x-api-key", KEY))
    for tenant in ("restricted", "broke", "hasty", "hasty", "grounded", "poor"):
        async with scene.calling(running, tenant) as ask:
            await ask(
                asking(PROMPT, policy="keeps" if tenant in ("restricted", "broke") else "defers", on_degrade=FAIL)
            )


async def broken_books(scene: Scene, running: Running) -> None:
    """The store does not answer; then the disk takes nothing."""
    async with scene.calling(running) as ask:
        with scene.valkey.frozen():
            assert (await ask(asking(PROMPT))).reason == "BUDGET_STORE_DOWN"
        await until_served(ask)
        with disk_full(running.pid):
            await until_refused(ask, "LEDGER_WRITE", asking(PROMPT, policy="defers", on_degrade=FAIL))
        await until_served(ask)


async def until_served(ask: Asks) -> None:
    await until_refused(ask, "", asking(PROMPT))


async def until_refused(ask: Asks, reason: str, request: Request, **how: object) -> None:
    """Asks again until the answer is the one that must come soon; "" is none at all, but an answer."""
    for _ in range(200):
        seen = await ask(request, **how)
        if seen.reason == reason and (reason or seen.final):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"nobody was told {reason or 'anything'}")


@contextmanager
def disk_full(pid: int) -> Iterator[None]:
    """Lets no file of the process grow."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


def everything(scene: Scene) -> Iterator[tuple[str, bytes]]:
    """Every sink by its name: what callers were told aside from the answers' texts is one."""
    yield from files(scene.directory, but=("engine.key", "keys.jsonl"))
    yield from scene.collector.received.items()
    with scene.valkey.client() as client:
        yield from stored(client)
    for number, seen in enumerate(scene.seen):
        yield f"call {number} {seen.reason}", seen.sent


def found_what_may_be_found(scene: Scene, sinks: dict[str, bytes]) -> bool:
    """Whether the sinks hold what they are for: else nothing was looked for."""
    answered = next(each.request_id.encode() for each in scene.seen if each.final)
    assert answered in sinks["crashed/router.log.jsonl"]
    assert answered in sinks["crashed.spans.jsonl"]
    assert b"search" in sinks["journal/journal-00000001.jsonl"]
    assert b"learning" in sinks["state.json"]
    assert b"marginal.cost" in sinks["MetricsService"]
    assert b"marginal.verdict" in sinks["TraceService"]
    assert any("search" in name for name in sinks if name.startswith("hash"))
    return all(b"generation" in sinks[f"{name}.log.jsonl"] for name in ("small-model", "large-model"))
