"""One request through three real servers is one trace, and its cost records agree with the model services' logs."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from fakes import RememberingLedger, open_door
from marginal.backends.script_names import token_with_margin
from marginal.backends.scripted import Script, ScriptedModel
from marginal.errors import TierUnavailable
from marginal.evaluation.reconcile import reconcile
from marginal.evaluation.service_logs import read_events
from marginal.evaluation.traces import Node, Trace, assemble, read_spans
from marginal.policy.thresholds import Fixed
from marginal.pricing import Price
from marginal.routing.book import PolicyBook
from marginal.routing.policies import Policies, Policy
from marginal.routing.router import Router
from marginal.routing.shadows import Shadows
from marginal.routing.tiers import TierState
from marginal.telemetry.logs import Layout
from marginal.telemetry.logs import configure as configure_logs
from marginal.telemetry.recorder import GenerationRecorder, OpenTelemetryRecorder
from marginal.telemetry.tracing import Exporter, Tracing, configure
from marginal.tokens import Tier
from marginal.transport.guard import Guard
from marginal.transport.model_servicer import ModelServicer
from marginal.transport.remote_model import connected
from marginal.transport.router_client import Answer, RouterClient
from marginal.transport.router_servicer import RouterServicer
from marginal.transport.validation import Limits
from unit.routing.cascade import criterion

SURE, UNSURE = token_with_margin("sure ", 0.9), token_with_margin("hm ", 0.1)
CONFIDENT = Script((SURE,) * 6, delay_seconds=0.002)
DOUBTFUL = Script((SURE, SURE, UNSURE, SURE, SURE, SURE), delay_seconds=0.002)
ENDLESS = Script((SURE,) * 500, delay_seconds=0.01)
THOROUGH = Script((SURE,) * 4, delay_seconds=0.002)
PRICES = {
    Tier.SMALL: Price(input_nanos_per_million=10_000_000, output_nanos_per_million=40_000_000),
    Tier.LARGE: Price(input_nanos_per_million=100_000_000, output_nanos_per_million=400_000_000),
}
CANARY = "CANARY-7d1c what is it"
ROUTER_CALL, MODEL_CALL = "marginal.v1.RouterService/Generate", "marginal.v1.ModelService/Generate"
USAGE_CALL = "marginal.v1.ModelService/GetUsage"


@dataclass(frozen=True, slots=True)
class Services:
    """Three running servers that write spans and logs into `directory`."""

    directory: Path
    target: str
    tracings: tuple[Tracing, ...]

    async def ask(self) -> Answer:
        async with RouterClient(self.target) as client, aclosing(client.ask(CANARY)) as events:
            (*_, last) = [event async for event in events]
        assert isinstance(last, Answer)
        return last

    async def trace(self, trace_id: str, *, spans: int) -> Trace:
        """The trace once it has so many spans: a server's span ends after its caller has the answer."""
        async with asyncio.timeout(10):
            while True:
                trace = assemble(read_spans(self.directory), trace_id)
                if trace is not None and len(trace.nodes) >= spans:
                    return trace
                await asyncio.sleep(0.05)

    async def trace_id(self) -> str:
        """The id of the only trace, once there is one."""
        async with asyncio.timeout(10):
            while True:
                for span in read_spans(self.directory):
                    return span.trace_id
                await asyncio.sleep(0.05)

    def logged(self) -> list[dict[str, Any]]:
        return list(read_events(self.directory))

    def everything_written(self) -> str:
        for tracing in self.tracings:
            tracing.shutdown()
        return "".join(path.read_text() for path in self.directory.iterdir())


