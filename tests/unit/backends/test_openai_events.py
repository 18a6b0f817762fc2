"""What vLLM, SGLang, llama-server and closed APIs stream, event by event, and what becomes of it.

A longer search: `FUZZ_EXAMPLES=2000 services/.venv/bin/python -m pytest -c tests/pytest.ini --timeout 0 -k any_json
tests/unit/backends/test_openai_events.py` runs for about a minute.
"""

import json
import math
import os
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marginal.backends.chat_events import ChatEvents
from marginal.backends.openai_events import finite
from marginal.errors import (
    BackendProtocol,
    InvalidRequest,
    MarginalError,
    Overloaded,
    StreamInterrupted,
    TierUnavailable,
)
from marginal.tokens import Chunk, EarlyStop, FinishReason, Generation, Message, Role, Sampling, Token, Usage

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "200"))
Event = dict[str, Any]


def asking(*, alternatives: int = 2, early_stop: EarlyStop | None = None, max_tokens: int = 64) -> Generation:
    message = Message(Role.USER, "hello")
    return Generation((message,), Sampling(max_tokens), alternatives=alternatives, early_stop=early_stop)


def row(text: str, *logprobs: Any, raw: bytes | None = None, **more: Any) -> Event:
    """An entry of `content`; its logprobs are those of the candidates, the first its own."""
    top = [{"token": text if not place else f"~{place}", "logprob": one} for place, one in enumerate(logprobs)]
    return {
        "token": text,
        "bytes": list(text.encode() if raw is None else raw),
        "logprob": logprobs[0] if logprobs else -0.1,
        "top_logprobs": top,
        **more,
    }


def chat(text: str | None, *rows: Event, finish: str | None = None, usage: Event | None = None) -> Event:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    event: Event = {"choices": [choice | ({"logprobs": {"content": list(rows)}} if rows else {"logprobs": None})]}
    return event if usage is None else event | {"usage": usage}


def legacy(text: str, finish: str | None = None, **arrays: Any) -> Event:
    return {"choices": [{"index": 0, "text": text, "logprobs": arrays or None, "finish_reason": finish}]}


def counted(prompt: Any, output: Any, **more: Any) -> Event:
    return {"prompt_tokens": prompt, "completion_tokens": output, **more}


def answer(*events: Event, generation: Generation | None = None, input_tokens: int = 3) -> list[Chunk]:
    reader = ChatEvents(generation or asking(), input_tokens=input_tokens)
    chunks = [chunk for event in events for chunk in reader.read(event)]
    return [*chunks[:-1], reader.last] if reader.ended else chunks


def tokens_of(chunks: list[Chunk]) -> list[Token]:
    return [token for chunk in chunks for token in chunk.tokens]


def texts_of(chunks: list[Chunk]) -> list[str]:
    return [token.text for token in tokens_of(chunks)]


def test_vllm_chat_role_rows_usage_everywhere_and_an_end_token_with_a_row() -> None:
    chunks = answer(
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None}]},
        chat("yes", row("yes", -0.1, -3.0), usage=counted(9, 1)),
        chat(" sir", row(" sir", -0.2, -2.0), usage=counted(9, 2)),
        chat("", row("<|im_end|>", -0.0, -9.0), finish="stop", usage=counted(9, 3)),
        {"choices": [], "usage": counted(9, 3, prompt_tokens_details={"cached_tokens": 8})},
    )
    assert texts_of(chunks) == ["yes", " sir"]
    assert [chunk.usage.output_tokens for chunk in chunks] == [1, 2, 3]
    assert chunks[0].usage.input_tokens == 9
    assert chunks[-1] == Chunk((), Usage(9, 3, 8), FinishReason.STOP)
    assert [other.text for other in tokens_of(chunks)[0].alternatives] == ["yes", "~1"]


def test_vllm_completions_parallel_arrays_keyed_by_text_with_one_more_than_asked_for() -> None:
    (token,) = tokens_of(
        answer(
            legacy(
                " b",
                tokens=[" b"],
                token_logprobs=[-2.5],
                top_logprobs=[{" b": -2.5, " a": -0.2, " c": -1.9}],
                text_offset=[5],
            )
        )
    )
    assert (token.text, token.logprob) == (" b", -2.5)
    assert [(other.text, other.logprob) for other in token.alternatives] == [(" a", -0.2), (" c", -1.9)]


def test_tokens_that_are_named_by_their_ids_keep_them_and_take_the_text_that_came() -> None:
    (token,) = tokens_of(
        answer(
            legacy(" b", tokens=["token_id:42"], token_logprobs=[-0.1], top_logprobs=[{"token_id:42": -0.1, "x": -4.0}])
        )
    )
    assert (token.text, token.token_id) == (" b", 42)
    assert [other.token_id for other in token.alternatives] == [42, None]


