"""Reading an engine's events: numbers pass one gate, counts are true, and the answer ends at the deciding token."""

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marginal.backends.chat_events import ChatEvents, finite
from marginal.errors import BackendProtocol, InvalidRequest, MarginalError, StreamInterrupted, TierUnavailable
from marginal.tokens import Chunk, EarlyStop, FinishReason, Generation, Message, Role, Sampling, Token

FLOATS = st.floats(allow_nan=True, allow_infinity=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOATS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def asking(*, alternatives: int = 5, early_stop: EarlyStop | None = None) -> Generation:
    return Generation((Message(Role.USER, "hello"),), alternatives=alternatives, early_stop=early_stop)


def entry(text: str, logprob: Any = -0.1, *, top: Sequence[Any] = (-0.1, -2.5)) -> dict[str, Any]:
    others = [{"token": f"{text}{i}", "bytes": list(f"{text}{i}".encode()), "logprob": p} for i, p in enumerate(top)]
    return {"id": 7, "token": text, "bytes": list(text.encode()), "logprob": logprob, "top_logprobs": others}


def event(*entries: dict[str, Any], predicted: int | None = None, finish: str | None = None) -> dict[str, Any]:
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish, "delta": {}}
    if entries:
        choice["delta"]["content"] = "".join(one["token"] for one in entries)
        choice["logprobs"] = {"content": list(entries)}
    timings = {"prompt_n": 3, "cache_n": 9} | ({} if predicted is None else {"predicted_n": predicted})
    return {"choices": [choice], "timings": timings}


def tokens_of(chunks: Sequence[Chunk]) -> list[Token]:
    return [token for chunk in chunks for token in chunk.tokens]


def test_a_token_comes_with_its_text_its_logprob_and_its_sorted_alternatives() -> None:
    (chunk,) = ChatEvents(asking()).read(event(entry("yes", -0.7, top=(-3.0, -0.7, -1.0)), predicted=1))
    (token,) = chunk.tokens
    assert (token.text, token.logprob, token.token_id) == ("yes", -0.7, 7)
    assert [other.logprob for other in token.alternatives] == [-0.7, -1.0, -3.0]
    assert (chunk.usage.input_tokens, chunk.usage.cached_input_tokens, chunk.usage.output_tokens) == (12, 9, 1)


def test_an_event_without_text_carries_no_chunk() -> None:
    assert ChatEvents(asking()).read({"choices": [{"delta": {"role": "assistant", "content": None}}]}) == ()


def test_a_finish_comes_alone_and_its_count_includes_the_end_token() -> None:
    events = ChatEvents(asking())
    events.read(event(entry("yes"), predicted=1))
    (last,) = events.read(event(predicted=2, finish="stop"))
    assert (last.tokens, last.finish, last.usage.output_tokens) == ((), FinishReason.STOP, 2)
    assert events.ended


def test_an_engine_that_does_not_count_is_counted_for() -> None:
    events = ChatEvents(asking())
    events.read(event(entry("a"), entry("b")))
    (last,) = events.read(event(finish="length"))
    assert (last.usage.output_tokens, last.finish) == (2, FinishReason.LENGTH)


