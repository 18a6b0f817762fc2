"""vLLM 0.33: the chat and completions routes of its OpenAI server, from vllm/entrypoints/openai."""

from collections.abc import Mapping
from typing import Any

from dialects.answers import CONTEXT_TOKENS, END_TEXT, Candidate, Piece, identity, logprob_of, tokenized
from dialects.faults import Fault
from dialects.whole_text import WholeCharacters
from dialects.writing import DONE, Asked, Counts, Event, Numbers, Refusal, conversation_of, framed, prompt_of

MODEL = "dialect/vllm"
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
MAX_LOGPROBS = 20
NOTHING = -9999.0
"""How a probability of 0 is written: infinity is no JSON."""
GROUP = 3
"""Tokens in one event when the question says GROUPED, as with a stop string that might be coming or stream_interval."""


class Vllm:
    """Usage comes in every chunk when asked for, the end token has a row, and a prompt must leave room for the answer.

    The completions route keys its top candidates by their text, so that twins collapse, and adds the token generated.
    """

    name = "vllm"
    model = MODEL
    generating: tuple[str, ...] = (CHAT, COMPLETIONS)

    def read(self, path: str, body: Mapping[str, Any]) -> Asked:
        chat = path == CHAT
        question, used = conversation_of(body) if chat else prompt_of(body)
        wanted = body.get("max_completion_tokens") or body.get("max_tokens")
        most = int(wanted) if wanted else (CONTEXT_TOKENS - used if chat else 16)
        top = self._top(body, chat=chat)
        if (top or 0) > MAX_LOGPROBS:
            words = f"Requested sample logprobs of {top}, which is greater than max allowed: {MAX_LOGPROBS}"
            raise self._refused(words)
        self._check_room(used, most)
        chosen = tuple(map(int, body.get("logprob_token_ids") or ()))
        return Asked(path, question, used, most, top, bool(body.get("stream")), body, chosen)

    def _top(self, body: Mapping[str, Any], *, chat: bool) -> int | None:
        if not chat:
            return None if body.get("logprobs") is None else int(body["logprobs"])
        return int(body.get("top_logprobs") or 0) if body.get("logprobs") else None

    def _check_room(self, used: int, most: int) -> None:
        if used >= CONTEXT_TOKENS:
            raise self._refused(
                f"This model's maximum context length is {CONTEXT_TOKENS} tokens. However, your request has "
                f"{used} input tokens. Please reduce the length of the input messages."
            )
        if used + most > CONTEXT_TOKENS:
            raise self._refused(
                f"'max_tokens' or 'max_completion_tokens' is too large: {most}. This model's maximum context length is "
                f"{CONTEXT_TOKENS} tokens and your request has {used} input tokens "
                f"({most} > {CONTEXT_TOKENS} - {used})."
            )

    def _refused(self, words: str) -> Refusal:
        return Refusal(400, {"error": {"message": words, "type": "BadRequestError", "param": None, "code": 400}})

    def writer(self, asked: Asked, fault: Fault | None) -> "OpenAIWriter":
        return VllmWriter(asked, fault, model=self.model)

    def facts(self) -> Mapping[str, Any]:
        card = {"id": MODEL, "object": "model", "created": 1, "owned_by": "vllm", "root": MODEL, "parent": None}
        models = {"object": "list", "data": [card | {"max_model_len": CONTEXT_TOKENS, "permission": []}]}
        return {"/health": "", "/v1/models": models, "/version": {"version": "0.33.0"}}

    def tokenize(self, body: Mapping[str, Any]) -> Any:
        text, used = conversation_of(body) if "messages" in body else prompt_of(body)
        ids = [identity(word.encode()) for word in tokenized(text)]
        return {"count": used, "max_model_len": CONTEXT_TOKENS, "tokens": ids, "token_strs": None}

    def failure(self, status: int) -> Any:
        kind = "ServiceUnavailableError" if status in (429, 503) else "InternalServerError"
        return {"error": {"message": "EngineCore encountered an issue.", "type": kind, "param": None, "code": status}}