@pytest.mark.parametrize("shape", [None, {}, {"tokens": []}, {"content": None}, {"content": []}])
def test_text_without_rows_is_a_token_without_evidence(shape: object) -> None:
    event = {"choices": [{"index": 0, "text": "a", "logprobs": shape}]}
    assert tokens_of(answer(event)) == [Token("a")]


def test_arrays_that_are_too_short_leave_tokens_without_evidence() -> None:
    first, second = tokens_of(answer(legacy("ab", tokens=["a", "b"], token_logprobs=[-0.1], top_logprobs=None)))
    assert (first.text, first.logprob, second.text, second.logprob) == ("a", -0.1, "b", None)


def test_several_tokens_in_one_event_are_several_tokens() -> None:
    chunks = answer(chat("a b", row("a", -0.1, -3.0), row(" ", -0.2, -3.0), row("b", -0.3, -3.0)))
    assert [(token.text, token.logprob) for token in tokens_of(chunks)] == [("a", -0.1), (" ", -0.2), ("b", -0.3)]


def test_a_row_without_text_waits_for_it_and_keeps_its_evidence() -> None:
    first, second = chat("", row("", -0.7, -0.8, raw=b"")), chat("漢", row("漢", -0.1, -3.0))
    assert answer(first) == []
    assert [(token.text, token.logprob) for token in tokens_of(answer(first, second))] == [("", -0.7), ("漢", -0.1)]


def test_text_that_was_held_back_for_a_stop_string_comes_with_its_own_rows() -> None:
    chunks = answer(
        chat("a", row("a", -0.1, -3.0), row("\nQ", -0.2, -3.0)),
        chat("", row(":", -0.3, -3.0)),
        chat("\nQ: b", row(" b", -0.4, -3.0)),
        chat("", row("!", -0.5, -3.0), finish="stop"),
    )
    assert [(token.text, token.logprob) for token in tokens_of(chunks)] == [
        ("a", -0.1),
        ("\nQ", -0.2),
        (":", -0.3),
        (" b", -0.4),
    ]


def test_text_cut_within_a_token_waits_for_the_rest_of_it() -> None:
    chunks = answer(chat("ab", row("abcd", -0.1, -3.0)), chat("cd", row("", -9.0)))
    assert texts_of(chunks) == ["abcd"]


def test_a_leading_space_that_only_the_row_has_is_no_text() -> None:
    assert texts_of(answer(chat("Hello", row(" Hello", -0.1, -3.0)))) == ["Hello"]


def test_a_hidden_control_token_is_a_token_without_text() -> None:
    assert texts_of(answer(chat("", row("<think>", -0.1)), chat("Yes", row("Yes", -0.2)))) == ["", "Yes"]


def test_the_text_is_the_text_however_rows_are_written() -> None:
    fragments = [row("æ¼", -0.1, -3.0), row("¢ ", -0.2, -3.0)]
    chunks = answer(chat("", fragments[0]), chat("漢 ", fragments[1]), chat("x", row("x")))
    assert texts_of(chunks) == ["", "漢 ", "x"]


def test_a_fragment_that_the_engine_writes_as_a_replacement_is_read_from_its_bytes() -> None:
    parts = "漢".encode()
    chunks = answer(*(chat("\ufffd", row("\ufffd", -0.1, raw=part)) for part in (parts[:1], parts[1:2], parts[2:])))
    assert texts_of(chunks) == ["", "", "漢"]


def test_at_the_length_the_last_fragment_is_a_token_still() -> None:
    chunks = answer(chat("a", row("a")), chat("", row("", raw=b"\xe6"), finish="length"))
    assert texts_of(chunks) == ["a", ""]
    assert chunks[-1].finish is FinishReason.LENGTH
    assert chunks[-1].usage.output_tokens == 2


def test_llama_server_completions_have_content_rows_and_timings() -> None:
    event = {"choices": [{"index": 0, "text": "a", "logprobs": {"content": [row("a", -0.1, -3.0, id=7)]}}]}
    timings = {"cache_n": 8, "prompt_n": 1, "predicted_n": 1, "prompt_ms": 2.0, "predicted_ms": 4.0}
    end = {"choices": [{"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"}]}
    chunks = answer(event | {"timings": timings}, end | {"timings": timings | {"predicted_n": 2}})
    assert tokens_of(chunks)[0].token_id == 7
    assert chunks[-1].usage == Usage(9, 2, 8)
    assert chunks[-1].times is not None
    assert (chunks[-1].times.prompt_seconds, chunks[-1].times.generation_seconds) == (0.002, 0.004)


