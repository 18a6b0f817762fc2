"""What all dialects share: a request as understood, and how numbers go wrong on their way out."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dialects.answers import CHAT_OVERHEAD, CONTEXT_TOKENS, Candidate, Piece, tokenized
from dialects.faults import Fault

Event = dict[str, Any]


@dataclass(frozen=True)
class Refusal(Exception):
    """An engine's own words for a request that it does not take."""

    status: int
    body: Any


@dataclass(frozen=True)
class Asked:
    """A request as every dialect understands it; `top` None is a request without log-probabilities."""

    route: str
    question: str
    prompt_tokens: int
    max_tokens: int
    top: int | None
    stream: bool
    body: Mapping[str, Any]
    chosen_ids: tuple[int, ...] = ()

    @property
    def usage_wanted(self) -> bool:
        return bool((self.body.get("stream_options") or {}).get("include_usage"))

    @property
    def usage_everywhere(self) -> bool:
        return self.usage_wanted and bool(self.body["stream_options"].get("continuous_usage_stats"))

    @property
    def room(self) -> int:
        return CONTEXT_TOKENS - self.prompt_tokens


class Writer(Protocol):
    """Writes one answer in a dialect; tokens it `held` back are generated but not on the wire."""

    held: int

    def opening(self) -> list[bytes]: ...

    def token(self, piece: Piece, finish: str | None) -> list[bytes]:
        """One more token; `finish`, `stop` or `length`, says that it is the last."""
        ...

    def ending(self, finish: str) -> list[bytes]:
        """Everything after the last token."""
        ...

    def error(self, kind: str) -> list[bytes]:
        """An error within the stream; `kind` is `generation`, `overloaded`, `incomplete` or `validation`."""
        ...


class Dialect(Protocol):
    """An engine: its routes, how it reads a request, and how it writes an answer."""

    name: str
    generating: Sequence[str]
    """Paths that generate."""

    def read(self, path: str, body: Mapping[str, Any]) -> Asked:
        """Raises Refusal."""
        ...

    def writer(self, asked: Asked, fault: Fault | None) -> Writer: ...

    def facts(self) -> Mapping[str, Any]:
        """What GET of a path answers."""
        ...

    def tokenize(self, body: Mapping[str, Any]) -> Any: ...

    def failure(self, status: int) -> Any:
        """The body of an HTTP error, in this engine's words."""
        ...


def prompt_of(body: Mapping[str, Any], key: str = "prompt") -> tuple[str, int]:
    """A prompt and its tokens."""
    text = str(body[key])
    return text, len(tokenized(text)) or 1


def conversation_of(body: Mapping[str, Any]) -> tuple[str, int]:
    """The last message of a conversation, and the tokens of all of them."""
    messages = body["messages"]
    counts = (len(tokenized(str(message["content"]))) + CHAT_OVERHEAD for message in messages)
    return str(messages[-1]["content"]), sum(counts)


class Numbers:
    """Log-probabilities as they go out: as they are, or as a fault or an engine's habit bends them."""

    def __init__(self, fault: Fault | None, *, nothing: float | None) -> None:
        """`nothing` is how this engine writes a probability of 0."""
        self._bend = fault.variant if fault and fault.name == "F17" else ""
        self._at = fault.at if fault else 0
        self._nothing = nothing
        self.missing = fault is not None and fault.name == "F16"
        self.short = False

    def begin(self, position: int) -> None:
        """Says which token is about to be written, counted from 0."""
        self._bent = bool(self._bend) and position >= self._at
        self.short = self._bent and self._bend == "length"

    def __call__(self, one: Piece | Candidate) -> Any:
        if not self._bent or self._bend == "length":
            return self._nothing if one.logprob is None else one.logprob
        bent = {"nan": math.nan, "inf": -math.inf, "above": 0.3, "null": None, "clamp": -9999.0, "string": "-0.1"}
        return bent[self._bend]


class Counts:
    """Token counts as they go out, or as fault F18 bends them; None where there are to be none."""

    def __init__(self, asked: Asked, fault: Fault | None) -> None:
        self._prompt = asked.prompt_tokens
        self._bend = fault.variant if fault and fault.name == "F18" else ""

    def __call__(self, output_tokens: int) -> tuple[int, int] | None:
        """Prompt and output tokens."""
        if self._bend == "missing":
            return None
        return {"zero": (0, 0), "contradictory": (self._prompt, 1)}.get(self._bend, (self._prompt, output_tokens))

    def usage(self, output_tokens: int) -> Event | None:
        """The usage object of OpenAI's routes."""
        counted = self(output_tokens)
        if counted is None:
            return None
        prompt, output = counted
        total = 7 if self._bend == "contradictory" else prompt + output
        return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": total}


def framed(event: Any, *, prefix: bytes = b"data: ") -> bytes:
    """One server-sent event; NaN goes out as a bare word, which is not JSON, as Python's engines do."""
    return prefix + json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
