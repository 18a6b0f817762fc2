"""The log-probabilities of OpenAI's streams, in every shape that engines send, put together with the text.

The text is what the engine sent as text. Rows of log-probabilities lie over it: a row may come before its text (held
back for a stop string or half a character), without any (end tokens, hidden tokens), or be written otherwise.
"""

import codecs
import math
import operator
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any, NamedTuple

from marginal.tokens import Alternative, Token

ROUNDING = 1e-6
"""A log-probability above 0 by no more is 0 with the engine's rounding; above that it is no log-probability."""

NOTHING = -9999.0
"""What vLLM writes for minus infinity, and for what is not there."""

MOST_KEPT_BACK = 64
"""Tokens an engine may keep back at once; more is a count gone wrong."""

Event = Mapping[str, Any]

_BY_ID = "token_id:"
_LOGPROB = operator.attrgetter("logprob")


class Row(NamedTuple):
    """One generated token as reported: what the engine calls it, its text, and the evidence."""

    name: str
    text: str
    logprob: float | None
    alternatives: tuple[Alternative, ...]
    token_id: int | None

    def token(self, text: str) -> Token:
        """The token, with the text that it brought."""
        return Token(text, self.logprob, self.alternatives, self.token_id)


class Rows:
    """Reads rows, at most `alternatives` candidates each."""

    def __init__(self, alternatives: int) -> None:
        self._alternatives = alternatives
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def read(self, choice: Event) -> list[Row]:
        """The rows of one event: entries in `content`, or the parallel arrays of the older completions API."""
        logprobs = choice.get("logprobs")
        if not logprobs:
            return []
        content = logprobs.get("content")
        if content is not None:
            return [self._entry(entry) for entry in content]
        names = logprobs.get("tokens") or ()
        numbers, tops = logprobs.get("token_logprobs") or (), logprobs.get("top_logprobs") or ()
        return [
            self._row(str(name), number, top)
            for name, number, top in zip_longest(names, numbers[: len(names)], tops[: len(names)])
        ]

    def _entry(self, entry: Event) -> Row:
        name, raw = str(entry["token"]), entry.get("bytes")
        text = name if raw is None else self._decoder.decode(bytes(raw))
        if not self._alternatives:
            return Row(name, text, None, (), None)
        token_id = _identity(name, entry.get("id"))
        found: list[Alternative] = []
        for other in entry.get("top_logprobs") or ():
            value, other_id = other.get("logprob"), other.get("id")
            # the usual case of `finite`, without a call
            logprob = value if type(value) is float and NOTHING < value <= 0.0 else finite(value)
            if logprob is not None:
                text_of = other["token"]
                if type(other_id) is not int:
                    other_id = None if token_id is None else _identity(text_of, None)
                found.append(Alternative(str(text_of), logprob, other_id))
        return Row(name, text, finite(entry.get("logprob")), self._ranked(found), token_id)

    def _row(self, name: str, number: object, top: Event | None) -> Row:
        if not self._alternatives:
            return Row(name, name, None, (), None)
        found = [
            Alternative(text, logprob, _identity(text, None))
            for text, value in (top or {}).items()
            if (logprob := finite(value)) is not None
        ]
        return Row(name, name, finite(number), self._ranked(found), _identity(name, None))

    def _ranked(self, found: list[Alternative]) -> tuple[Alternative, ...]:
        found.sort(key=_LOGPROB, reverse=True)
        return tuple(found[: self._alternatives])


class Aligned:
    """Gives every row the part of the text that is its own, in order; no text is lost, none is added."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._text = ""

    def add(self, rows: list[Row], text: str) -> list[Token]:
        """Takes what one event brought and gives the tokens whose text is there."""
        if rows and text and not self._rows and not self._text and text == _named(rows):
            return [row.token(row.text) for row in rows]
        self._rows += rows
        self._text += text
        if len(self._rows) > MOST_KEPT_BACK:
            return self._all()
        return self._covered() if self._text else []

    def end(self, *, whole: bool) -> list[Token]:
        """The rest, at the end of the answer; rows that brought no text are end tokens unless `whole`."""
        if whole:
            return self._all()
        while self._rows and not self._text:
            self._rows.pop()
        return self._all()

    def _covered(self) -> list[Token]:
        """The tokens up to the first whose text has not come yet."""
        written = "".join(_written(row) for row in self._rows)
        begins = written.find(self._text)
        if begins < 0 or not self._rows:
            return self._beyond(written)
        tokens: list[Token] = []
        start = 0
        for row in self._rows:
            end = start + len(_written(row))
            own = self._text[max(0, start - begins) : max(0, end - begins)]
            if end - begins > len(self._text) or (end == start and start - begins >= len(self._text)):
                break
            tokens.append(row.token(own))
            start = end
        self._rows = self._rows[len(tokens) :]
        self._text = self._text[max(0, start - begins) :]
        return tokens

    def _beyond(self, written: str) -> list[Token]:
        """The rows and more text than they say, or another: what differs goes with the last of them."""
        if not self._rows or not self._text.startswith(written):
            return self._all()
        *before, last = self._rows
        tokens = [row.token(_written(row)) for row in before]
        tokens.append(last.token(self._text[sum(len(_written(row)) for row in before) :]))
        self._rows, self._text = [], ""
        return tokens

    def _all(self) -> list[Token]:
        rows, text = self._rows, self._text
        self._rows, self._text = [], ""
        if not rows:
            return [Token(text)] if text else []
        return [*(row.token("") for row in rows[:-1]), rows[-1].token(text)]


def finite(value: object) -> float | None:
    """Passes a log-probability that is finite and at most 0 (`ROUNDING` above it counts as 0), else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return min(float(value), 0.0) if math.isfinite(value) and NOTHING < value <= ROUNDING else None


def _named(rows: list[Row]) -> str:
    return rows[0].name if len(rows) == 1 else "".join(row.name for row in rows)


def _written(row: Row) -> str:
    """The text that a row promises; one that is named by its id promises nothing."""
    return "" if row.name.startswith(_BY_ID) else row.text


def _identity(name: object, identity: object) -> int | None:
    """A token's id, given or written as its name."""
    if isinstance(identity, int):
        return identity
    if not isinstance(name, str) or not name.startswith(_BY_ID):
        return None
    digits = name[len(_BY_ID) :]
    return int(digits) if digits.isdecimal() and len(digits) < 10 else None
