"""A small tier in front of engines over HTTP: one trace into the engine, accounts that agree, and no request lost."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dialects.server import DialectServer
from engines.llama_server import LlamaServer
from integration.processes import START_SECONDS, Deployment
from marginal.entrypoints import inspection
from marginal.entrypoints.processes import Program, free_addresses, start
from marginal.entrypoints.services import LARGE, ROUTER, SMALL, Plan, programs
from marginal.errors import TierUnavailable
from marginal.evaluation.traces import Span, assemble, read_spans
from marginal.models.catalogue import Pair
from marginal.models.fetch import resolve
from marginal.routing.requests import Mode
from marginal.telemetry import names
from marginal.telemetry.tracing import Exporter
from marginal.tokens import Tier
from marginal.transport.router_client import wait_until_serving

ENGINES = {"vllm": "openai", "sglang": "openai", "llama-server": "openai", "tgi": "tgi"}
"""Dialects, and the kind of engine each is."""

THOROUGH = "scripted:tokens=8"
ALWAYS_UNSURE, ALWAYS_SURE = "careful", "default"
"""The bundled policies, as they judge the answers of a dialect server."""
NO_SMALL_TIER = "stays NOT_SERVING: cannot be a small tier"


@asynccontextmanager
async def in_front_of(
    state_dir: Path, *urls: str, kind: str = "openai", more: tuple[str, ...] = (), ready: bool = True
) -> AsyncIterator[Deployment]:
    """A router, a scripted large tier, and a small tier whose engine is at these URLs."""
    plan = Plan(Pair("", THOROUGH), "127.0.0.1:0", None, None, None, state_dir, Exporter.FILE, None)
    options = ("--engine", kind, *(word for url in urls for word in ("--endpoint", url)), *more)
    async with AsyncExitStack() as stack:
        deployment = Deployment({})
        for program in reversed(programs(plan)):
            wanted = _with_engine(program, options) if program.name == SMALL else program
            running = await start(wanted)
            stack.push_async_callback(running.drain)
            deployment.running[program.name] = running
        for name in (LARGE, SMALL, ROUTER) if ready else ():
            await serving(deployment, name)
        yield deployment


async def serving(deployment: Deployment, name: str, *, seconds: float = START_SECONDS) -> None:
    program = deployment.running[name].program
    await wait_until_serving(program.target, program.service, timeout_seconds=seconds)


@asynccontextmanager
async def forwarding(here: str, there: str) -> AsyncIterator[None]:
    """Takes connections at one address and passes them on to another."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = there.rpartition(":")
        onwards, back = await asyncio.open_connection(host, int(port))
        await asyncio.gather(pump(reader, back), pump(onwards, writer))

    host, _, port = here.rpartition(":")
    server = await asyncio.start_server(accepted, host, int(port))
    yield
    server.close()


def _with_engine(program: Program, options: tuple[str, ...]) -> Program:
    at = program.arguments.index("--model")
    return replace(program, arguments=(*program.arguments[:at], *options, *program.arguments[at + 2 :]))


async def traced(directory: Path, trace_id: str, span_id: str) -> Span:
    """A span once it was written: batches leave the services after their answers."""
    async with asyncio.timeout(10):
        while True:
            trace = assemble(read_spans(directory), trace_id)
            for node in trace.nodes if trace else ():
                if node.span.span_id == span_id:
                    return node.span
            await asyncio.sleep(0.05)


def span_events(path: Path, name: str) -> list[dict[str, Any]]:
    """The attributes of every event of that name, of a service that has ended."""
    spans = map(json.loads, path.read_text().splitlines())
    return [event["attributes"] for span in spans for event in span["events"] if event["name"] == name]


@pytest.mark.parametrize("dialect", ENGINES)
async def test_a_request_is_one_trace_into_the_engine_and_the_accounts_agree(tmp_path: Path, dialect: str) -> None:
    async with (
        DialectServer(dialect) as engine,
        in_front_of(tmp_path, engine.url, kind=ENGINES[dialect]) as services,
    ):
        probes = len(engine.log)
        _, deferred = await services.ask("what is it", policy=ALWAYS_UNSURE, max_tokens=64)
        await engine.quiet()
        text, kept = await services.ask("what is it", policy=ALWAYS_SURE, max_tokens=64)
        cut, finished = engine.log[probes:]
        for answer, generation in ((deferred, cut), (kept, finished)):
            _, trace_id, parent, _ = str(generation.traceparent).split("-")
            span = await traced(tmp_path, answer.trace_id, parent)
            assert trace_id == answer.trace_id
            assert (span.service, span.name.partition(" ")[0]) == ("marginal-small-model", "chat")
            usage = answer.attempts[0].usage
            assert span.attributes["gen_ai.usage.output_tokens"] == usage.output_tokens
            assert usage.input_tokens == generation.prompt_tokens
        accounts = await asyncio.to_thread(inspection.reconcile, tmp_path)
    assert (deferred.tier, kept.tier) == (Tier.LARGE, Tier.SMALL)
    assert text.split()[:3] == ["what", "is", "it"]
    assert finished.finished
    assert kept.attempts[0].usage.output_tokens == finished.generated
    assert deferred.attempts[0].usage.output_tokens <= cut.generated
    assert (accounts.records, accounts.balanced) == (2, True)


