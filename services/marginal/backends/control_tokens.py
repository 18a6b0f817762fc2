"""Keeps what a user wrote from becoming a control token of the model's chat template.

Engines tokenize the rendered conversation with control tokens switched on, so "<|assistant|>" inside a message would
start an answer that nobody gave. Every occurrence of such a text, in any case because templates may lower-case, gets a
U+2060 WORD JOINER after its first character: it still reads the same and is ordinary text to the tokenizer. So does the
first half of one at the end of a message, for a template may put the next message right behind it.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from marginal.backends.gguf_header import Value, read_header

JOINER = "\N{WORD JOINER}"
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4
_LOOKS_LIKE_CONTROL = re.compile(
    r"<[|\uff5c].*[|\uff5c]>|<(?:start|end)_of_turn>|<(?:EOT|eos|bos|s|/s)>|\[/?INST\]", re.IGNORECASE
)
"""Forms that engines take for control tokens even when the file calls them normal."""

_KEYS = (
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.token_type",
    *(f"tokenizer.ggml.{name}_token_id" for name in ("bos", "eos", "eot", "eom", "unknown", "seperator", "padding")),
    *(f"tokenizer.ggml.{name}_token_id" for name in ("fim_pre", "fim_suf", "fim_mid", "fim_pad", "fim_rep", "fim_sep")),
)


def control_texts(path: Path) -> frozenset[str]:
    """Reads from a GGUF file the texts its engine would turn into one control or user-defined token.

    Runs of white space, which some vocabularies define as tokens, are left out: they steer nothing. Raises
    ConfigurationError.
    """
    return frozenset(_texts(read_header(path, keys=_KEYS)))


class PlainText:
    """Breaks a given set of control texts wherever they occur."""

    def __init__(self, controls: Iterable[str]) -> None:
        folded = {_fold(text) for text in controls if text}
        self._controls = {text for text in folded if len(text) > 1}
        self._single = {text for text in folded if len(text) == 1}
        self._prefixes = {text[:end] for text in self._controls if not text[0].isalnum() for end in range(1, len(text))}
        self._lengths = sorted({len(text) for text in self._controls})
        self._first = {text[0] for text in self._controls}

    def __call__(self, text: str) -> str:
        """Gives the text without any control text; it is longer by one character per occurrence."""
        folded = _fold(text)
        body = len(folded.rstrip())
        pieces: list[str] = []
        for position, (character, fold) in enumerate(zip(text, folded, strict=True)):
            pieces.append(REPLACEMENT if fold in self._single else character)
            if fold in self._first and self._breaks(folded, position, body):
                pieces.append(JOINER)
        return "".join(pieces)

    def _breaks(self, folded: str, position: int, body: int) -> bool:
        if folded[position:body] in self._prefixes:
            return True
        return any(folded[position : position + length] in self._controls for length in self._lengths)


def _texts(header: Mapping[str, Value]) -> Iterable[str]:
    tokens = header.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list):
        return
    kinds = header.get("tokenizer.ggml.token_type")
    named = {value for key, value in header.items() if key.endswith("_token_id")}
    for token_id, (token, kind) in enumerate(
        zip(tokens, kinds if isinstance(kinds, list) else [1] * len(tokens), strict=False)
    ):
        text = str(token)
        spaced = text.replace("\N{LOWER ONE EIGHTH BLOCK}", " ")
        steers = kind in (_UNKNOWN, _CONTROL) or token_id in named
        if steers or (kind == _USER_DEFINED and len(spaced.strip()) > 1) or _LOOKS_LIKE_CONTROL.fullmatch(text):
            yield text
            yield spaced


def _fold(text: str) -> str:
    """Case-folds character by character, so that positions stay those of the text."""
    return "".join(folded if len(folded := character.casefold()) == 1 else character for character in text)
