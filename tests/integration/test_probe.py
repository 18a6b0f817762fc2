"""`marginal probe` against a real engine, every dialect, and a model service."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from typer.testing import CliRunner, Result

from contract.subjects import HOME_TEMPLATE, Unrecorded, Untraced, scripted
from dialects.server import DialectServer
from dialects.settings import FewLogprobs, ProcessedLogprobs
from dialects.writing import Dialect
from engines.llama_server import LlamaServer
from marginal.entrypoints.probe import app
from marginal.models.fetch import resolve
from marginal.transport.guard import Guard
from marginal.transport.model_servicer import ModelServicer
from marginal.transport.server import options
from marginal.transport.validation import Limits

DIALECTS = {"vllm": "vLLM", "sglang": "SGLang", "llama-server": "llama-server", "tgi": "TGI"}


async def run(*arguments: str) -> Result:
    """The command in a thread, where it has an event loop of its own."""
    return await asyncio.to_thread(CliRunner().invoke, app, list(arguments))


async def probed(*arguments: str, exit_code: int = 0) -> dict[str, Any]:
    done = await run(*arguments, "--json")
    assert done.exit_code == exit_code, done.output
    parsed = json.loads(done.stdout)
    assert isinstance(parsed, dict)
    return parsed


def remedies(seen: dict[str, Any]) -> dict[str, str | None]:
    return {one["shortfall"]: one["remedy"] for one in seen["remedies"]}


@pytest.fixture(scope="module")
async def llama() -> AsyncIterator[LlamaServer]:
    async with LlamaServer(resolve("home-small")) as server:
        yield server


async def test_a_real_engine_is_fit_as_the_small_tier_and_stops_at_a_cancel(llama: LlamaServer) -> None:
    seen = await probed(llama.url)
    assert (seen["dialect"], seen["kind"], seen["route"]) == ("llama-server", "openai", "chat")
    assert seen["evidence"] == {"proven": True, "shortfall": None, "alternatives": 20, "before_sampling": True}
    assert seen["usage_counted"] == "every_chunk"
    assert seen["cached_input_told"]
    assert seen["cancel"]["source"] == "llamacpp:requests_processing"
    assert seen["cancel"]["stopped_after_ms"] < 100.0
    assert seen["context_tokens"] == 256
    assert seen["tokens_together"] == {"largest": 1, "mean": 1.0}
    assert seen["remedies"] == []


async def test_a_real_engine_is_shown_as_a_table_with_a_verdict(llama: LlamaServer) -> None:
    done = await run(llama.url)
    assert done.exit_code == 0
    assert "fit as the small tier" in done.stdout
    assert "what" in done.stdout.splitlines()[0]


async def test_a_real_engine_is_probed_on_its_other_route_too(llama: LlamaServer) -> None:
    seen = await probed(llama.url, "--route", "completions", "--template", HOME_TEMPLATE)
    assert seen["route"] == "completions"
    assert seen["evidence"]["before_sampling"]
    assert seen["tiers"]["small"]["fit"]


async def test_a_real_engine_that_wants_a_key_says_so() -> None:
    async with LlamaServer(resolve("home-small"), key="right") as server:
        seen = await probed(server.url, exit_code=1)
    assert not seen["answers"]
    assert "check its API key" in seen["fault"]


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_every_dialect_is_recognised_and_fit_as_the_small_tier(dialect: str) -> None:
    async with DialectServer(dialect) as server:
        seen = await probed(server.url)
        assert server.active == 0
    assert seen["dialect"] == DIALECTS[dialect]
    assert seen["kind"] == ("tgi" if dialect == "tgi" else "openai")
    assert seen["tokens_together"]["mean"] == 1.0
    assert seen["evidence"]["before_sampling"] is True
    assert seen["cancel"]["stopped_after_ms"] < 100.0
    assert seen["tiers"] == {tier: {"fit": True, "why_not": None} for tier in ("small", "large")}


@pytest.mark.parametrize(
    ("dialect", "flag"),
    [("vllm", "without --disable-log-stats"), ("sglang", "--enable-metrics"), ("llama-server", "--metrics")],
)
async def test_an_engine_without_counters_is_told_how_to_show_them(dialect: str, flag: str) -> None:
    server = DialectServer(dialect)
    server.counters = False
    async with server:
        seen = await probed(server.url)
    assert seen["cancel"]["not_observable"] == "the engine shows no counter"
    assert flag in (remedies(seen)["unseen"] or "")


@pytest.mark.parametrize(
    ("flags", "lacking", "flag", "fit"),
    [
        (ProcessedLogprobs(), "after_sampling", "--logprobs-mode raw_logprobs", True),
        (FewLogprobs(), "no_logprobs", "--max-logprobs 20", False),
    ],
)
async def test_flags_that_cost_vllm_its_evidence_are_found(flags: Dialect, lacking: str, flag: str, fit: bool) -> None:
    server = DialectServer("vllm")
    server.dialect = flags
    async with server:
        seen = await probed(server.url, exit_code=0 if fit else 1)
    assert flag in (remedies(seen)[lacking] or "")
    assert seen["tiers"]["small"]["fit"] is fit
    assert seen["tiers"]["large"]["fit"]


@pytest.mark.parametrize(
    ("dialect", "variant"), [("vllm", "above"), ("llama-server", "null"), ("sglang", "nan"), ("tgi", "null")]
)
async def test_log_probabilities_that_are_none_make_a_large_tier_only(dialect: str, variant: str) -> None:
    async with DialectServer(dialect) as server:
        server.inject("F17", variant=variant, at=0, times=100)
        seen = await probed(server.url, exit_code=1)
    assert not seen["evidence"]["proven"]
    assert seen["tiers"]["large"]["fit"]


async def test_an_engine_that_is_deaf_to_a_cancel_is_no_small_tier() -> None:
    async with DialectServer("vllm") as server:
        server.inject("F20", times=100)
        seen = await probed(server.url, exit_code=1)
    assert seen["evidence"]["proven"]
    assert seen["tiers"]["small"]["why_not"] == "a cancel does not stop the engine"
    assert seen["tiers"]["large"]["fit"]


async def test_an_engine_without_usage_is_told_to_cost_near_not_exact() -> None:
    async with DialectServer("vllm") as server:
        server.inject("F18", variant="missing", times=100)
        seen = await probed(server.url)
    assert seen["usage_counted"] == "never"
    assert "uncounted" in remedies(seen)


async def test_a_key_that_an_engine_refuses_is_not_shown(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("sk-very-secret")
    async with DialectServer("vllm", key="another") as server:
        done = await run(server.url, "--api-key-file", str(key))
    assert done.exit_code == 1
    assert "API key" in done.output
    assert "sk-very-secret" not in done.output


async def test_the_right_key_opens_the_engine(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("right")
    async with DialectServer("vllm", key="right") as server:
        seen = await probed(server.url, "--api-key-file", str(key))
    assert seen["tiers"]["small"]["fit"]


async def test_a_model_service_is_probed_over_grpc() -> None:
    guard = Guard(Untraced(), max_calls=64, trust_baggage=True)
    server = grpc.aio.server(interceptors=[guard], options=options(guard, message_bytes=1024 * 1024))
    async with scripted() as served:
        ModelServicer(served.model, name="served", limits=Limits(), recorder=Unrecorded()).register(server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        seen = await probed(f"127.0.0.1:{port}")
        await server.stop(None)
    assert (seen["kind"], seen["route"], seen["dialect"]) == ("grpc", None, None)
    assert seen["tiers"]["small"]["fit"]
    assert seen["cancel"]["not_observable"] == "behind a model service"
