"""Server-Sent Events: whole events whatever the network does, and a domain error for what is none.

A longer search: `FUZZ_EXAMPLES=10000 services/.venv/bin/python -m pytest -c tests/pytest.ini --timeout 0 -k any_bytes
tests/unit/backends/test_sse.py` runs for about a minute.
"""

import json
import os
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marginal.backends.sse import EventStream
from marginal.errors import BackendProtocol

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "200"))
TEXTS = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=12)


def fed(*chunks: bytes, most_bytes: int = 1000) -> list[str]:
    stream = EventStream(most_bytes=most_bytes)
    return [event for chunk in chunks for event in stream.feed(chunk)]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_every_kind_of_line_end_ends_a_line(end: bytes) -> None:
    assert fed(end.join([b"data: a", b"", b"data:b", b"", b"data:c", b"", b""])) == ["a", "b", "c"]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_it_does_not_matter_where_the_network_cuts(end: bytes) -> None:
    whole = end.join(["data: 漢".encode(), b": alive", b"data:  b", b"", b"data: c", b"", b""])
    for size in range(1, len(whole)):
        assert fed(*(whole[at : at + size] for at in range(0, len(whole), size))) == ["漢\n b", "c"]


def test_a_return_ends_the_line_at_once_and_a_newline_after_it_is_no_second_end() -> None:
    stream = EventStream()
    assert stream.feed(b"data: a\r\r") == ["a"]
    assert stream.feed(b"\ndata: b\r") == []
    assert stream.feed(b"") == []
    assert stream.feed(b"\n\r") == ["b"]


def test_several_data_lines_are_one_event_with_newlines() -> None:
    assert fed(b"data: a\ndata\ndata:\ndata: b\n\n") == ["a\n\n\nb"]


def test_only_one_space_after_the_colon_is_taken_away() -> None:
    assert fed(b"data:  a \n\n") == [" a "]


def test_comments_and_other_fields_are_passed_over() -> None:
    assert fed(b": ping\n\nevent: error\nid: 7\nretry: 10\ndatum: x\ndata: a\n\n:\n\n") == ["a"]


def test_a_byte_order_mark_is_no_part_of_the_first_line() -> None:
    assert fed(b"\xef", b"\xbb\xbfdata: a\n\n") == ["a"]
    assert fed(b"\n\xef\xbb\xbfdata: a\n\n") == []


def test_an_event_that_was_not_ended_is_none() -> None:
    assert fed(b"data: a\n\ndata: b\n") == ["a"]


@pytest.mark.parametrize("separator", ["\u2028", "\u0085", "\x0b", "\x0c", "\x1c"])
def test_what_only_some_take_for_a_line_end_is_text(separator: str) -> None:
    assert fed(f"data: a{separator}b\n\n".encode()) == [f"a{separator}b"]


@pytest.mark.parametrize("large", [b"data: " + b"x" * 2000, b"data: " + b"x" * 2000 + b"\n\n", b"data: xx\n" * 500])
def test_an_event_that_is_too_large_is_refused_however_it_comes(large: bytes) -> None:
    with pytest.raises(BackendProtocol, match="too large"):
        fed(*(large[at : at + 64] for at in range(0, len(large), 64)), b"\n\n")
    with pytest.raises(BackendProtocol, match="too large"):
        fed(large, b"\n\n")


@pytest.mark.parametrize("broken", [b"\xff", b"\xe6\xbc", b"\xed\xa0\x80"])
def test_bytes_that_are_not_utf8_are_refused(broken: bytes) -> None:
    with pytest.raises(BackendProtocol, match="not UTF-8"):
        fed(b"data: " + broken + b"\n\n")


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(st.binary(max_size=40) | st.sampled_from([b"data: ", b"\r", b"\n", b"\n\n", b"\xef\xbb\xbf"])))
def test_any_bytes_are_events_or_refused_in_our_words(chunks: list[bytes]) -> None:
    with suppress(BackendProtocol):
        fed(*chunks)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(TEXTS, max_size=5), st.sampled_from(["\n", "\r\n", "\r"]), st.data())
def test_what_was_written_is_read_however_it_is_cut(texts: list[str], end: str, data: st.DataObject) -> None:
    whole = "".join(f"data: {json.dumps(text, ensure_ascii=False)}{end}{end}" for text in texts).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    chunks = [whole[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert [json.loads(event) for event in fed(*chunks)] == texts