def test_a_closed_engine_without_logprobs_and_with_usage_at_the_end() -> None:
    chunks = answer(
        chat("Hello"),
        chat(" there, you"),
        chat(None, finish="stop"),
        {"choices": [], "usage": counted(21, 6)},
        generation=asking(alternatives=0),
    )
    assert tokens_of(chunks) == [Token("Hello"), Token(" there, you")]
    assert [chunk.usage for chunk in chunks] == [
        Usage(3, 1, counted=True),
        Usage(3, 2, counted=True),
        Usage(21, 6),
    ]


def test_rows_that_nobody_asked_for_are_no_evidence() -> None:
    chunks = answer(chat("a", row("a", -0.1, -3.0)), generation=asking(alternatives=0))
    assert tokens_of(chunks) == [Token("a")]


def test_reasoning_is_counted_and_is_neither_text_nor_evidence() -> None:
    thought = {"index": 0, "delta": {"reasoning_content": "hm"}, "logprobs": {"content": [row("hm", -0.1, -0.2)]}}
    chunks = answer({"choices": [thought]}, chat("yes", row("yes", -0.3, -2.0)), chat("", finish="stop"))
    assert [(token.text, token.logprob) for token in tokens_of(chunks)] == [("yes", -0.3)]
    assert [chunk.usage.output_tokens for chunk in chunks] == [2, 3], "the end token, which nobody showed, at the end"


def test_only_the_first_of_several_answers_is_read() -> None:
    other = {"choices": [{"index": 1, "text": "no", "finish_reason": "stop"}]}
    assert texts_of(answer(legacy("a"), other, legacy("b"))) == ["a", "b"]


@pytest.mark.parametrize("value", [-9999.0, -10_000.0, -math.inf, math.nan, None, 0.3, "-0.1", True])
def test_a_number_that_is_no_logprob_is_missing_and_its_candidate_is_dropped(value: Any) -> None:
    (token,) = tokens_of(answer(chat("a", row("a", value, -0.5, value))))
    assert token.logprob is None
    assert [other.logprob for other in token.alternatives] == [-0.5]
    assert finite(value) is None


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        counted(0, 0),
        counted(-1, -1),
        counted(None, None),
        counted("9", "1"),
        counted(9, 10**9),
        counted(9, 1),
    ],
)
def test_usage_that_cannot_be_true_is_not_believed(usage: Any) -> None:
    chunks = answer(chat("a", row("a")), chat("b", row("b"), finish="stop"), {"choices": [], "usage": usage})
    assert chunks[-1].usage.output_tokens == 2
    assert chunks[-1].usage.input_tokens in (3, 9)


@pytest.mark.parametrize("reason", ["abort", "error", "cancelled"])
def test_an_answer_that_its_engine_gave_up_is_no_answer(reason: str) -> None:
    with pytest.raises(StreamInterrupted):
        answer(chat("a", row("a")), chat("", finish=reason))
    with pytest.raises(TierUnavailable):
        answer(chat("", finish=reason))


@pytest.mark.parametrize(
    ("error", "before", "after"),
    [
        ({"error": {"message": "CANARY", "code": 500}}, TierUnavailable, StreamInterrupted),
        ({"error": {"message": "CANARY", "code": "server_error"}}, TierUnavailable, StreamInterrupted),
        ({"error": {"message": "CANARY", "code": 429}}, Overloaded, StreamInterrupted),
        ({"error": "CANARY", "error_type": "overloaded"}, Overloaded, StreamInterrupted),
        ({"error": {"message": "CANARY", "code": 400}}, InvalidRequest, StreamInterrupted),
        ({"object": "error", "message": "CANARY", "code": 503}, Overloaded, StreamInterrupted),
        ({"error": {"code": "context_length_exceeded", "message": "CANARY"}}, InvalidRequest, InvalidRequest),
        ({"error": 5}, BackendProtocol, BackendProtocol),
    ],
)
def test_an_error_within_the_stream_is_ours_by_what_came_before(
    error: Event, before: type[MarginalError], after: type[MarginalError]
) -> None:
    with pytest.raises(before) as first:
        answer(error)
    with pytest.raises(after) as second:
        answer(chat("a", row("a")), error)
    assert "CANARY" not in f"{first.value}{second.value}"