async def test_a_real_engine_says_what_it_took_and_its_span_shows_it(tmp_path: Path) -> None:
    async with LlamaServer(resolve("home-small")) as engine, in_front_of(tmp_path, engine.url) as services:
        text, answer = await services.ask("set a timer for five minutes", mode=Mode.SMALL_ONLY)
        spans: list[Span] = []
        async with asyncio.timeout(10):
            while not spans:
                await asyncio.sleep(0.05)
                spans = [one for one in read_spans(tmp_path) if names.ENGINE_GENERATION_SECONDS in one.attributes]
        accounts = await asyncio.to_thread(inspection.reconcile, tmp_path)
    assert text == "timer 5 min"
    (span,) = [one for one in spans if one.trace_id == answer.trace_id]
    took = [span.attributes[name] for name in (names.ENGINE_PROMPT_SECONDS, names.ENGINE_GENERATION_SECONDS)]
    assert all(seconds > 0 for seconds in took)
    assert sum(took) * 1000 <= span.milliseconds
    assert accounts.balanced


async def test_when_one_of_two_engines_dies_no_request_fails(tmp_path: Path) -> None:
    async with DialectServer("vllm") as staying, AsyncExitStack() as leaving:
        dying = await leaving.enter_async_context(DialectServer("vllm"))
        async with in_front_of(tmp_path, dying.url, staying.url) as services:
            before = await asyncio.gather(*(services.ask(f"question {number}") for number in range(12)))
            assert len(dying.log) > 5
            await leaving.aclose()
            after = [await asyncio.gather(*(services.ask(f"question {n}") for n in range(8))) for _ in range(5)]
            accounts = await asyncio.to_thread(inspection.reconcile, tmp_path)
            told = services.logged(SMALL, "endpoint_ejected")
    answers = [answer for _, answer in (*before, *(one for wave in after for one in wave))]
    assert {(answer.tier, answer.degraded) for answer in answers} == {(Tier.SMALL, None)}
    retries = span_events(tmp_path / "small-model.spans.jsonl", names.ENGINE_RETRY)
    gone, left = (engine.url.removeprefix("http://") for engine in (dying, staying))
    assert {(line["level"], line["tier"], line["endpoint"], line["because"]) for line in told} == {
        ("warning", "small", gone, "TierUnavailable")
    }
    assert [line["seconds"] for line in told] == [float(number) for number in range(1, len(told) + 1)]
    assert {(one["marginal.engine.endpoint"], one["marginal.engine.other_endpoint"]) for one in retries} == {
        (gone, left)
    }
    assert accounts.balanced
    assert accounts.records == 52


async def test_an_engine_that_starts_later_is_waited_for(tmp_path: Path) -> None:
    (address,) = free_addresses("127.0.0.1", 1)
    async with in_front_of(tmp_path, f"http://{address}", ready=False) as services:
        await serving(services, LARGE)
        said = await services.until_logged(SMALL, NO_SMALL_TIER)
        with pytest.raises(TierUnavailable, match="NOT_SERVING"):
            await serving(services, SMALL, seconds=2.0)
        assert [line["because"].partition(": ")[0] for line in said] == [address]
        async with DialectServer("vllm") as engine, forwarding(address, engine.url.removeprefix("http://")):
            await serving(services, SMALL)
            _, answer = await services.ask("what is it")
    assert answer.tier is Tier.SMALL


async def test_one_endpoint_without_evidence_keeps_the_small_tier_from_serving_and_is_named(tmp_path: Path) -> None:
    async with DialectServer("vllm") as seeing, DialectServer("vllm") as blind:
        blind.inject("F16", times=100)
        async with in_front_of(tmp_path, seeing.url, blind.url, ready=False) as services:
            await serving(services, LARGE)
            (said,) = await services.until_logged(SMALL, NO_SMALL_TIER)
            with pytest.raises(TierUnavailable, match="NOT_SERVING"):
                await serving(services, SMALL, seconds=2.0)
    assert said["because"].startswith(blind.url.removeprefix("http://"))
    assert "without log-probabilities" in said["because"]
