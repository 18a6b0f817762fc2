"""What every dialect of the server says: one answer per question, token by token, always the same.

Words in the question change it: `slowly` the pace, SPLIT brings a character that two tokens make up, SAMPLED tokens
that are not the surest, SEPARATORS characters that careless readers take for line ends, TWINS candidates whose texts
are the same, GROUPED several tokens in one event, CLAMPED candidates of no probability.
"""

import math
import re
import zlib
from dataclasses import dataclass, replace

SLOW = "slowly"
PACE_SECONDS = 0.001
SLOW_PACE_SECONDS = 0.1
CONTEXT_TOKENS = 256
CANDIDATES = 8
TAIL = 0.02
"""The share of a token's doubt that its candidates from the third on have together."""

VOCABULARY = 100_000
END_ID = 2
END_TEXT = "<|end|>"
CHAT_OVERHEAD = 4
"""Tokens of the chat template around each message."""


@dataclass(frozen=True)
class Candidate:
    """A token that could stand at a position; `logprob` None is a candidate of no probability."""

    token_id: int
    raw: bytes
    logprob: float | None

    @property
    def text(self) -> str:
        return self.raw.decode("utf-8", errors="replace")


@dataclass(frozen=True)
class Piece:
    """A generated token: its bytes, which may be part of a character, and the candidates, the surest first."""

    token_id: int
    raw: bytes
    logprob: float | None
    candidates: tuple[Candidate, ...]
    special: bool = False

    @property
    def text(self) -> str:
        return self.raw.decode("utf-8", errors="replace")

    def top(self, count: int) -> tuple[Candidate, ...]:
        return self.candidates[:count]


def identity(raw: bytes) -> int:
    """The token id of some text, the same in every dialect."""
    return 10 + zlib.crc32(raw) % VOCABULARY


def tokenized(text: str) -> list[str]:
    """The tokens of a prompt: its words."""
    return re.findall(r"\S+", text)


def words(question: str) -> list[bytes]:
    """The pieces of the answer to a question."""
    echoed = [*question.split()[:4], *(f"w{i}" for i in range(18)), "漢", "é"]
    pieces = [f"{word} ".encode() for word in echoed]
    if "SEPARATORS" in question:
        pieces[6:6] = ["a\u2028b ".encode(), "c\x85d ".encode(), b"e\rf\ng ", b"\x0b\x0c\x1c "]
    if "SPLIT" in question:
        pieces[2:2] = [b"\xe6\xbc", b"\xa2 ", b"\xf0\x9f", b"\x98", b"\x80 "]
    return pieces


def answer(question: str) -> tuple[Piece, ...]:
    """The tokens of the answer, the end token last."""
    pieces = [_piece(question, position, raw) for position, raw in enumerate(words(question))]
    end = _piece(question, len(pieces), END_TEXT.encode())
    return (*pieces, replace(end, token_id=END_ID, special=True))


def pace(question: str) -> float:
    """Seconds between two tokens."""
    return SLOW_PACE_SECONDS if SLOW in question else PACE_SECONDS


def logprob_of(piece: Piece, token_id: int) -> Candidate:
    """What the model thinks of a token by its id: a candidate, or one that shares what they leave."""
    known = {candidate.token_id: candidate for candidate in piece.candidates}
    return known.get(token_id) or Candidate(token_id, f"#{token_id}".encode(), math.log(TAIL) - 10 - token_id % 7)


def _piece(question: str, position: int, raw: bytes) -> Piece:
    margin = 0.3 + 0.7 * zlib.crc32(f"{question}{position}".encode()) / 2**32
    tail = TAIL * (1.0 - margin)
    shares = [(1.0 - tail + margin) / 2, (1.0 - tail - margin) / 2, *[tail / (CANDIDATES - 2)] * (CANDIDATES - 2)]
    others = [f"~{letter}".encode() for letter in "abcdefg"]
    if "TWINS" in question:
        others[1] = others[0]
    texts = [raw, *others]
    if "SAMPLED" in question and position % 2:
        texts = [*others, raw]
    ids = [identity(text) + (1 if text in texts[:place] else 0) for place, text in enumerate(texts)]
    if "CLAMPED" in question:
        shares[5:] = [0.0] * len(shares[5:])
    candidates = tuple(
        Candidate(token_id, text, math.log(share) if share > 0 else None)
        for token_id, text, share in zip(ids, texts, shares, strict=True)
    )
    own = candidates[texts.index(raw)]
    return Piece(own.token_id, raw, own.logprob, candidates)
