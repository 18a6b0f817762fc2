"""Reads the events of Text Generation Inference, of its native stream and of its chat stream, as chunks.

The end token, and any other special token, has no text: it is counted and not handed on, as the other backends do.
"""

from collections.abc import Iterable
from typing import Any

from huggingface_hub import ChatCompletionStreamOutput, TextGenerationStreamOutput

from marginal.backends.early_stop import deciding
from marginal.backends.openai_events import finite
from marginal.backends.tgi_faults import NOT_UNDERSTOOD
from marginal.errors import BackendProtocol
from marginal.tokens import Alternative, Chunk, FinishReason, Generation, Token, Usage

LEAST_KEEPING_MARGINS = 3
"""From so many alternatives on the last may give way to the generated token: a margin is that of the first two."""

_FINISHES = {
    "length": FinishReason.LENGTH,
    "eos_token": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "stop": FinishReason.STOP,
}
_WRONG_SHAPE = (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError)


class TgiEvents:
    """One answer as it comes. Prompt tokens are known at its end, or from `counted`; until then they are a `low` guess.

    A count that was reported never falls. When nobody has told it in the end it is `supposed`. Usage is the engine's
    once it has told at the end what was seen; that of an answer cut short is counted.
    """

    def __init__(self, generation: Generation, *, low: int, supposed: int) -> None:
        self.finish: FinishReason | None = None
        self._deciding = deciding(generation)
        self._alternatives = generation.alternatives
        self._input_tokens = low
        self._supposed = supposed
        self._told = self._agreed = False
        self._output_tokens = 0

    def counted(self, input_tokens: int) -> None:
        """Takes the engine's own count of the prompt; below 1 it is none."""
        if input_tokens > 0:
            self._told = True
            self._input_tokens = max(self._input_tokens if self._output_tokens else 0, input_tokens)

    def native(self, event: TextGenerationStreamOutput) -> Chunk | None:
        """Reads an event of `generate_stream`: one token, with the last of them the details. Raises BackendProtocol."""
        try:
            chunk = self._token_of(event)
            if event.details is not None:
                self._end(event.details.finish_reason)
                self._agree(event.details.input_length, event.details.generated_tokens)
        except _WRONG_SHAPE as error:
            raise BackendProtocol(NOT_UNDERSTOOD) from error
        return chunk

    def chat(self, event: ChatCompletionStreamOutput) -> Chunk | None:
        """Reads an event of `chat/completions`: a token, a finish with the last, then usage. Raises BackendProtocol."""
        try:
            chunk = None
            for choice in event.choices or ():
                chunk = self._chat_token(choice)
                if choice.finish_reason is not None:
                    self._end(choice.finish_reason)
            if event.usage is not None:
                self._agree(event.usage.prompt_tokens, event.usage.completion_tokens)
        except _WRONG_SHAPE as error:
            raise BackendProtocol(NOT_UNDERSTOOD) from error
        return chunk

    @property
    def last(self) -> Chunk:
        """The chunk with the finish, everything having been read."""
        if not self._told and self.finish is not FinishReason.UNSURE:
            self._input_tokens = max(self._input_tokens, self._supposed)
        return Chunk((), self._usage(), self.finish)

    def _token_of(self, event: TextGenerationStreamOutput) -> Chunk | None:
        token = event.token
        if token.special:
            self._silent()
            return None
        others = ((other.text, other.logprob, other.id) for other in event.top_tokens or ())
        return self._heard(_text(token.text), token.logprob, others, token.id)

    def _chat_token(self, choice: Any) -> Chunk | None:
        text = _text(choice.delta.content or "")
        row = next(iter(choice.logprobs.content or ()), None) if choice.logprobs else None
        if not text and (choice.finish_reason == "stop" if row is None else row.token):
            self._silent()
            return None
        others = () if row is None else ((other.token, other.logprob, None) for other in row.top_logprobs or ())
        return self._heard(text, None if row is None else row.logprob, others, None)

    def _heard(
        self, text: str, logprob: object, others: Iterable[tuple[Any, object, Any]], token_id: object
    ) -> Chunk | None:
        if self.finish is not None:
            return None
        own, wanted = finite(logprob), self._alternatives
        identity = token_id if isinstance(token_id, int) else None
        found = [
            Alternative(_text(other), number, other_id if isinstance(other_id, int) else None)
            for other, raw, other_id in others
            if (number := finite(raw)) is not None
        ]
        found.sort(key=lambda alternative: -alternative.logprob)
        alternatives = found[:wanted]
        if own is not None and wanted >= LEAST_KEEPING_MARGINS and not _among(alternatives, own, identity):
            kept = [*alternatives[: wanted - 1], Alternative(text, own, identity)]
            alternatives = sorted(kept, key=lambda alternative: -alternative.logprob)
        token = Token(text, own if wanted else None, tuple(alternatives), identity)
        self._output_tokens += 1
        if self._deciding(token):
            self.finish = FinishReason.UNSURE
        return Chunk((token,), self._usage())

    def _silent(self) -> None:
        if self.finish is None:
            self._output_tokens += 1

    def _end(self, reason: object) -> None:
        if self.finish is None:
            self.finish = _FINISHES.get(str(reason), FinishReason.STOP)

    def _agree(self, input_tokens: object, output_tokens: object) -> None:
        """Takes the engine's counts as far as they do not contradict what was seen."""
        if isinstance(input_tokens, int) and isinstance(output_tokens, int) and output_tokens >= self._output_tokens:
            self.counted(input_tokens)
            self._agreed = self._told and output_tokens == self._output_tokens

    def _usage(self) -> Usage:
        return Usage(self._input_tokens, self._output_tokens, counted=not self._agreed)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _among(alternatives: list[Alternative], logprob: float, token_id: int | None) -> bool:
    """Whether the generated token is one of them; the chat route gives no ids, and a part of a character two texts."""
    if token_id is None:
        return any(alternative.logprob == logprob for alternative in alternatives)
    return any(alternative.token_id == token_id for alternative in alternatives)
