"""What is read off an engine that says little, or something else than expected."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from marginal.backends.engine_facts import Dialect, EngineFacts, Load, Recognised


@asynccontextmanager
async def serving(answers: Mapping[str, Any]) -> AsyncIterator[EngineFacts]:
    """An engine that answers a few paths, texts as they are and all else as JSON."""

    def answering(answer: Any) -> Any:
        async def handler(_: web.Request) -> web.Response:
            return web.Response(text=answer) if isinstance(answer, str) else web.json_response(answer)

        return handler

    app = web.Application()
    for path, answer in answers.items():
        app.router.add_get(path, answering(answer))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    facts = EngineFacts(f"http://127.0.0.1:{runner.addresses[0][1]}/v1")
    yield facts
    await facts.aclose()
    await runner.cleanup()


@pytest.mark.parametrize(
    ("answers", "dialect"),
    [
        ({}, Dialect.UNKNOWN),
        ({"/v1/models": {"data": [{"id": "gpt", "owned_by": "openai"}]}}, Dialect.UNKNOWN),
        ({"/v1/models": {"data": "nonsense"}, "/info": [1, 2]}, Dialect.UNKNOWN),
        ({"/v1/models": "<html>It works!</html>"}, Dialect.UNKNOWN),
        ({"/v1/models": {"data": [{"id": "m", "owned_by": "vllm"}]}}, Dialect.VLLM),
        ({"/model_info": {"model_path": "m"}}, Dialect.SGLANG),
        ({"/v1/models": {"data": [7, {"owned_by": "llamacpp"}]}}, Dialect.LLAMA_SERVER),
        ({"/info": {"model_id": "m", "max_total_tokens": 8}}, Dialect.TGI),
    ],
)
async def test_a_dialect_is_guessed_or_left_unknown(answers: Mapping[str, Any], dialect: Dialect) -> None:
    async with serving(answers) as facts:
        assert (await facts.recognise()).dialect is dialect


async def test_a_version_that_is_no_version_is_not_shown() -> None:
    models = {"data": [{"id": "m", "owned_by": "vllm"}]}
    async with serving({"/v1/models": models, "/version": {"version": "\x1b[2J and more"}}) as facts:
        assert await facts.recognise() == Recognised(Dialect.VLLM, "owned_by: vllm in /v1/models")


@pytest.mark.parametrize(
    ("dialect", "text", "running"),
    [
        (Dialect.VLLM, 'vllm:num_requests_running{engine="0"} 2.0\nvllm:num_requests_running{engine="1"} 1.0\n', 3),
        (Dialect.SGLANG, "# TYPE sglang:num_running_reqs gauge\nsglang:num_running_reqs 0.0\n", 0),
        (Dialect.LLAMA_SERVER, "llamacpp:requests_processing 1\n", 1),
        (Dialect.TGI, "tgi_batch_current_size 4\ntgi_batch_current_max_tokens 99\n", 4),
    ],
)
async def test_every_engines_gauge_is_read_over_all_its_labels(dialect: Dialect, text: str, running: int) -> None:
    async with serving({"/metrics": text}) as facts:
        load = await facts.load(dialect)
    assert load is not None
    assert load.running == running


@pytest.mark.parametrize("text", ["", "vllm:num_requests_running NaN\n", "vllm:num_requests_running 1e999\n", "<html>"])
async def test_an_engine_without_its_gauge_tells_nothing(text: str) -> None:
    async with serving({"/metrics": text}) as facts:
        assert await facts.load(Dialect.VLLM) is None


async def test_llama_server_is_watched_by_its_slots_where_it_hides_its_metrics() -> None:
    slots = [{"id": 0, "is_processing": True}, {"id": 1, "is_processing": False}]
    async with serving({"/slots": slots}) as facts:
        assert await facts.load(Dialect.LLAMA_SERVER) == Load(1, "is_processing in /slots")
        assert await facts.load(Dialect.VLLM) is None