def told(*, output: int, prompt: int = 3) -> dict[str, Any]:
    return {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": output}}


def test_usage_is_the_engines_for_as_long_as_it_tells_it_and_else_counted() -> None:
    events = ChatEvents(asking(), input_tokens=2)
    sources = []
    for one in (event(entry("a"), predicted=1), {"choices": [{"text": "b"}]}, event(entry("c"), predicted=3)):
        events.take(one)
        sources.append(events.usage.counted)
    assert sources == [False, True, False]


def test_usage_of_an_answer_whose_engine_tells_it_at_the_end_is_counted_until_then() -> None:
    events = ChatEvents(asking(), input_tokens=2)
    events.take({"choices": [{"text": "a", "finish_reason": "length"}]})
    assert events.last.usage.counted
    events.take(told(output=1))
    assert not events.last.usage.counted


@pytest.mark.parametrize(
    "usage", [told(output=0), told(output=1), told(output=2, prompt=0), told(output=10**9), {"choices": []}]
)
def test_usage_that_is_missing_or_cannot_be_true_is_counted_and_never_0(usage: dict[str, Any]) -> None:
    events = ChatEvents(asking(), input_tokens=2)
    events.take({"choices": [{"text": "a"}]})
    events.take({"choices": [{"text": "b", "finish_reason": "length"}]})
    events.take(usage)
    assert events.last.usage.counted
    assert events.last.usage.output_tokens == 2
    assert events.last.usage.input_tokens >= 2


def test_usage_up_to_a_deciding_token_is_the_engines_if_it_told_just_that() -> None:
    deciding = asking(early_stop=EarlyStop("min_margin", 0, 0.5))
    first = ChatEvents(deciding)
    first.take(event(entry("a", -0.69, top=(-0.69, -0.7)), predicted=1))
    both = ChatEvents(deciding)
    both.take(event(entry("a", -0.69, top=(-0.69, -0.7)), entry("b"), predicted=2))
    assert [events.last.finish for events in (first, both)] == [FinishReason.UNSURE] * 2
    assert [events.last.usage.output_tokens for events in (first, both)] == [1, 1]
    assert [events.last.usage.counted for events in (first, both)] == [False, True]


END = {"token": "<|end|>", "logprob": -0.1, "top_logprobs": []}
EMPTY = END | {"token": "", "bytes": []}


@pytest.mark.parametrize(
    ("last", "told", "counted"),
    [
        ({"delta": {}}, 0, 3),
        ({"delta": {}, "logprobs": {"content": []}}, 0, 3),
        ({"delta": {}, "stop_reason": None, "matched_stop": 2}, 0, 3),
        ({"delta": {}, "stop_reason": "\n"}, 0, 2),
        ({"delta": {}, "matched_stop": "\n"}, 0, 2),
        ({"delta": {}, "finish_reason": "length"}, 0, 2),
        ({"delta": {}, "finish_reason": "content_filter"}, 0, 2),
        ({"delta": {}, "logprobs": {"content": [END]}}, 0, 3),
        ({"delta": {}, "logprobs": {"content": [EMPTY]}}, 0, 3),
        ({"delta": {"content": "c"}, "logprobs": {"content": [entry("c")]}}, 0, 3),
        ({"delta": {"content": "c"}, "logprobs": {"content": [entry("c"), EMPTY]}}, 0, 4),
        ({"delta": {}}, 1, 3),
        ({"delta": {}}, 2, 2),
        ({"delta": {}}, 3, 3),
        ({"delta": {}}, 4, 4),
    ],
)
def test_the_end_token_is_counted_once_where_the_engine_does_not_count(
    last: dict[str, Any], told: int, counted: int
) -> None:
    events = ChatEvents(asking())
    events.take(event(entry("a"), entry("b")))
    events.take({"choices": [{"index": 0, "finish_reason": "stop"} | last]})
    assert events.usage.output_tokens <= counted, "a count that was reported never falls"
    events.take({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": told}})
    assert events.last.usage.output_tokens == counted


def test_an_end_token_that_has_had_an_event_of_its_own_is_not_counted_twice() -> None:
    events = ChatEvents(asking())
    events.take({"choices": [{"text": "a", "logprobs": {"content": [entry("a")]}}]})
    events.take({"choices": [{"text": "", "logprobs": {"content": [EMPTY]}}]})
    events.take({"choices": [{"text": "", "finish_reason": "stop"}]})
    assert events.last.usage.output_tokens == 2


def test_no_end_token_is_counted_beyond_what_was_asked_for() -> None:
    sampling = Sampling(max_tokens=2)
    events = ChatEvents(Generation((Message(Role.USER, "hello"),), sampling, alternatives=5))
    events.take(event(entry("a"), entry("b")))
    events.take({"choices": [{"index": 0, "finish_reason": "stop", "delta": {}}]})
    assert events.last.usage.output_tokens == 2


def test_tokens_the_engine_kept_back_are_tokens_without_text_and_without_evidence() -> None:
    events = ChatEvents(asking())
    chunks = [*events.read(event(entry("a"), predicted=1)), *events.read(event(entry("漢"), predicted=4))]
    assert [token.text for token in tokens_of(chunks)] == ["a", "", "", "漢"]
    assert tokens_of(chunks)[1] == Token("")
    assert chunks[-1].usage.output_tokens == 4


@pytest.mark.parametrize("count", [math.inf, math.nan, "many", 10**9])
def test_a_count_gone_wrong_is_refused(count: Any) -> None:
    with pytest.raises(BackendProtocol):
        ChatEvents(asking()).read(event(entry("a"), predicted=count))


def test_a_character_split_over_entries_is_put_together_by_its_bytes() -> None:
    halves = [entry("x") | {"bytes": list(part)} for part in ("é".encode()[:1], "é".encode()[1:])]
    chunks = ChatEvents(asking()).read(event(*halves, predicted=2))
    assert [token.text for token in tokens_of(chunks)] == ["", "é"]


def test_without_alternatives_asked_for_the_text_is_the_delta() -> None:
    plain = {"choices": [{"delta": {"content": "hi"}, "finish_reason": None}], "timings": {"predicted_n": 1}}
    (chunk,) = ChatEvents(asking(alternatives=0)).read(plain)
    assert chunk.tokens == (Token("hi"),)


@pytest.mark.parametrize("split", [1, 2, 3])
def test_the_answer_ends_at_the_deciding_token_however_tokens_are_packed(split: int) -> None:
    events = ChatEvents(asking(early_stop=EarlyStop("min_margin", 0, 0.5)))
    entries = [entry("a"), entry("b", top=(-0.7, -0.8)), entry("c")]
    chunks: list[Chunk] = []
    for start in range(0, 3, split):
        if not events.ended:
            chunks += events.read(event(*entries[start : start + split], predicted=min(3, start + split)))
    assert [token.text for token in tokens_of(chunks)] == ["a", "b"]
    assert chunks[-1] == Chunk((), chunks[-2].usage, FinishReason.UNSURE)
    assert chunks[-1].usage.output_tokens == 2


@pytest.mark.parametrize("defer", [True, False])
def test_a_token_without_evidence_stops_it_only_when_the_rule_says_so(defer: bool) -> None:
    events = ChatEvents(asking(early_stop=EarlyStop("min_margin", 0, 0.5, defer_without_score=defer)))
    events.read(event(entry("a", None, top=(None, math.nan)), predicted=1))
    assert events.ended is defer


@pytest.mark.parametrize("value", [None, "0.1", True, math.nan, math.inf, -math.inf, 0.3, 1.1e-6])
def test_what_is_not_a_finite_number_at_most_0_is_no_logprob(value: object) -> None:
    assert finite(value) is None


def test_rounding_above_0_is_0() -> None:
    assert finite(9e-7) == 0.0
    assert finite(-1.5) == -1.5


@given(logprob=FLOATS | st.none(), top=st.lists(FLOATS | st.none() | st.text(max_size=2), max_size=6))
def test_whatever_the_numbers_are_the_evidence_is_finite_sorted_and_at_most_0_or_absent(
    logprob: float | None, top: list[float | str | None]
) -> None:
    (chunk,) = ChatEvents(asking()).read(event(entry("x", logprob, top=top), predicted=1))
    (token,) = chunk.tokens
    logprobs = [other.logprob for other in token.alternatives]
    assert token.logprob is None or (math.isfinite(token.logprob) and token.logprob <= 0.0)
    assert all(math.isfinite(value) and value <= 0.0 for value in logprobs)
    assert logprobs == sorted(logprobs, reverse=True)
    assert len(logprobs) <= 5


@given(st.dictionaries(st.sampled_from(["choices", "timings", "error", "object"]), JSON, max_size=4))
def test_an_event_of_any_shape_is_read_or_refused_in_our_words(strange: dict[str, Any]) -> None:
    with suppress(BackendProtocol, TierUnavailable, InvalidRequest):
        ChatEvents(asking()).read(strange)


def test_a_prompt_that_is_too_long_is_the_callers_mistake_and_counted() -> None:
    error = {"code": 400, "type": "exceed_context_size_error", "n_prompt_tokens": 402, "n_ctx": 256}
    with pytest.raises(InvalidRequest, match="messages: the prompt has 402 tokens, the model holds 256"):
        ChatEvents(asking()).read({"error": error})


def test_an_engine_that_fails_after_the_first_token_interrupts_the_stream() -> None:
    events = ChatEvents(asking())
    events.read(event(entry("a"), predicted=1))
    with pytest.raises(StreamInterrupted):
        events.read({"error": {"code": 500}})


@pytest.mark.parametrize(
    ("error", "kind"),
    [({"code": 400, "type": "x"}, InvalidRequest), ({"code": 500}, TierUnavailable), ("broken", BackendProtocol)],
)
def test_an_engines_error_is_told_without_its_own_words(error: object, kind: type[MarginalError]) -> None:
    if isinstance(error, dict):
        error["message"] = "CANARY"
    with pytest.raises(kind) as caught:
        ChatEvents(asking()).read({"error": error})
    assert "CANARY" not in str(caught.value)
