"""What an engine's refusal means, in our words and never in its own."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marginal.backends.engine_errors import complaint, retry_seconds
from marginal.errors import InvalidRequest, MarginalError, Overloaded, StreamInterrupted, TierUnavailable

TOO_LONG = {
    "llama-server": {"error": {"code": 400, "type": "exceed_context_size_error", "n_prompt_tokens": 300, "n_ctx": 256}},
    "vLLM": {
        "error": {
            "message": "This model's maximum context length is 256 tokens. However, your request has 300 input tokens.",
            "code": 400,
        }
    },
    "SGLang": {
        "object": "error",
        "message": "The input (300 tokens) is longer than the model's context length (256 tokens).",
        "code": 400,
    },
    "OpenAI": {
        "error": {
            "message": "This model's maximum context length is 256 tokens. "
            "However, your messages resulted in 300 tokens.",
            "code": "context_length_exceeded",
        }
    },
    "TGI": {"error": "`inputs` must have less than 256 tokens. Given: 300", "error_type": "validation"},
}
TOO_LONG_WITH_ANSWER = {
    "vLLM": "'max_tokens' or 'max_completion_tokens' is too large: 64. This model's maximum context length is 256 "
    "tokens and your request has 200 input tokens (64 > 256 - 200).",
    "SGLang": "Requested token count exceeds the model's maximum context length of 256 tokens. You requested a total "
    "of 264 tokens: 200 tokens from the input messages and 64 tokens for the completion.",
    "OpenAI": "This model's maximum context length is 256 tokens. However, you requested 264 tokens "
    "(200 in the messages, 64 in the completion).",
}


@pytest.mark.parametrize("engine", TOO_LONG)
def test_a_prompt_that_is_too_long_is_told_with_counts_whichever_engine_says_so(engine: str) -> None:
    error = complaint(TOO_LONG[engine], status=400).error()
    assert str(error) == "messages: the prompt has 300 tokens, the model holds 256"


@pytest.mark.parametrize("engine", TOO_LONG_WITH_ANSWER)
def test_an_answer_that_does_not_fit_leaves_the_room_that_there_is(engine: str) -> None:
    found = complaint({"error": {"message": TOO_LONG_WITH_ANSWER[engine]}}, status=400)
    assert found.room == 56


@pytest.mark.parametrize(
    ("status", "kind", "says"),
    [
        (400, InvalidRequest, "messages"),
        (401, TierUnavailable, "API key"),
        (402, TierUnavailable, "account"),
        (403, TierUnavailable, "API key"),
        (404, TierUnavailable, "URL"),
        (405, TierUnavailable, "URL"),
        (408, TierUnavailable, "408"),
        (413, InvalidRequest, "messages"),
        (422, InvalidRequest, "messages"),
        (424, TierUnavailable, "424"),
        (429, Overloaded, "no room"),
        (500, TierUnavailable, "500"),
        (502, TierUnavailable, "502"),
        (503, Overloaded, "no room"),
        (504, TierUnavailable, "504"),
        (529, Overloaded, "no room"),
        (302, TierUnavailable, "302"),
    ],
)
def test_every_status_has_its_error_and_none_of_the_engines_words(
    status: int, kind: type[MarginalError], says: str
) -> None:
    error = complaint({"error": {"message": "CANARY", "type": "CANARY", "param": "CANARY"}}, status=status).error()
    assert type(error) is kind
    assert says in str(error)
    assert "CANARY" not in str(error)


def test_after_the_first_token_an_answer_is_interrupted_whatever_the_status() -> None:
    for status in (400, 429, 500, 503):
        assert type(complaint({"error": {"code": status}}).error(begun=True)) is StreamInterrupted


def test_retry_after_is_kept_as_seconds() -> None:
    error = complaint(None, status=429, retry_after="7").error()
    assert isinstance(error, Overloaded)
    assert error.retry_seconds == 7.0


@pytest.mark.parametrize(
    ("header", "seconds"), [("0", 0), ("-3", 0), ("", None), (None, None), ("soon", None), ("1e400", None)]
)
def test_a_wait_is_read_or_is_none(header: str | None, seconds: float | None) -> None:
    assert retry_seconds(header) == seconds


def test_a_wait_may_be_a_date() -> None:
    later = datetime.now(UTC) + timedelta(seconds=30)
    assert retry_seconds(format_datetime(later, usegmt=True)) == pytest.approx(30, abs=2)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["error", "message", "type", "code", "detail", "loc", "param"]), inner)
    ),
    max_leaves=12,
)


@given(JSON, st.none() | st.integers(100, 599), st.none() | st.text(max_size=20), st.booleans())
def test_any_body_is_understood_somehow(body: Any, status: int | None, header: str | None, begun: bool) -> None:
    found = complaint(body, status=status, retry_after=header)
    assert isinstance(found.error(begun=begun), MarginalError)
    assert found.room is None or found.room > 0
