"""What every language model promises, whatever answers: a script, an engine in this process, or either over gRPC."""

import asyncio
import math
import threading
from contextlib import aclosing, suppress
from pathlib import Path

import pytest

from contract.subjects import PARALLEL, SLOW, Subject
from marginal.errors import DeadlineExceeded, InvalidRequest
from marginal.policy.evidence import margin
from marginal.routing.evidence import probe
from marginal.routing.ports import LanguageModel
from marginal.tokens import Chunk, EarlyStop, FinishReason, Generation, Message, Role, Sampling, Token, Usage

QUESTIONS = (
    "set a timer for 5 minutes for the eggs",
    "add milk and bread to the shopping list",
    "wake me on thursday at half past six",
    "what is 17 plus 25",
    "turn the bedroom light to 33 percent",
    "play some jazz",
    "remind me on friday at 17:00 to call anna",
    "who won the cup in 1974",
)
LONG = f"turn off the light in the kitchen, {SLOW}, and remind me on friday at 17:00 to call anna"
WIDE = "word " * 60
TOO_WIDE = "word " * 1000
ANSWER_TOKENS = 32


def asking(
    text: str, *, max_tokens: int = ANSWER_TOKENS, alternatives: int = 5, early_stop: EarlyStop | None = None
) -> Generation:
    return Generation(
        (Message(Role.USER, text),), Sampling(max_tokens), alternatives=alternatives, early_stop=early_stop
    )


async def chunks_of(model: LanguageModel, generation: Generation) -> list[Chunk]:
    async with asyncio.timeout(60), aclosing(model.generate(generation, timeout=60)) as chunks:
        return [chunk async for chunk in chunks]


def tokens_of(chunks: list[Chunk]) -> list[Token]:
    return [token for chunk in chunks for token in chunk.tokens]


def text_of(chunks: list[Chunk]) -> str:
    return "".join(token.text for token in tokens_of(chunks))


async def cut_after_first_chunk(model: LanguageModel, generation: Generation) -> None:
    chunks = model.generate(generation, timeout=60)
    await anext(chunks)
    await chunks.aclose()


async def test_every_token_carries_alternatives_sorted_and_finite_or_none(model: LanguageModel) -> None:
    for question in QUESTIONS:
        for token in tokens_of(await chunks_of(model, asking(question))):
            logprobs = [alternative.logprob for alternative in token.alternatives]
            assert logprobs == sorted(logprobs, reverse=True)
            assert len(logprobs) <= 5
            numbers = logprobs if token.logprob is None else [token.logprob, *logprobs]
            assert all(math.isfinite(number) and number <= 0.0 for number in numbers)


async def test_the_streamed_logprobs_are_evidence_enough_for_a_small_tier(model: LanguageModel) -> None:
    evidence = await probe(model)
    assert evidence.shortfall is None


async def test_the_text_is_the_tokens_put_together_and_whole_characters(model: LanguageModel) -> None:
    for question in QUESTIONS:
        chunks = await chunks_of(model, asking(question))
        text = text_of(chunks)
        assert text
        assert "\N{REPLACEMENT CHARACTER}" not in text
        assert text == text_of(await chunks_of(model, asking(question, alternatives=0)))


async def test_without_alternatives_asked_for_no_evidence_comes(model: LanguageModel) -> None:
    tokens = tokens_of(await chunks_of(model, asking(QUESTIONS[0], alternatives=0)))
    assert {(token.logprob, token.alternatives) for token in tokens} == {(None, ())}


async def test_usage_is_cumulative_never_falls_and_is_never_zero_when_text_came(model: LanguageModel) -> None:
    for question in QUESTIONS:
        chunks = await chunks_of(model, asking(question))
        before, seen = Usage(), 0
        for chunk in chunks:
            seen += len(chunk.tokens)
            assert chunk.usage.output_tokens >= max(before.output_tokens, seen)
            assert chunk.usage.input_tokens >= max(before.input_tokens, 1)
            assert chunk.usage.input_tokens >= chunk.usage.cached_input_tokens >= before.cached_input_tokens
            before = chunk.usage
        assert before.output_tokens - seen in (0, 1), "beyond what was streamed there is at most the end token"


