"""Reads the events of one answer as OpenAI's chat and completions routes stream them, llama.cpp's in process too.

Nothing is asked about the engine: what arrives is read. Counts are the engine's where they can be, else our own: vLLM,
SGLang and llama.cpp count the end token of an answer that stopped by itself, so it is counted where they say nothing.
"""

import math
from typing import Any

from marginal.backends.early_stop import deciding
from marginal.backends.engine_errors import fault
from marginal.backends.openai_events import MOST_KEPT_BACK, Aligned, Event, Row, Rows, finite
from marginal.errors import BackendProtocol, StreamInterrupted, TierUnavailable
from marginal.tokens import Chunk, EngineTimes, FinishReason, Generation, Token, Usage

__all__ = ["MOST_INPUT_TOKENS", "ChatEvents", "Event", "finite"]

MOST_INPUT_TOKENS = 100_000_000
"""A prompt that an engine says is longer is a count gone wrong."""

_FINISHES = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}
_FAILURES = ("abort", "aborted", "cancelled", "error")
_REASONING = ("reasoning_content", "reasoning")
_STOPPED_BY = ("stop_reason", "matched_stop")
"""Where vLLM and SGLang say what ended the answer: a stop string by its text, a token by its id or not at all."""


class ChatEvents:
    """Turns the events of one answer into chunks, and ends it where the generation's early stop says so.

    llama.cpp sends a character that several tokens make up with the last of them only. Each one it kept back becomes
    a token without text and without evidence, so that counts are true and no score is claimed over what was not seen.
    """

    def __init__(self, generation: Generation, *, input_tokens: int = 0, alternatives: int | None = None) -> None:
        """`input_tokens` are an estimate, until the engine tells; `alternatives` are read if more than were asked."""
        self._deciding = deciding(generation)
        self._rows = Rows(generation.alternatives if alternatives is None else alternatives)
        self._aligned = Aligned()
        self._asked_output = generation.sampling.max_tokens
        self._input, self._output, self._cached = input_tokens, 0, 0
        self._input_told = False
        self._received = 0
        self._given = 0
        self._hidden = 0
        self._times: EngineTimes | None = None
        self._finish: FinishReason | None = None
        self._rowed = self._silent = False
        self._ends_unseen = False
        self._told = False
        self._told_output = 0

    @property
    def begun(self) -> bool:
        """Whether a token was given."""
        return self._given > 0

    @property
    def ended(self) -> bool:
        """Whether the finish was read or decided."""
        return self._finish is not None

    @property
    def usage(self) -> Usage:
        """What the answer has used by now, up to the deciding token if there is one."""
        return self._usage(self._output)

    @property
    def last(self) -> Chunk:
        """The finish as a chunk, with what the engine has told by now; only for an answer that has ended."""
        unseen = self._ends_unseen and not self._told and self._output < self._asked_output
        output = self._output + 1 if unseen else self._output
        return Chunk((), self._usage(output), self._finish, self._times)

    def read(self, event: Event) -> tuple[Chunk, ...]:
        """Gives the chunks of one event: none, tokens, a finish, or both. Raises InvalidRequest, ModelFault."""
        before = self._finish
        tokens = self.take(event)
        chunks = (Chunk(tuple(tokens), self.usage),) if tokens else ()
        return chunks if before is self._finish else (*chunks, self.last)

    def take(self, event: Event) -> list[Token]:
        """Gives the tokens of one event, for which `usage` and `ended` then hold. Raises InvalidRequest, ModelFault.

        After the end it takes what the engine tells about usage and gives nothing.
        """
        try:
            if "error" in event or event.get("object") == "error":
                raise fault(event, begun=self.begun)
            return self._taken(event)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
            raise BackendProtocol("the engine sent an event that cannot be understood") from error

    def _taken(self, event: Event) -> list[Token]:
        taken: list[Token] = []
        timings = event.get("timings") or {}
        decided = self._finish is FinishReason.UNSURE
        if timings and not decided:
            self._tell_times(timings)
        for choice in event.get("choices") or ():
            if self._finish is None and not choice.get("index"):
                finish = _finish(choice.get("finish_reason"), begun=self.begun)
                taken += self._watched(self._tokens(choice, timings, finish))
                self._finish = self._finish or finish
                if finish is not None:
                    self._ends_unseen = self._ends_by_itself(choice)
        if not decided:
            self._count(event)
        return taken

    def _tokens(self, choice: Event, timings: Event, finish: FinishReason | None) -> list[Token]:
        delta = choice.get("delta") or {}
        text = str(delta.get("content") or choice.get("text") or "")
        rows = self._rows.read(choice)
        self._rowed = bool(rows)
        if not text and any(delta.get(name) for name in _REASONING):
            self._hidden += len(rows) or 1
            self._received += len(rows) or 1
            return []
        kept_back = self._kept_back(rows, text, timings)
        self._received += kept_back + (len(rows) or bool(text))
        tokens = self._aligned.add(rows, text)
        if finish is not None:
            tokens += self._aligned.end(whole=finish is FinishReason.LENGTH)
        return [Token("")] * kept_back + tokens

    def _kept_back(self, rows: list[Row], text: str, timings: Event) -> int:
        if not rows and not text:
            return 0
        kept_back = int(timings.get("predicted_n") or 0) - self._received - (len(rows) or 1)
        if kept_back > MOST_KEPT_BACK:
            raise ValueError
        return max(0, kept_back)

    def _watched(self, tokens: list[Token]) -> list[Token]:
        """The tokens up to the deciding one, the last that counts."""
        for seen, token in enumerate(tokens, start=1):
            if self._deciding(token):
                tokens = tokens[:seen]
                self._finish = FinishReason.UNSURE
                break
        self._given += len(tokens)
        if tokens:
            self._silent = not tokens[-1].text
        return tokens

    def _count(self, event: Event) -> None:
        """Takes the counts that can be true: no fewer than were seen, no more than were asked for."""
        told_input, told_cached, told_output = _of_timings(event) if event.get("timings") else _of_usage(event)
        if 0 < told_input <= MOST_INPUT_TOKENS:
            self._input = max(told_input, self._input) if self._input_told else told_input
            self._cached = max(self._cached, min(told_cached, self._input))
            self._input_told = True
        counted = self._given + self._hidden
        if self._finish not in (None, FinishReason.UNSURE):
            counted = max(counted, self._received)  # the end token, which has a row with some engines and no text
        if told_output >= max(1, counted) and self._finish is not FinishReason.UNSURE and self._true(told_output):
            counted = told_output
            self._told = self._finish is not None
        if told_output == counted:
            self._told_output = counted
        self._output = max(self._output, counted)

    def _usage(self, output: int) -> Usage:
        """The counts so far, which are the engine's if it has told them of just so many tokens."""
        told = self._input_told and self._told_output == output
        return Usage(self._input, output, self._cached, counted=not told)

    def _ends_by_itself(self, choice: Event) -> bool:
        """Whether the answer stopped at a token of which nothing came, neither text nor a row of its own."""
        by_a_string = any(isinstance(choice.get(name), str) for name in _STOPPED_BY)
        if self._finish is not FinishReason.STOP or choice.get("finish_reason") != "stop" or by_a_string:
            return False
        return not (self._rowed or self._silent or self._received > self._given + self._hidden)

    def _true(self, output: int) -> bool:
        return output <= max(self._asked_output + 1, self._given + self._hidden + MOST_KEPT_BACK)

    def _tell_times(self, timings: Event) -> None:
        prompt, generation = _seconds(timings.get("prompt_ms")), _seconds(timings.get("predicted_ms"))
        if prompt is not None or generation is not None:
            self._times = EngineTimes(prompt_seconds=prompt, generation_seconds=generation)


def _finish(reason: object, *, begun: bool) -> FinishReason | None:
    if reason is None or reason == "":
        return None
    if reason in _FAILURES:
        kind = StreamInterrupted if begun else TierUnavailable
        raise kind("the engine ended the answer without finishing it")
    return _FINISHES.get(str(reason), FinishReason.STOP)


def _of_timings(event: Event) -> tuple[int, int, int]:
    """Input, cached input and output tokens as llama.cpp counts them; raises for what is no number."""
    timings = event.get("timings") or {}
    cached = int(timings.get("cache_n") or 0)
    return cached + int(timings.get("prompt_n") or 0), cached, int(timings.get("predicted_n") or 0)


def _of_usage(event: Event) -> tuple[int, int, int]:
    """The same as OpenAI counts them; 0 for what is missing or no number."""
    usage = event.get("usage")
    if not isinstance(usage, dict):
        return 0, 0, 0
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    return _whole(usage.get("prompt_tokens")), _whole(cached), _whole(usage.get("completion_tokens"))


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _seconds(milliseconds: Any) -> float | None:
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, int | float):
        return None
    return milliseconds / 1000 if math.isfinite(milliseconds) and milliseconds >= 0 else None