def test_the_deciding_token_is_the_last_that_counts_and_its_prompt_is_counted_too() -> None:
    rule = EarlyStop("min_margin", 0, 0.5)
    event = chat("ab", row("a", -0.69, -0.70), row("b", -0.1, -3.0), usage=counted(9, 2))
    chunks = answer(event, generation=asking(early_stop=rule))
    assert texts_of(chunks) == ["a"]
    assert chunks[-1] == Chunk((), Usage(9, 1, counted=True), FinishReason.UNSURE)


LOGPROBS = st.floats() | st.none() | st.integers() | st.text(max_size=2) | st.just(-9999.0)
WORDS = st.sampled_from(["a", " b", "", "漢", "\ufffd", "<|end|>", "token_id:7", "token_id:x"])
ENTRIES = st.fixed_dictionaries(
    {"token": WORDS, "logprob": LOGPROBS},
    optional={
        "id": st.integers() | st.none() | st.text(max_size=1),
        "bytes": st.none() | st.lists(st.integers(-1, 256), max_size=4),
        "top_logprobs": st.none() | st.lists(st.fixed_dictionaries({"token": WORDS, "logprob": LOGPROBS}), max_size=4),
    },
)
ARRAYS = st.fixed_dictionaries(
    {"tokens": st.lists(WORDS, max_size=3)},
    optional={
        "token_logprobs": st.none() | st.lists(LOGPROBS, max_size=4),
        "top_logprobs": st.none() | st.lists(st.none() | st.dictionaries(WORDS, LOGPROBS, max_size=4), max_size=4),
    },
)
CHOICES = st.fixed_dictionaries(
    {},
    optional={
        "index": st.integers(0, 1) | st.none(),
        "text": WORDS | st.none(),
        "delta": st.none() | st.fixed_dictionaries({}, optional={"content": WORDS | st.none(), "reasoning": WORDS}),
        "logprobs": st.none() | ARRAYS | st.fixed_dictionaries({"content": st.none() | st.lists(ENTRIES, max_size=3)}),
        "finish_reason": st.sampled_from([None, "", "stop", "length", "abort", "tool_calls", 7]),
    },
)
COUNTS = st.none() | st.integers() | st.floats() | st.text(max_size=2)
EVENTS = st.fixed_dictionaries(
    {},
    optional={
        "choices": st.lists(CHOICES, max_size=2) | st.none(),
        "usage": st.none() | st.fixed_dictionaries({"prompt_tokens": COUNTS, "completion_tokens": COUNTS}),
        "timings": st.none() | st.dictionaries(st.sampled_from(["prompt_n", "predicted_n", "cache_n"]), COUNTS),
    },
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "delta", "content", "logprobs", "tokens", "usage", "error", "timings", "text"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=24,
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(EVENTS | st.dictionaries(st.sampled_from(["choices", "usage", "error", "object"]), JSON), max_size=5))
def test_any_json_is_read_or_refused_and_what_is_read_keeps_the_promises(events: list[Event]) -> None:
    reader = ChatEvents(asking(max_tokens=8), input_tokens=3)
    chunks: list[Chunk] = []
    with suppress(MarginalError):
        for event in events:
            chunks += reader.read(event)
    before = Usage()
    for chunk in chunks:
        assert chunk.tokens or chunk.finish
        assert chunk.usage.output_tokens >= before.output_tokens
        assert chunk.usage.input_tokens >= max(1, chunk.usage.cached_input_tokens)
        before = chunk.usage
    assert before.output_tokens >= len(tokens_of(chunks))
    for token in tokens_of(chunks):
        logprobs = [other.logprob for other in token.alternatives]
        assert logprobs == sorted(logprobs, reverse=True)
        assert len(logprobs) <= 2
        numbers = logprobs if token.logprob is None else [token.logprob, *logprobs]
        assert all(math.isfinite(number) and number <= 0 for number in numbers)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(st.tuples(WORDS, st.booleans()), max_size=12), st.data())
def test_no_text_is_lost_or_added_however_rows_and_text_are_dealt_out(
    pieces: list[tuple[str, bool]], data: st.DataObject
) -> None:
    text = "".join(word for word, _ in pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), min_size=len(pieces), max_size=len(pieces))))
    parts = [text[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    dealt = [
        chat(part, *([row(word)] if has_row else [])) for (word, has_row), part in zip(pieces, parts, strict=False)
    ]
    chunks = answer(*dealt, chat(parts[-1], finish="stop"))
    assert "".join(texts_of(chunks)) == text


def test_an_event_of_python_and_of_json_are_the_same() -> None:
    event = chat("a", row("a", math.nan, -0.5))
    assert answer(json.loads(json.dumps(event))) == answer(event)
