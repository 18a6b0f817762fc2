"""Real processes: what health says while they start and stop, and that no stream is lost on the way."""

import asyncio
import signal
import socket
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from integration.processes import answer, deployed
from marginal.entrypoints.services import LARGE, ROUTER, SMALL
from marginal.errors import MarginalError, TierUnavailable
from marginal.routing.records import DegradedReason
from marginal.routing.requests import Mode
from marginal.tokens import Tier
from marginal.transport.health import LIVENESS
from marginal.transport.router_client import RouterClient, wait_until_serving

SLOW = "scripted:tokens=40,delay_ms=25"
UNSURE = "scripted:tokens=8,unsure=1"
QUICK = "scripted:tokens=8"
BLIND = "scripted:tokens=8,alternatives=0"


async def test_sigterm_loses_no_stream_in_flight_and_exits_zero(tmp_path: Path) -> None:
    async with deployed(tmp_path, small=SLOW, large=QUICK) as services, RouterClient(services.target) as client:
        asking = [asyncio.create_task(answer(client, f"question {number}")) for number in range(12)]
        await asyncio.sleep(0.5)
        services.signal(ROUTER, signal.SIGTERM)
        answers = await asyncio.gather(*asking)
        assert [final.attempts[-1].usage.output_tokens for _, final in answers] == [40] * 12
        assert await services.ended(ROUTER) == 0
        assert len(services.logged(ROUTER, "cost_record")) == 12


async def test_a_draining_tier_finishes_its_streams_and_exits_zero(tmp_path: Path) -> None:
    async with deployed(tmp_path, small=SLOW, large=QUICK) as services:
        asking = asyncio.create_task(services.ask("a question"))
        await asyncio.sleep(0.5)
        services.signal(SMALL, signal.SIGTERM)
        _, final = await asking
        assert final.attempts[-1].usage.output_tokens == 40
        assert await services.ended(SMALL) == 0


async def test_killing_the_large_tier_fails_no_request_and_flags_the_answers(tmp_path: Path) -> None:
    async with deployed(tmp_path, small=UNSURE, large=QUICK) as services:
        _, before = await services.ask("a question")
        assert (before.tier, before.degraded) == (Tier.LARGE, None)
        services.signal(LARGE, signal.SIGKILL)
        await services.ended(LARGE)
        for _ in range(5):
            _, after = await services.ask("a question")
            assert (after.tier, after.degraded) == (Tier.SMALL, DegradedReason.LARGE_UNAVAILABLE)


async def test_killing_the_large_tier_in_mid_stream_is_said_and_not_patched_over(tmp_path: Path) -> None:
    async with deployed(tmp_path, small=UNSURE, large=SLOW) as services:
        asking = asyncio.create_task(services.ask("a question", mode=Mode.LARGE_ONLY))
        await asyncio.sleep(0.4)
        services.signal(LARGE, signal.SIGKILL)
        with pytest.raises(MarginalError, match="after part of its answer was sent"):
            await asking


async def test_without_evidence_the_small_tier_stays_not_serving_and_says_why(tmp_path: Path) -> None:
    async with deployed(tmp_path, small=BLIND, large=QUICK, ready=False) as services:
        small, router = (services.running[name].program for name in (SMALL, ROUTER))
        await wait_until_serving(services.running[LARGE].program.target, "", timeout_seconds=30)
        for program in (small, router):
            with pytest.raises(TierUnavailable, match="NOT_SERVING"):
                await wait_until_serving(program.target, program.service, timeout_seconds=2)
            await wait_until_serving(program.target, LIVENESS, timeout_seconds=2)
        assert "cannot be a small tier" in small.log_path.read_text()
        (waiting,) = services.logged(ROUTER, "waiting for the small tier")[-1:]
        assert "log-probabilities" in waiting["because"]


async def test_a_router_started_first_becomes_ready_when_its_small_tier_is(tmp_path: Path) -> None:
    async with deployed(tmp_path, small=QUICK, large=QUICK, ready=False) as services:
        program = services.running[ROUTER].program
        await wait_until_serving(program.target, program.service, timeout_seconds=60)
        text, _ = await services.ask("a question")
        assert text


async def test_a_health_watch_does_not_hold_up_the_drain(tmp_path: Path) -> None:
    async with (
        deployed(tmp_path, small=QUICK, large=QUICK) as services,
        grpc.aio.insecure_channel(services.target) as channel,
    ):
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        await watch.read()
        services.signal(ROUTER, signal.SIGTERM)
        assert await asyncio.wait_for(services.ended(ROUTER), 5.0) == 0


async def test_sigterm_while_a_model_is_fetched_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as never_answers:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{never_answers.getsockname()[1]}")
        monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
        async with deployed(tmp_path, small=QUICK, large=f"hub:a/b@c/d.gguf#{'0' * 64}", ready=False) as services:
            connection, _ = await asyncio.to_thread(never_answers.accept)
            with connection:
                services.signal(LARGE, signal.SIGTERM)
                assert await asyncio.wait_for(services.ended(LARGE), 5.0) == 0
