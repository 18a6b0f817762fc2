"""What a user wrote never holds the text of a control token, and otherwise stays as it is."""

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marginal.backends.control_tokens import JOINER, PlainText, control_texts
from marginal.backends.gguf_header import read_header
from marginal.errors import ConfigurationError
from marginal.models.fetch import resolve

CONTROLS = ["<|im_start|>", "<|im_end|>", "<think>", "[INST]", "</s>", "<s>"]
ODD_CASES = "\u0130\u017f\u212a"
"""Letters whose case folding is longer than they are, or is an ASCII letter: dotted I, long s, Kelvin sign."""
PIECES = st.sampled_from([*CONTROLS, "<", "<|", "|>", "<|im_", "start|>", " ", "\n", "hello", *ODD_CASES, JOINER])
TEXTS = st.lists(PIECES | st.text(max_size=4), max_size=8).map("".join)
CASES = st.sampled_from([str, str.upper, str.lower, str.title, str.swapcase])
NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4


UINT32, STRING, ARRAY = 4, 8, 9


def vocabulary(path: Path, *tokens: tuple[str, int], eos: int | None = None) -> Path:
    """Writes the head of a GGUF file, by the format's own description (ggml-org/ggml, docs/gguf.md)."""
    pairs = [
        _string("general.architecture") + struct.pack("<I", STRING) + _string("llama"),
        _string("llama.context_length") + struct.pack("<II", UINT32, 512),
        _string("tokenizer.ggml.tokens")
        + struct.pack("<IIQ", ARRAY, STRING, len(tokens))
        + b"".join(_string(text) for text, _ in tokens),
        _string("tokenizer.ggml.scores")
        + struct.pack(f"<IIQ{len(tokens)}f", ARRAY, 6, len(tokens), *[0.5] * len(tokens)),
        _string("tokenizer.ggml.token_type")
        + struct.pack(f"<IIQ{len(tokens)}i", ARRAY, 5, len(tokens), *[kind for _, kind in tokens]),
    ]
    if eos is not None:
        pairs.append(_string("tokenizer.ggml.eos_token_id") + struct.pack("<II", UINT32, eos))
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs)) + b"".join(pairs))
    return path


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


@given(text=TEXTS, written=CASES, rendered=CASES)
def test_no_control_text_is_left_in_any_case_the_template_may_render(text: str, written: type, rendered: type) -> None:
    plain = rendered(PlainText(CONTROLS)(written(text)))
    assert not any(control.lower() in plain.lower() for control in CONTROLS)


@given(first=TEXTS, second=TEXTS)
def test_two_messages_right_behind_each_other_make_no_control_text(first: str, second: str) -> None:
    plain = PlainText(CONTROLS)
    together = plain(first).strip() + plain(second).strip()
    assert not any(control.lower() in together.lower() for control in CONTROLS)


@given(TEXTS)
def test_the_text_stays_readable_only_joiners_are_added(text: str) -> None:
    assert PlainText(CONTROLS)(text).replace(JOINER, "") == text.replace(JOINER, "")


@given(st.text(alphabet=st.characters(exclude_characters="<["), max_size=40))
def test_a_text_without_the_beginning_of_a_control_text_is_not_touched(text: str) -> None:
    assert PlainText(CONTROLS)(text) == text


def test_the_joiner_stands_behind_the_first_character() -> None:
    assert PlainText(CONTROLS)("a<|IM_END|>b") == f"a<{JOINER}|IM_END|>b"


def test_a_control_token_of_one_character_is_replaced() -> None:
    assert PlainText(["\x02"])("a\x02b") == "a\N{REPLACEMENT CHARACTER}b"


def test_control_unknown_user_defined_and_named_tokens_are_read_from_the_file(tmp_path: Path) -> None:
    path = vocabulary(
        tmp_path / "m.gguf",
        ("<unk>", UNKNOWN),
        ("<|im_end|>", CONTROL),
        ("<tool▁call>", USER_DEFINED),
        ("hello", NORMAL),
        ("the-end", NORMAL),
        ("<|looks|>", NORMAL),
        ("<table>", NORMAL),
        eos=4,
    )
    assert control_texts(path) == {"<unk>", "<|im_end|>", "<tool▁call>", "<tool call>", "the-end", "<|looks|>"}


def test_white_space_that_a_vocabulary_defines_as_tokens_steers_nothing(tmp_path: Path) -> None:
    path = vocabulary(tmp_path / "m.gguf", ("\n\n", USER_DEFINED), ("▁▁", USER_DEFINED), ("<end>", CONTROL))
    assert control_texts(path) == {"<end>"}


def test_a_header_is_read_by_whole_key_or_by_the_part_behind_the_architecture(tmp_path: Path) -> None:
    path = vocabulary(tmp_path / "m.gguf", ("a", NORMAL), ("b", CONTROL))
    assert read_header(path, keys=("context_length", "tokenizer.ggml.token_type")) == {
        "llama.context_length": 512,
        "tokenizer.ggml.token_type": [NORMAL, CONTROL],
    }


def test_the_bundled_models_have_the_control_tokens_of_their_template() -> None:
    for name in ("home-small", "home-large"):
        assert control_texts(resolve(name)) >= {"<|user|>", "<|assistant|>", "<|end|>"}


@pytest.mark.parametrize("content", [b"", b"GGU", b"GGUF", b"GGUF\x03\x00\x00\x00", b"not a model" * 10])
def test_a_file_that_is_no_whole_gguf_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"broken\.gguf is not a whole GGUF file"):
        control_texts(path)


def test_a_file_cut_anywhere_in_its_head_is_refused(tmp_path: Path) -> None:
    whole = vocabulary(tmp_path / "whole.gguf", *[(f"token{i}", NORMAL) for i in range(20)]).read_bytes()
    path = tmp_path / "cut.gguf"
    for cut in range(0, 300, 7):
        path.write_bytes(whole[:cut])
        with pytest.raises(ConfigurationError):
            control_texts(path)
