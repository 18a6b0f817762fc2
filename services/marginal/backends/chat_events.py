"""Reads the events of a chat stream with token log-probabilities, as llama.cpp's server sends them.

One gate for numbers: a log-probability is finite and at most 0, or it is None; a candidate without one is dropped.
"""

import codecs
import math
from collections.abc import Mapping
from typing import Any

from marginal.backends.early_stop import deciding
from marginal.errors import BackendProtocol, InvalidRequest, MarginalError, StreamInterrupted, TierUnavailable
from marginal.tokens import Alternative, Chunk, FinishReason, Generation, Token, Usage

ROUNDING = 1e-6
"""A log-probability above 0 by no more is 0 with the engine's rounding; above that it is no log-probability."""

MOST_KEPT_BACK = 64
"""Tokens an engine may keep back at once; more is a count gone wrong."""

Event = Mapping[str, Any]

_FINISHES = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}


class ChatEvents:
    """Turns the events of one answer into chunks, and ends it where the generation's early stop says so.

    The engine sends a character that several tokens make up with the last of them only. Each one it kept back becomes
    a token without text and without evidence, so that counts are true and no score is claimed over what was not seen.
    """

    def __init__(self, generation: Generation) -> None:
        self._deciding = deciding(generation)
        self._alternatives = generation.alternatives
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._usage = Usage()
        self._finish: FinishReason | None = None

    @property
    def ended(self) -> bool:
        """Whether the finish was read or decided."""
        return self._finish is not None

    def read(self, event: Event) -> tuple[Chunk, ...]:
        """Gives the chunks of one event: none, tokens, a finish, or both. Raises InvalidRequest, ModelFault."""
        if "error" in event:
            raise _fault(event["error"], begun=self._usage.output_tokens > 0)
        try:
            return tuple(self._chunks(event))
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
            raise BackendProtocol("the engine sent an event that cannot be understood") from error

    def _chunks(self, event: Event) -> list[Chunk]:
        chunks: list[Chunk] = []
        timings = event.get("timings") or {}
        for choice in event.get("choices") or ():
            tokens = self._tokens(choice, timings)
            if tokens:
                chunks.append(self._watched(tokens, timings))
            if self._finish is None and choice.get("finish_reason") is not None:
                self._finish = _FINISHES.get(choice["finish_reason"], FinishReason.STOP)
                self._count(timings, output_tokens=int(timings.get("predicted_n") or 0))
            if self._finish is not None:
                chunks.append(Chunk((), self._usage, self._finish))
        return chunks

    def _tokens(self, choice: Event, timings: Event) -> list[Token]:
        content = (choice.get("logprobs") or {}).get("content") or ()
        tokens = [self._token(entry) for entry in content]
        text = choice.get("delta", {}).get("content")
        if not tokens and text:
            tokens = [Token(str(text))]
        if not tokens:
            return []
        kept_back = int(timings.get("predicted_n") or 0) - self._usage.output_tokens - len(tokens)
        if kept_back > MOST_KEPT_BACK:
            raise ValueError
        return [Token("")] * kept_back + tokens

    def _token(self, entry: Event) -> Token:
        alternatives = sorted(
            (
                Alternative(_text(other), logprob, _identity(other))
                for other in entry.get("top_logprobs") or ()
                if (logprob := finite(other.get("logprob"))) is not None
            ),
            key=lambda alternative: -alternative.logprob,
        )
        return Token(
            self._decoder.decode(bytes(raw)) if (raw := entry.get("bytes")) is not None else str(entry["token"]),
            finite(entry.get("logprob")),
            tuple(alternatives[: self._alternatives]),
            _identity(entry),
        )

    def _watched(self, tokens: list[Token], timings: Event) -> Chunk:
        """Counts the tokens up to the deciding one, the last that counts."""
        before = self._usage.output_tokens
        for seen, token in enumerate(tokens, start=1):
            if self._deciding(token):
                tokens = tokens[:seen]
                self._finish = FinishReason.UNSURE
                break
        self._count(timings, output_tokens=before + len(tokens))
        return Chunk(tuple(tokens), self._usage)

    def _count(self, timings: Event, *, output_tokens: int) -> None:
        cached = int(timings.get("cache_n") or 0)
        self._usage = Usage(
            input_tokens=max(self._usage.input_tokens, cached + int(timings.get("prompt_n") or 0)),
            output_tokens=max(self._usage.output_tokens, output_tokens),
            cached_input_tokens=max(self._usage.cached_input_tokens, cached),
        )


def finite(value: object) -> float | None:
    """Passes a log-probability that is finite and at most 0 (`ROUNDING` above it counts as 0), else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return min(float(value), 0.0) if math.isfinite(value) and value <= ROUNDING else None


def _text(entry: Event) -> str:
    raw = entry.get("bytes")
    return str(entry["token"]) if raw is None else bytes(raw).decode("utf-8", errors="replace")


def _identity(entry: Event) -> int | None:
    identity = entry.get("id")
    return identity if isinstance(identity, int) else None


def _fault(error: object, *, begun: bool) -> MarginalError:
    """Says what an engine's error object means, never in its own words: those may hold the template or the prompt."""
    if not isinstance(error, Mapping):
        return BackendProtocol("the engine failed without saying how")
    if error.get("type") == "exceed_context_size_error":
        return InvalidRequest(
            "messages", f"the prompt has {error.get('n_prompt_tokens')} tokens, the model holds {error.get('n_ctx')}"
        )
    if error.get("code") == 400:
        return InvalidRequest("messages", "the model's chat template takes no such conversation")
    kind = StreamInterrupted if begun else TierUnavailable
    return kind(f"the engine failed with code {error.get('code')}")