async def test_there_is_exactly_one_finish_and_it_comes_last(model: LanguageModel) -> None:
    for question in QUESTIONS:
        chunks = await chunks_of(model, asking(question))
        assert [chunk.finish is not None for chunk in chunks] == [*[False] * (len(chunks) - 1), True]
        assert chunks[-1].finish is FinishReason.STOP


@pytest.mark.parametrize("most", [1, 3])
async def test_max_tokens_is_kept(model: LanguageModel, most: int) -> None:
    chunks = await chunks_of(model, asking(LONG, max_tokens=most))
    assert len(tokens_of(chunks)) == chunks[-1].usage.output_tokens == most
    assert chunks[-1].finish is FinishReason.LENGTH


async def test_closing_the_generator_stops_the_generation_within_one_token(subject: Subject) -> None:
    await cut_after_first_chunk(subject.model, asking(LONG))
    at_close = subject.computed()
    await asyncio.sleep(0.6)
    assert subject.computed() <= at_close + subject.allowance


async def test_a_closed_generation_frees_its_slot(model: LanguageModel) -> None:
    await asyncio.gather(*[cut_after_first_chunk(model, asking(LONG)) for _ in range(2 * PARALLEL)])
    async with asyncio.timeout(20):
        await asyncio.gather(*[chunks_of(model, asking(question)) for question in QUESTIONS])


async def test_a_generation_that_was_never_begun_can_be_closed(model: LanguageModel) -> None:
    await model.generate(asking(LONG)).aclose()


async def test_cancelling_the_task_that_reads_stops_the_generation_too(subject: Subject) -> None:
    begun = asyncio.Event()

    async def read() -> None:
        async with aclosing(subject.model.generate(asking(LONG))) as chunks:
            async for _ in chunks:
                begun.set()
                await asyncio.sleep(30)

    reading = asyncio.create_task(read())
    await begun.wait()
    reading.cancel()
    with suppress(asyncio.CancelledError):
        await reading
    at_cancel = subject.computed()
    await asyncio.sleep(0.6)
    assert subject.computed() <= at_cancel + subject.allowance


async def test_eight_generations_at_once_are_complete_and_the_same_as_one_by_one(model: LanguageModel) -> None:
    alone = [text_of(await chunks_of(model, asking(question))) for question in QUESTIONS]
    together = await asyncio.gather(*[chunks_of(model, asking(question)) for question in QUESTIONS])
    assert [text_of(chunks) for chunks in together] == alone
    assert all(chunks[-1].finish is FinishReason.STOP for chunks in together)


async def test_an_early_stop_ends_at_the_deciding_token_and_says_unsure(model: LanguageModel) -> None:
    for question in QUESTIONS:
        whole = tokens_of(await chunks_of(model, asking(question)))
        margins = [margin(token) for token in whole]
        weakest = margins.index(min(margins))
        threshold = (margins[weakest] + min(margins[:weakest], default=1.0)) / 2
        chunks = await chunks_of(model, asking(question, early_stop=EarlyStop("min_margin", 0, threshold)))
        *surer, deciding = tokens_of(chunks)
        assert margin(deciding) < threshold <= min(map(margin, surer), default=1.0)
        assert "".join(token.text for token in whole).startswith(text_of(chunks))
        assert chunks[-1].finish is FinishReason.UNSURE
        assert chunks[-1].usage.output_tokens == len(tokens_of(chunks))


async def test_an_early_stop_that_is_never_sure_to_fail_changes_nothing(model: LanguageModel) -> None:
    stop = EarlyStop("min_margin", 0, 0.0)
    chunks = await chunks_of(model, asking(QUESTIONS[0], early_stop=stop))
    assert text_of(chunks) == text_of(await chunks_of(model, asking(QUESTIONS[0])))
    assert chunks[-1].finish is FinishReason.STOP


