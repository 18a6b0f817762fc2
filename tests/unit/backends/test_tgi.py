"""What Text Generation Inference needs beyond the contract, against its dialect."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from dialects.answers import CONTEXT_TOKENS, words
from dialects.server import DialectServer
from dialects.tgi import MODEL
from marginal.backends.patience import Timeouts
from marginal.backends.tgi import TextGenerationInference
from marginal.errors import ConfigurationError, InvalidRequest, TierUnavailable
from marginal.tokens import Chunk, Generation, Message, Role, Sampling, Token

ROUTES = ("native", "chat")
CLOSED_SECONDS = 0.1
CANCELS = 1000


@pytest.fixture
async def server() -> AsyncIterator[DialectServer]:
    async with DialectServer("tgi") as server:
        yield server


@pytest.fixture(params=ROUTES)
async def model(server: DialectServer, request: pytest.FixtureRequest) -> AsyncIterator[TextGenerationInference]:
    model = TextGenerationInference(server.url, route=request.param)
    yield model
    await model.close()


def asking(text: str, *, max_tokens: int = 40, alternatives: int = 3, temperature: float = 0.0) -> Generation:
    return Generation(
        (Message(Role.USER, text),), Sampling(max_tokens, temperature, top_p=1.0, seed=-1), alternatives=alternatives
    )


async def chunks_of(model: TextGenerationInference, generation: Generation) -> list[Chunk]:
    async with aclosing(model.generate(generation, timeout=20)) as chunks:
        return [chunk async for chunk in chunks]


def tokens_of(chunks: list[Chunk]) -> list[Token]:
    return [token for chunk in chunks for token in chunk.tokens]


async def test_info_tells_the_model_and_how_much_it_holds(model: TextGenerationInference) -> None:
    description = await model.describe()
    assert (description.name, description.context_tokens, description.max_alternatives) == (MODEL, CONTEXT_TOKENS, 5)


@pytest.mark.parametrize("word", ["SPLIT", "SEPARATORS"])
async def test_no_character_is_lost_or_taken_for_a_line_end(model: TextGenerationInference, word: str) -> None:
    chunks = await chunks_of(model, asking(word))
    assert "".join(token.text for token in tokens_of(chunks)).encode() == b"".join(words(word))


async def test_a_token_that_is_not_among_the_surest_is_there_and_the_margin_is_that_of_the_first_two(
    model: TextGenerationInference,
) -> None:
    for token in tokens_of(await chunks_of(model, asking("SAMPLED"))):
        logprobs = [alternative.logprob for alternative in token.alternatives]
        assert len(logprobs) == 3
        assert token.logprob in logprobs
        assert logprobs == sorted(logprobs, reverse=True)


async def test_impossible_candidates_are_left_out(model: TextGenerationInference) -> None:
    tokens = tokens_of(await chunks_of(model, asking("CLAMPED", alternatives=5)))
    assert {len(token.alternatives) for token in tokens} == {5}


async def test_more_alternatives_than_the_engine_gives_are_asked_for_once(server: DialectServer) -> None:
    model = TextGenerationInference(server.url, alternatives=20)
    for _ in range(2):
        tokens = tokens_of(await chunks_of(model, asking("hello", alternatives=20)))
        assert {len(token.alternatives) for token in tokens} == {5}
    assert [entry.status for entry in server.log] == [422, 200, 200]
    assert (await model.describe()).max_alternatives == 5
    await model.close()


async def test_sampling_that_the_engine_would_refuse_is_left_out(model: TextGenerationInference) -> None:
    assert tokens_of(await chunks_of(model, asking("hello", temperature=0.7)))


async def test_a_conversation_goes_to_the_chat_route_whatever_is_asked(server: DialectServer) -> None:
    model = TextGenerationInference(server.url)
    conversation = Generation((Message(Role.SYSTEM, "be brief"), Message(Role.USER, "hello")), Sampling(40))
    assert (await chunks_of(model, conversation))[-1].usage.input_tokens == 11
    assert server.log[-1].route == "/v1/chat/completions"
    await model.close()


async def test_the_prompt_is_counted_before_the_first_token(model: TextGenerationInference) -> None:
    chunks = await chunks_of(model, asking("one two three"))
    assert {chunk.usage.input_tokens for chunk in chunks} == {chunks[-1].usage.input_tokens}


async def test_usage_is_counted_until_the_engine_tells_it_with_the_last_token(model: TextGenerationInference) -> None:
    *before, last = await chunks_of(model, asking("one two three"))
    assert all(chunk.usage.counted for chunk in before)
    assert not last.usage.counted


async def test_a_close_reaches_the_engine_at_once(model: TextGenerationInference, server: DialectServer) -> None:
    chunks = model.generate(asking("slowly"))
    await anext(chunks)
    closed = time.monotonic()
    await chunks.aclose()
    await server.quiet()
    cut_at = server.log[-1].cut_at
    assert cut_at is not None
    assert cut_at - closed < CLOSED_SECONDS


async def test_a_thousand_cancels_leave_no_task_and_no_generation(
    model: TextGenerationInference, server: DialectServer
) -> None:
    tasks = len(asyncio.all_tasks())

    async def cut() -> None:
        chunks = model.generate(asking("slowly"))
        await anext(chunks)
        await chunks.aclose()

    for _ in range(CANCELS // 50):
        await asyncio.gather(*[cut() for _ in range(50)])
    await server.quiet()
    await model.close()
    async with asyncio.timeout(5):
        while len(asyncio.all_tasks()) > tasks:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert {entry.cut for entry in server.log} == {"disconnect"}
    assert len(server.log) == CANCELS


async def test_the_key_of_the_file_is_sent_and_nobody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_theirs")
    (tmp_path / "key").write_text("ours\n")
    async with DialectServer("tgi", key="ours") as server:
        for file, refused in ((tmp_path / "key", False), (None, True)):
            model = TextGenerationInference(server.url, api_key_file=file)
            if refused:
                with pytest.raises(TierUnavailable, match="401"):
                    await chunks_of(model, asking("hello"))
            else:
                assert await chunks_of(model, asking("hello"))
            await model.close()
    async with DialectServer("tgi", key="hf_theirs") as server:
        model = TextGenerationInference(server.url)
        with pytest.raises(TierUnavailable):
            await chunks_of(model, asking("hello"))
        await model.close()


async def test_the_trace_goes_along(server: DialectServer) -> None:
    model = TextGenerationInference(server.url, headers=lambda: {"traceparent": "00-1-2-01"})
    await chunks_of(model, asking("hello"))
    assert server.log[-1].traceparent == "00-1-2-01"
    await model.close()


async def test_nobody_there_is_said_without_the_url() -> None:
    model = TextGenerationInference("http://user:secret@127.0.0.1:9/path?key=secret", timeouts=Timeouts(1.0, 1.0, 1.0))
    for ask in (model.describe, lambda: chunks_of(model, asking("hello"))):
        with pytest.raises(TierUnavailable) as caught:
            await ask()
        assert "secret" not in str(caught.value)
        assert "127" not in str(caught.value)
    await model.close()


async def test_an_answer_is_cut_to_the_room_that_a_long_prompt_leaves(model: TextGenerationInference) -> None:
    chunks = await chunks_of(model, asking("word " * 244))
    assert chunks[-1].usage.input_tokens + chunks[-1].usage.output_tokens == CONTEXT_TOKENS
    with pytest.raises(InvalidRequest, match=r"the prompt has 3.. tokens, the model holds 256"):
        await chunks_of(model, asking("word " * 300))


def test_parameters_that_the_native_route_does_not_have_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"extra_body.*chat_template"):
        TextGenerationInference("http://127.0.0.1:9", extra_body={"chat_template": "x"})