@asynccontextmanager
async def serving(servicer: ModelServicer | RouterServicer, guard: Guard) -> AsyncIterator[str]:
    server = grpc.aio.server(interceptors=[guard], options=(("grpc.so_reuseport", 0),))
    servicer.register(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
        await guard.idle()


@asynccontextmanager
async def services(directory: Path, *, small: Script, large: Script = THOROUGH) -> AsyncIterator[Services]:
    policy = Policy("test", "1", criterion(lambda: Fixed(0.5)), True, "USD", PRICES)
    async with AsyncExitStack() as stack:

        def telemetry(name: str) -> tuple[Tracing, Any]:
            tracing = configure(name, Exporter.FILE, version="1", trace_file=directory / f"{name}.spans.jsonl")
            stack.callback(tracing.shutdown)
            stream = stack.enter_context((directory / f"{name}.log").open("w"))
            logs = configure_logs(name, stream, layout=Layout.JSON)
            stack.enter_context(logs.standard_library())
            return tracing, logs.log

        router, log = telemetry("marginal-router")
        tracings, tiers = [router], {}
        for tier, script in ((Tier.SMALL, small), (Tier.LARGE, large)):
            tracing, model_log = telemetry(f"marginal-{tier.value}-model")
            tracings.append(tracing)
            servicer = ModelServicer(
                ScriptedModel(script),
                name=f"home-{tier.value}",
                limits=Limits(),
                recorder=GenerationRecorder(tracing.spans, model_log, tracing.metrics, tier=tier),
            )
            guard = Guard(tracing.tracer, max_calls=8, trust_baggage=True)
            target = await stack.enter_async_context(serving(servicer, guard))
            tiers[tier] = TierState(tier, await stack.enter_async_context(connected(target, router.tracer)))
        ledger = RememberingLedger()
        routes = Router(
            tiers,
            book=PolicyBook(Policies({"test": policy}, "test")),
            shadows=Shadows(lambda: 0.0, time.monotonic),
            recorder=OpenTelemetryRecorder(router.spans, log, router.metrics, currency=lambda: "USD"),
            admission=open_door(tiers, ledger, time.monotonic),
            ledger=ledger,
            clock=time.monotonic,
        )
        guard = Guard(router.tracer, max_calls=8, trust_baggage=False)
        front = RouterServicer(routes, limits=Limits(), tracer=router.tracer)
        target = await stack.enter_async_context(serving(front, guard))
        yield Services(directory, target, tuple(tracings))


def told(node: Node) -> tuple[str, str, str, str, Any]:
    span = node.span
    return span.service, span.kind, span.name, span.status, span.attributes.get("rpc.response.status_code")


async def test_a_deferred_request_is_one_tree_over_three_services(tmp_path: Path) -> None:
    async with services(tmp_path, small=DOUBTFUL) as running:
        answer = await running.ask()
        trace = await running.trace(answer.trace_id, spans=9)
    assert answer.tier is Tier.LARGE
    (root,) = trace.roots
    assert told(root) == ("marginal-router", "server", ROUTER_CALL, "unset", "OK")
    small, large = root.children
    for attempt, tier in ((small, "small"), (large, "large")):
        service, name = f"marginal-{tier}-model", f"chat home-{tier}"
        (call,) = attempt.children
        (served,) = call.children
        (generated,) = served.children
        assert attempt.span.service == "marginal-router"
        assert told(call)[:4] == ("marginal-router", "client", MODEL_CALL, "unset")
        assert told(call)[4] in (("OK",) if tier == "large" else ("OK", "CANCELLED"))
        assert told(served)[:4] == (service, "server", MODEL_CALL, "unset")
        assert served.span.attributes["marginal.tenant"] == "default"
        assert told(generated) == (service, "internal", name, "unset", None)
        for usage in ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"):
            assert generated.span.attributes[usage] == attempt.span.attributes[usage]
    said = root.span.attributes
    assert said["marginal.verdict"] == "defer"
    assert (said["marginal.score"], said["marginal.threshold"]) == (pytest.approx(0.1), 0.5)
    assert said["marginal.tokens_seen"] == small.span.attributes["gen_ai.usage.output_tokens"] == 3
    costs = [attempt.span.attributes["marginal.cost.nanos"] for attempt in (small, large)]
    assert said["marginal.cost.total_nanos"] == sum(costs) == answer.total_nanos
    assert [attempt.span.attributes["marginal.attempt.outcome"] for attempt in (small, large)] == ["aborted", "kept"]


async def test_records_and_model_logs_agree_to_the_last_token(tmp_path: Path) -> None:
    async with services(tmp_path, small=DOUBTFUL) as running:
        answers = [await running.ask() for _ in range(5)]
    result = reconcile(running.logged(), PRICES)
    assert result.balanced
    assert result.records == len(answers)
    assert result.charged_nanos == sum(answer.total_nanos for answer in answers)


async def test_a_stream_the_caller_cancels_ends_cancelled_on_every_hop_and_is_no_error(tmp_path: Path) -> None:
    async with services(tmp_path, small=ENDLESS) as running:
        async with RouterClient(running.target) as client, aclosing(client.ask(CANARY)) as events:
            await anext(events)
        trace = await running.trace(await running.trace_id(), spans=7)
    assert len(trace.nodes) == 7
    asked = [node for node in trace.nodes if USAGE_CALL in node.span.name]
    assert [node.span.attributes["rpc.response.status_code"] for node in asked] == ["OK", "OK"], "both ends of it"
    for node in trace.nodes:
        assert node.span.status == "unset"
        assert node in asked or node.span.attributes.get("rpc.response.status_code", "CANCELLED") == "CANCELLED"
    (record,) = (event for event in running.logged() if event["event"] == "cost_record")
    assert record["error"] == "Cancelled"
    assert record["attempts"][0]["outcome"] == "aborted"


async def test_a_tier_that_is_down_makes_its_attempt_an_error_and_not_the_request(tmp_path: Path) -> None:
    down = Script((SURE,), fault=TierUnavailable("out of memory"))
    async with services(tmp_path, small=DOUBTFUL, large=down) as running:
        answer = await running.ask()
        trace = await running.trace(answer.trace_id, spans=13)
    (root,) = trace.roots
    assert answer.degraded is not None
    assert [(child.span.name, child.span.status) for child in root.children] == [
        ("chat small", "unset"),
        ("chat large", "error"),
        ("chat small", "unset"),
    ]


async def test_nothing_of_a_prompt_is_written(tmp_path: Path) -> None:
    async with services(tmp_path, small=DOUBTFUL) as running:
        await running.ask()
        written = running.everything_written()
    assert "cost_record" in written
    assert "CANARY" not in written
