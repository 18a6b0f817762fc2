"""The scripted model replays what it is given, when it is told to, and keeps account."""

import asyncio
from contextlib import aclosing

import pytest

from marginal.backends.script_names import scripted_model, token_with_margin
from marginal.backends.scripted import Script, ScriptedModel
from marginal.errors import ConfigurationError, DeadlineExceeded, InvalidRequest, StreamInterrupted, TierUnavailable
from marginal.policy.evidence import margin
from marginal.routing.ports import LanguageModel
from marginal.tokens import Chunk, EarlyStop, FinishReason, Generation, Message, Role, Sampling, Token

WORDS = tuple(token_with_margin(text, 0.9) for text in ("a ", "b ", "c ", "d "))


def asking(text: str = "what is it", *, max_tokens: int = 16, early_stop: EarlyStop | None = None) -> Generation:
    return Generation((Message(Role.USER, text),), Sampling(max_tokens), alternatives=5, early_stop=early_stop)


async def answer(model: LanguageModel, generation: Generation, *, timeout: float | None = None) -> list[Chunk]:
    async with aclosing(model.generate(generation, timeout=timeout)) as chunks:
        return [chunk async for chunk in chunks]


async def test_tokens_are_replayed_in_order_one_per_chunk() -> None:
    chunks = await answer(ScriptedModel(Script(WORDS)), asking())
    assert [chunk.tokens for chunk in chunks] == [*[(word,) for word in WORDS], ()]
    assert [chunk.usage.output_tokens for chunk in chunks] == [1, 2, 3, 4, 4]
    assert chunks[-1].finish is FinishReason.STOP
    assert chunks[0].usage.input_tokens == 3


async def test_a_chunk_carries_as_many_tokens_as_the_script_says() -> None:
    chunks = await answer(ScriptedModel(Script(WORDS, tokens_per_chunk=3)), asking())
    assert [len(chunk.tokens) for chunk in chunks] == [3, 1, 0]


async def test_tokens_come_when_they_are_due() -> None:
    loop = asyncio.get_running_loop()
    script = Script(WORDS, first_delay_seconds=0.05, delay_seconds=0.02)
    start = loop.time()
    async with aclosing(ScriptedModel(script).generate(asking())) as chunks:
        times = [loop.time() - start async for _ in chunks]
    assert all(seen >= due for seen, due in zip(times, (0.05, 0.07, 0.09, 0.11), strict=False))


async def test_an_error_comes_instead_of_the_token_it_is_set_at() -> None:
    model = ScriptedModel(Script(WORDS, fault=StreamInterrupted("cut"), fault_at=3, tokens_per_chunk=2))
    seen: list[Token] = []

    async def read() -> None:
        async with aclosing(model.generate(asking())) as chunks:
            async for chunk in chunks:
                seen.extend(chunk.tokens)

    with pytest.raises(StreamInterrupted):
        await read()
    assert tuple(seen) == WORDS[:3]
    assert model.runs[0].generated == 3
    assert not model.runs[0].cut


async def test_an_error_may_come_after_the_last_token() -> None:
    model = ScriptedModel(Script(WORDS, fault=StreamInterrupted("cut"), fault_at=4))
    with pytest.raises(StreamInterrupted):
        await answer(model, asking())
    assert model.generated == 4


async def test_an_answer_that_stops_before_the_error_is_set_does_not_fail() -> None:
    model = ScriptedModel(Script(WORDS, fault=StreamInterrupted("cut"), fault_at=3))
    assert (await answer(model, asking(max_tokens=2)))[-1].finish is FinishReason.LENGTH


async def test_a_cut_generation_is_recorded_with_what_it_had_generated() -> None:
    model = ScriptedModel(Script(WORDS))
    chunks = model.generate(asking())
    await anext(chunks)
    await anext(chunks)
    await chunks.aclose()
    run = model.runs[0]
    assert (run.cut, run.generated, run.finish, model.generated, model.active) == (True, 2, None, 2, 0)


async def test_the_script_may_be_chosen_by_what_is_asked() -> None:
    model = ScriptedModel(lambda generation: Script(WORDS[: len(generation.messages[0].text)]))
    assert len(await answer(model, asking("xy"))) == 3


async def test_an_early_stop_ends_the_chunk_at_the_deciding_token() -> None:
    tokens = (WORDS[0], token_with_margin("?", 0.1), WORDS[1])
    model = ScriptedModel(Script(tokens, tokens_per_chunk=3))
    chunks = await answer(model, asking(early_stop=EarlyStop("min_margin", 0, 0.5)))
    assert [len(chunk.tokens) for chunk in chunks] == [2, 0]
    assert chunks[-1].finish is FinishReason.UNSURE
    assert model.runs[0].finish is FinishReason.UNSURE


async def test_a_score_nobody_registered_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"early_stop\.score"):
        await answer(ScriptedModel(Script(WORDS)), asking(early_stop=EarlyStop("guess", 0, 0.5)))


async def test_a_deadline_passes_while_a_token_is_waited_for() -> None:
    loop = asyncio.get_running_loop()
    start = loop.time()
    with pytest.raises(DeadlineExceeded):
        await answer(ScriptedModel(Script(WORDS, first_delay_seconds=60)), asking(), timeout=0.05)
    assert loop.time() - start < 5


async def test_a_name_makes_a_model_with_tokens_margin_and_pace() -> None:
    model = scripted_model("scripted:tokens=3,delay_ms=1,margin=0.25,per_chunk=2")
    chunks = await answer(model, asking())
    assert [len(chunk.tokens) for chunk in chunks] == [2, 1, 0]
    assert all(margin(token) == pytest.approx(0.25) for chunk in chunks for token in chunk.tokens)
    assert (await model.describe()).name == "scripted:tokens=3,delay_ms=1,margin=0.25,per_chunk=2"


async def test_a_named_share_of_questions_is_answered_unsurely_and_always_the_same_ones() -> None:
    model = scripted_model("scripted:tokens=2,unsure=0.3")
    firsts = [(await answer(model, asking(f"question {i}")))[0].tokens[0] for i in range(400)]
    again = [(await answer(model, asking(f"question {i}")))[0].tokens[0] for i in range(400)]
    assert firsts == again
    assert 0.2 < sum(margin(token) < 0.5 for token in firsts) / 400 < 0.4


async def test_a_named_failure_before_the_first_token_is_an_unavailable_tier_and_later_an_interruption() -> None:
    with pytest.raises(TierUnavailable):
        await answer(scripted_model("scripted:fail_at=0"), asking())
    with pytest.raises(StreamInterrupted):
        await answer(scripted_model("scripted:fail_at=2"), asking())


async def test_a_full_margin_stays_finite() -> None:
    token = token_with_margin("x", 1.0)
    assert margin(token) == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["scripted:token=3", "scripted:tokens", "scripted:tokens=many", "scripted:margin=nan"])
def test_a_name_with_a_wrong_key_or_value_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="scripted model"):
        scripted_model(name)
