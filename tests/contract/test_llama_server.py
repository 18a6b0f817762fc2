"""What only a real engine over HTTP shows: llama.cpp's server, its slots, its key, and answers that would be long."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing
from importlib import resources
from pathlib import Path
from statistics import median

import aiohttp
import pytest

from contract.subjects import HOME_TEMPLATE
from engines.llama_server import LlamaServer
from marginal.backends.chat_events import ChatEvents
from marginal.backends.llama_cpp import EngineSettings, LlamaCpp
from marginal.backends.openai_compatible import DONE, OpenAICompatible
from marginal.backends.openai_requests import Route, request
from marginal.backends.sse import EventStream
from marginal.errors import ConfigurationError, TierUnavailable
from marginal.evaluation.questions import read_questions, spread
from marginal.models.fetch import resolve
from marginal.policy.deferral import Deferral, Verdict
from marginal.routing.evidence import probe
from marginal.routing.ports import LanguageModel
from marginal.tokens import EarlyStop, FinishReason, Generation, Message, Role, Sampling

HOME_QUESTIONS = resources.files("marginal.models") / "home-questions.jsonl"
BUNDLED = (EarlyStop("min_margin", window=8, threshold=0.25), EarlyStop("min_margin", window=0, threshold=0.9))
"""As the policies `default` and `careful` judge."""

KEY = "CANARY-key"
ENDLESS = Generation((Message(Role.USER, "play some jazz"),), Sampling(max_tokens=30_000), alternatives=5)
TRIES = 10


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[LlamaServer]:
    async with LlamaServer(resolve("home-large"), parallel=2, context_tokens=32_768, key=KEY) as opened:
        yield opened


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    return file


async def steps(server: LlamaServer) -> float:
    return (await asyncio.to_thread(server.measured))["n_decode_total"]


async def test_a_long_answer_is_cut_within_100_ms_of_closing_its_generator(server: LlamaServer, key_file: Path) -> None:
    model = OpenAICompatible(server.url, api_key_file=key_file, extra_body={"ignore_eos": True})
    clock = asyncio.get_running_loop().time
    delays = []
    for _ in range(TRIES):
        chunks = model.generate(ENDLESS)
        for _ in range(3):
            await anext(chunks)
        early = await steps(server)
        await asyncio.sleep(0.03)
        assert await steps(server) > early, "it goes on as long as somebody reads"
        await chunks.aclose()
        closed, seen, stopped = clock(), -1.0, 0.0
        while clock() < closed + 0.4:
            now = await steps(server)
            if now == seen:
                await asyncio.sleep(0.01)
            else:
                seen, stopped = now, clock() - closed
        delays.append(stopped)
    await model.close()
    print(f"the engine stopped {median(delays) * 1000:.0f} ms after the close, {max(delays) * 1000:.0f} at most")  # noqa: T201
    assert max(delays) < 0.1


@pytest.mark.parametrize(("route", "template"), [("chat", "{}"), ("completions", HOME_TEMPLATE)])
async def test_two_hundred_decisions_are_those_of_the_same_file_in_process(route: str, template: str) -> None:
    file = resolve("home-small")
    embedded = LlamaCpp(file, name="home-small", settings=EngineSettings(parallel=1))
    async with LlamaServer(file, parallel=1) as server:
        served = OpenAICompatible(server.url, route=route, template=template)
        questions = spread(read_questions(HOME_QUESTIONS), limit=200)
        differing = []
        for question in questions:
            for rule in BUNDLED:
                here, there = [await decided(model, question.request, rule) for model in (embedded, served)]
                if here != there:
                    differing.append((question.id, rule.threshold, here, there))
        await served.close()
    embedded.close()
    assert len(questions) == 200
    assert differing == []


async def decided(model: LanguageModel, text: str, rule: EarlyStop) -> tuple[Verdict, int, str]:
    """What the router would decide, after how many tokens, and the answer up to there."""
    deferral, answer = Deferral(rule), ""
    generation = Generation((Message(Role.USER, text),), Sampling(max_tokens=64), alternatives=5)
    async with aclosing(model.generate(generation, timeout=30)) as chunks:
        async for chunk in chunks:
            for token in chunk.tokens:
                answer += token.text
                deferral.feed(token)
    return deferral.finish().verdict, deferral.finish().tokens_seen, answer


@pytest.mark.parametrize("alternatives", [0, 5])
@pytest.mark.parametrize("route", list(Route))
async def test_without_its_counts_ours_are_what_it_counted(
    server: LlamaServer, route: Route, alternatives: int
) -> None:
    questions = spread(read_questions(HOME_QUESTIONS), limit=100)
    finishes: Counter[FinishReason | None] = Counter()
    connector, headers = aiohttp.TCPConnector(force_close=True), {"Authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        for number, question in enumerate(questions):
            most = 6 if number % 10 == 0 else 64
            message = Message(Role.USER, question.request)
            generation = Generation((message,), Sampling(max_tokens=most), alternatives=alternatives)
            body = request(generation, model="", route=route, template=HOME_TEMPLATE)
            async with session.post(f"{server.url}{route.path}", json=body) as response:
                data = EventStream().feed(await response.read())
            events, told = ChatEvents(generation), 0
            for event in (json.loads(one) for one in data if one != DONE):
                told = (event.pop("usage", None) or {}).get("completion_tokens", told)
                event.pop("timings", None)
                events.take(event)
            assert events.last.usage.output_tokens == told > 0, question.id
            finishes[events.last.finish] += 1
    assert finishes[FinishReason.STOP] > finishes[FinishReason.LENGTH] > 0


async def test_a_key_is_read_from_its_file_again_when_that_changes(server: LlamaServer, key_file: Path) -> None:
    model = OpenAICompatible(server.url, api_key_file=key_file)
    short = Generation(ENDLESS.messages, Sampling(max_tokens=2))
    await asyncio.to_thread(key_file.write_text, "CANARY-wrong-key")
    with pytest.raises(TierUnavailable, match="status 401: check its API key") as caught:
        [chunk async for chunk in model.generate(short)]
    assert "CANARY" not in str(caught.value)
    await asyncio.to_thread(key_file.write_text, KEY)
    assert [chunk async for chunk in model.generate(short)]
    await model.close()


async def test_without_a_key_in_the_file_nothing_begins(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("  \n")
    with pytest.raises(ConfigurationError, match="api_key_file"):
        OpenAICompatible("http://127.0.0.1:1", api_key_file=tmp_path / "key")


async def test_its_evidence_is_taken_before_sampling(server: LlamaServer, key_file: Path) -> None:
    model = OpenAICompatible(server.url, api_key_file=key_file)
    assert (await probe(model)).before_sampling is True
    await model.close()


async def test_its_probabilities_after_sampling_are_no_evidence(server: LlamaServer, key_file: Path) -> None:
    processed = OpenAICompatible(server.url, api_key_file=key_file, extra_body={"post_sampling_probs": True})
    assert (await probe(processed)).before_sampling is None, "they are probabilities, which nobody asked for"
    await processed.close()


async def test_times_of_the_engine_come_with_the_finish(server: LlamaServer, key_file: Path) -> None:
    model = OpenAICompatible(server.url, api_key_file=key_file)
    async with aclosing(model.generate(Generation(ENDLESS.messages, Sampling(max_tokens=4)))) as chunks:
        *_, last = [chunk async for chunk in chunks]
    assert last.times is not None
    assert last.times.prompt_seconds is not None
    assert last.times.generation_seconds is not None
    await model.close()