async def test_a_deadline_that_passes_raises_and_frees_the_slot(model: LanguageModel) -> None:
    for _ in range(2 * PARALLEL):
        with pytest.raises(DeadlineExceeded):
            async with aclosing(model.generate(asking(WIDE + SLOW), timeout=0.001)) as chunks:
                [chunk async for chunk in chunks]
    assert text_of(await chunks_of(model, asking(QUESTIONS[0])))


async def test_a_reader_that_is_later_than_the_deadline_is_told_so(model: LanguageModel) -> None:
    chunks = model.generate(asking(LONG), timeout=1.0)
    await anext(chunks)
    await asyncio.sleep(1.2)
    with pytest.raises(DeadlineExceeded):
        [chunk async for chunk in chunks]
    await chunks.aclose()


async def test_a_prompt_that_is_too_long_is_refused_with_counts_and_names_the_messages(model: LanguageModel) -> None:
    limit = (await model.describe()).context_tokens
    with pytest.raises(InvalidRequest, match=rf"\d+ tokens, the model holds {limit}") as caught:
        await chunks_of(model, asking(TOO_WIDE))
    assert caught.value.field == "messages"


async def test_prompt_and_answer_together_never_exceed_the_context(subject: Subject) -> None:
    limit = (await subject.model.describe()).context_tokens
    ten, twenty = [
        (await chunks_of(subject.model, asking("word " * count)))[-1].usage.input_tokens for count in (10, 20)
    ]
    count = 20 + (limit - twenty - 8) * 10 // (twenty - ten)
    chunks = await chunks_of(subject.model, asking("word " * count))
    used = chunks[-1].usage
    assert limit - 12 <= used.input_tokens < used.input_tokens + used.output_tokens <= limit
    assert chunks[-1].finish is FinishReason.LENGTH or len(tokens_of(chunks)) < used.output_tokens


async def test_control_tokens_that_a_user_writes_stay_text(subject: Subject) -> None:
    used = {}
    for text in ("timer", "timer<|end|>", "timer<|USER|>"):
        used[text] = (await chunks_of(subject.model, asking(text)))[-1].usage.input_tokens
    more = 4 if subject.real_engine else 0
    assert used["timer<|end|>"] >= used["timer"] + more, "as a control token it would be one more"
    assert used["timer<|USER|>"] >= used["timer"] + more, "as a control token it would be one more"


async def test_a_cancel_reaches_the_engine_in_under_100_ms(subject: Subject) -> None:
    await cut_after_first_chunk(subject.model, asking(LONG))
    clock = asyncio.get_running_loop().time
    closed, seen, stopped = clock(), subject.computed(), 0.0
    while clock() < closed + 0.5:
        await asyncio.sleep(0.005)
        if subject.computed() != seen:
            seen, stopped = subject.computed(), clock() - closed
    assert stopped < 0.1


async def test_a_thousand_cancels_leak_no_socket_no_task_and_no_thread(model: LanguageModel) -> None:
    await asyncio.gather(*[chunks_of(model, asking(question)) for question in QUESTIONS])
    tasks, threads, sockets = len(asyncio.all_tasks()), threading.active_count(), open_sockets()
    for _ in range(1000 // len(QUESTIONS)):
        await asyncio.gather(*[cut_after_first_chunk(model, asking(LONG)) for _ in QUESTIONS])
    async with asyncio.timeout(10):
        while (  # noqa: ASYNC110
            len(asyncio.all_tasks()) > tasks or threading.active_count() > threads or open_sockets() > sockets
        ):
            await asyncio.sleep(0.05)
    assert text_of(await chunks_of(model, asking(QUESTIONS[0])))


def open_sockets() -> int:
    """Sockets that this process holds; a descriptor that is closed meanwhile is none."""
    found = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found += str(descriptor.readlink()).startswith("socket:")
    return found
