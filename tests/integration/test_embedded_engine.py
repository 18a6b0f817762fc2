"""What only the embedded engine can get wrong: files, sampling, slots, its port, its noise, tokens nobody wants."""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from marginal.backends.llama_cpp import EngineSettings, LlamaCpp
from marginal.errors import ConfigurationError, DeadlineExceeded, InvalidRequest
from marginal.models.fetch import resolve
from marginal.tokens import EarlyStop, FinishReason, Generation, Message, Role, Sampling, Token

CHORE = "turn off the light in the kitchen and remind me on friday at 17:00 to call anna"
COLD = Sampling(max_tokens=32)


def asking(
    text: str = CHORE,
    *,
    sampling: Sampling = COLD,
    alternatives: int = 5,
    early_stop: EarlyStop | None = None,
) -> Generation:
    return Generation((Message(Role.USER, text),), sampling, alternatives=alternatives, early_stop=early_stop)


async def tokens_of(model: LlamaCpp, generation: Generation, *, timeout: float | None = None) -> list[Token]:
    async with aclosing(model.generate(generation, timeout=timeout)) as chunks:
        return [token async for chunk in chunks for token in chunk.tokens]


async def text_of(model: LlamaCpp, generation: Generation) -> str:
    return "".join(token.text for token in await tokens_of(model, generation))


@pytest.fixture(scope="module")
async def model() -> AsyncIterator[LlamaCpp]:
    loaded = LlamaCpp(resolve("home-small"), name="home-small", settings=EngineSettings(parallel=2))
    yield loaded
    loaded.close()


async def test_an_early_stop_costs_the_engine_at_most_a_few_steps_beyond_the_deciding_token(model: LlamaCpp) -> None:
    beyond = []
    for number in range(20, 40):
        before = model.measured()["n_decode_total"]
        question = asking(f"what is {number} plus 17", early_stop=EarlyStop("min_margin", 0, 0.999))
        async with aclosing(model.generate(question)) as chunks:
            last = [chunk async for chunk in chunks][-1]
        await asyncio.sleep(0.02)
        if last.finish is FinishReason.UNSURE:
            beyond.append(model.measured()["n_decode_total"] - before - last.usage.output_tokens)
    assert beyond
    assert sum(beyond) / len(beyond) <= 2.0
    assert min(beyond) >= 0


async def test_a_seed_makes_a_warm_answer_repeatable_and_another_seed_another(model: LlamaCpp) -> None:
    warm = [Sampling(max_tokens=32, temperature=2.0, seed=seed) for seed in (1, 1, 2, 3, 4, 2**63)]
    texts = [await text_of(model, asking(sampling=sampling)) for sampling in warm]
    assert texts[0] == texts[1]
    assert len(set(texts)) > 1


async def test_the_least_nucleus_is_greedy_at_any_temperature(model: LlamaCpp) -> None:
    warm = Sampling(max_tokens=32, temperature=2.0, top_p=1e-6, seed=5)
    assert await text_of(model, asking(sampling=warm)) == await text_of(model, asking())


async def test_evidence_is_of_the_model_before_temperature(model: LlamaCpp) -> None:
    cold = (await tokens_of(model, asking()))[0]
    warm = (await tokens_of(model, asking(sampling=Sampling(max_tokens=1, temperature=2.0, seed=1))))[0]
    pairs = zip(cold.alternatives, warm.alternatives, strict=True)
    assert all(one.logprob == pytest.approx(other.logprob, abs=0.05) for one, other in pairs)


async def test_characters_of_several_tokens_come_whole_and_every_token_is_counted(model: LlamaCpp) -> None:
    kept_back = 0
    for seed in range(60):
        wild = Generation((Message(Role.USER, "漢字 🎉 " * 5),), Sampling(24, 2.0, seed=seed), alternatives=5)
        async with aclosing(model.generate(wild)) as chunks:
            heard = [chunk async for chunk in chunks]
        tokens = [token for chunk in heard for token in chunk.tokens]
        assert "".join(token.text for token in tokens).encode("utf-8")  # no half of a character
        assert [chunk.usage.output_tokens for chunk in heard if chunk.tokens][-1:] == [len(tokens)][: len(tokens)]
        assert not any(chunk.usage.counted for chunk in heard)  # they are the engine's own
        kept_back += sum(not token.text for token in tokens)
    assert kept_back


async def test_more_alternatives_than_there_are_is_refused(model: LlamaCpp) -> None:
    with pytest.raises(InvalidRequest, match="alternatives: 21 is more than 20"):
        await tokens_of(model, asking(alternatives=21))
    assert {len(token.alternatives) for token in await tokens_of(model, asking(alternatives=20))} == {20}


async def test_a_generation_that_waits_for_a_slot_is_cut_at_once_and_never_begins() -> None:
    model = LlamaCpp(resolve("home-large"), name="home-large", settings=EngineSettings(parallel=1))
    busy = [asyncio.create_task(tokens_of(model, asking())) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(DeadlineExceeded):
        await tokens_of(model, asking("play some jazz"), timeout=0.0)
    answers = await asyncio.gather(*busy)
    assert answers[0] == answers[1] == answers[2]
    model.close()


async def test_a_generation_may_be_of_several_turns_and_a_system_message(model: LlamaCpp) -> None:
    turns = (
        Message(Role.SYSTEM, "you run a home"),
        Message(Role.USER, "hello"),
        Message(Role.ASSISTANT, "sorry, unknown"),
        Message(Role.USER, CHORE),
    )
    assert await tokens_of(model, Generation(turns, Sampling(max_tokens=8)))


async def test_the_engines_own_port_is_closed_to_everybody(model: LlamaCpp) -> None:
    address = model._engine.listening_address  # noqa: SLF001 (the port is what is tested)
    assert address.startswith("http://127.0.0.1:")
    for route in ("/completion", "/v1/chat/completions", "/tokenize"):
        request = urllib.request.Request(address + route, data=json.dumps({"prompt": "x"}).encode())  # noqa: S310
        with pytest.raises(urllib.error.HTTPError, match="401") as caught:
            await asyncio.to_thread(urllib.request.urlopen, request)
        caught.value.close()


async def test_the_engine_writes_nothing_to_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    model = LlamaCpp(resolve("home-small"), name="home-small", settings=EngineSettings(parallel=1))
    await tokens_of(model, asking())
    model.close()
    assert capfd.readouterr() == ("", "")


async def test_the_context_is_cut_to_what_the_model_was_trained_for() -> None:
    model = LlamaCpp(resolve("home-small"), name="own name", settings=EngineSettings(context_tokens=100_000))
    description = await model.describe()
    assert (description.name, description.context_tokens, description.max_alternatives) == ("own name", 256, 20)
    model.close()


def test_a_model_may_be_closed_as_soon_as_it_is_loaded() -> None:
    for _ in range(20):
        LlamaCpp(resolve("home-small"), name="home-small").close()


def test_a_file_that_is_no_model_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "notes.gguf"
    path.write_text("not a model")
    with pytest.raises(ConfigurationError, match=r"notes\.gguf"):
        LlamaCpp(path, name="notes")


def test_a_model_whose_weights_are_cut_off_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "half.gguf"
    whole = resolve("home-small").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigurationError, match=r"half\.gguf"):
        LlamaCpp(path, name="half")