class OpenAIWriter:
    """What the OpenAI servers written in Python have in common; tokens of one event are written together."""

    nothing: float | None = None

    def __init__(self, asked: Asked, fault: Fault | None, *, model: str) -> None:
        self.held = 0
        self._asked = asked
        self._chat = asked.route == CHAT
        self._numbers = Numbers(fault, nothing=self.nothing)
        self._counts = Counts(asked, fault)
        self._characters = WholeCharacters()
        self._model = model
        self._written = 0
        self._group: list[tuple[Piece, str, Any, list[Any]]] = []
        self._group_size = GROUP if "GROUPED" in asked.question else 1

    def opening(self) -> list[bytes]:
        if not self._chat:
            return []
        choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        return [self.chunk([choice], everywhere=True)]

    def token(self, piece: Piece, finish: str | None) -> list[bytes]:
        self._numbers.begin(self._written)
        self._written += 1
        text = "" if piece.special else self._characters.add(piece.raw)
        top = [(each, self._numbers(each)) for each in self.candidates(piece)]
        self._group.append((piece, text, self._numbers(piece), top))
        self.held = len(self._group)
        if finish is None and self.held < self._group_size:
            return []
        choice: Event = {"index": 0, "logprobs": self._logprobs(), "finish_reason": finish}
        text = "".join(text for _, text, _, _ in self._group)
        choice |= {"delta": {"content": text}} if self._chat else {"text": text}
        if finish is not None:
            choice["stop_reason"] = None
        if self._asked.body.get("return_token_ids"):
            choice["token_ids"] = [piece.token_id for piece, *_ in self._group]
        self._group, self.held = [], 0
        return [self.chunk([choice], everywhere=True)]

    def ending(self, finish: str) -> list[bytes]:  # noqa: ARG002
        usage = self._counts.usage(self._written) if self._asked.usage_wanted else None
        return [*([] if usage is None else [self.chunk([], usage)]), DONE]

    def error(self, kind: str) -> list[bytes]:
        status = 503 if kind == "overloaded" else 500
        error = {"message": "EngineCore encountered an issue.", "type": "InternalServerError", "param": None}
        return [framed({"error": error | {"code": status}}), DONE]

    def chunk(self, choices: list[Event], usage: Event | None = None, *, everywhere: bool = False) -> bytes:
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        event: Event = {"id": "cmpl-1", "object": kind, "created": 1, "model": self._model, "choices": choices}
        if everywhere and self._asked.usage_everywhere:
            usage = self._counts.usage(self._written)
        if usage is not None:
            event["usage"] = usage
        return framed(event)

    def candidates(self, piece: Piece) -> list[Candidate]:
        return list(piece.top(self._asked.top or 0))

    def name(self, one: Piece | Candidate) -> str:
        """How a token is written in a row."""
        return END_TEXT if isinstance(one, Piece) and one.special else one.text

    def top_by_text(self, piece: Piece, logprob: Any, top: list[Any]) -> Event:  # noqa: ARG002
        return {self.name(each): number for each, number in top}

    def offset(self) -> int:
        return -1

    def _logprobs(self) -> Event | None:
        if self._asked.top is None or self._numbers.missing:
            return None
        if self._chat:
            rows = [self._row(piece, logprob, top) for piece, _, logprob, top in self._group]
            return {"content": [] if self._numbers.short else rows}
        arrays: Event = {"text_offset": [], "token_logprobs": [], "tokens": [], "top_logprobs": []}
        for piece, _, logprob, top in self._group:
            arrays["text_offset"].append(self.offset())
            arrays["tokens"].append(self.name(piece))
            if not self._numbers.short:
                arrays["token_logprobs"].append(logprob)
                arrays["top_logprobs"].append(self.top_by_text(piece, logprob, top))
        return arrays

    def _row(self, piece: Piece, logprob: Any, top: list[Any]) -> Event:
        rows = [self._entry(each, number) for each, number in top]
        return self._entry(piece, logprob) | {"top_logprobs": rows}

    def _entry(self, one: Piece | Candidate, number: Any) -> Event:
        name = self.name(one)
        return {"token": name, "logprob": number, "bytes": list(name.encode("utf-8", errors="replace"))}


class VllmWriter(OpenAIWriter):
    """Fragments of characters are written as nothing until the last of them, and the -inf of others as -9999."""

    nothing = NOTHING

    def __init__(self, asked: Asked, fault: Fault | None, *, model: str) -> None:
        super().__init__(asked, fault, model=model)
        self._offset = 0
        self._row_characters = WholeCharacters()
        self._names: dict[int, str] = {}

    def token(self, piece: Piece, finish: str | None) -> list[bytes]:
        name = END_TEXT if piece.special else self._row_characters.add(piece.raw)
        own = (each for each in piece.candidates if each.token_id == piece.token_id)
        self._names |= {id(one): name for one in (piece, *own)}
        return super().token(piece, finish)

    def candidates(self, piece: Piece) -> list[Candidate]:
        if self._asked.chosen_ids:
            return [logprob_of(piece, token_id) for token_id in self._asked.chosen_ids]
        return super().candidates(piece)

    def name(self, one: Piece | Candidate) -> str:
        if self._asked.body.get("return_tokens_as_token_ids"):
            return f"token_id:{one.token_id}"
        return self._names.get(id(one), one.text)

    def top_by_text(self, piece: Piece, logprob: Any, top: list[Any]) -> Event:
        """Its top candidates after the generated token, which is there whether it is one of them or not."""
        return {self.name(piece): logprob} | super().top_by_text(piece, logprob, top)

    def offset(self) -> int:
        self._offset += 1
        return self._offset - 1
