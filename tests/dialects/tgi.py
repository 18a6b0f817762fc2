"""Text Generation Inference 3: its native routes and its chat route, from docs/openapi.json and router/src."""

import json
from collections.abc import Mapping
from typing import Any

from dialects.answers import CHAT_OVERHEAD, CONTEXT_TOKENS, Candidate, Piece, identity, tokenized
from dialects.faults import Fault
from dialects.whole_text import WholeCharacters
from dialects.writing import DONE, Asked, Counts, Event, Numbers, Refusal, conversation_of, framed, prompt_of

MODEL = "dialect/tgi"
MAX_INPUT_TOKENS = CONTEXT_TOKENS - 1
MAX_TOP_N_TOKENS = 5
CHAT = "/v1/chat/completions"
FINISHES = {"stop": "eos_token", "length": "length"}
KEEP_ALIVE = b":\n\n"
ERRORS = {
    "generation": ("generation", "Request failed during generation: Server error: CUDA error", 424),
    "overloaded": ("overloaded", "Model is overloaded", 429),
    "incomplete": ("incomplete_generation", "Incomplete generation", 500),
}


class Tgi:
    """The native stream has one event per token, no [DONE], and even its overload comes within HTTP 200."""

    name = "tgi"
    generating = ("/generate_stream", "/", CHAT)

    def read(self, path: str, body: Mapping[str, Any]) -> Asked:
        if path == CHAT:
            question, used = conversation_of(body)
            wanted = int(body.get("max_tokens") or 100)
            top = int(body.get("top_logprobs") or 0) if body.get("logprobs") else None
            stream = bool(body.get("stream"))
        else:
            question, used = prompt_of(body, "inputs")
            parameters = body.get("parameters") or {}
            wanted = int(parameters.get("max_new_tokens") or 100)
            top = int(parameters.get("top_n_tokens") or 0)
            stream = path == "/generate_stream" or bool(body.get("stream"))
            if not 0.0 < float(parameters.get("top_p") or 0.5) < 1.0:
                raise self._invalid("`top_p` must be > 0.0 and < 1.0", path)
            if float(parameters.get("temperature") or 1.0) <= 0.0:
                raise self._invalid("`temperature` must be strictly positive", path)
        if not question:
            raise self._invalid("`inputs` cannot be empty", path)
        if (top or 0) > MAX_TOP_N_TOKENS:
            raise self._invalid(f"`top_n_tokens` must be >= 0 and <= {MAX_TOP_N_TOKENS}. Given: {top}", path)
        if used > MAX_INPUT_TOKENS:
            raise self._invalid(f"`inputs` must have less than {MAX_INPUT_TOKENS} tokens. Given: {used}", path)
        if used + wanted > CONTEXT_TOKENS:
            raise self._invalid(
                f"`inputs` tokens + `max_new_tokens` must be <= {CONTEXT_TOKENS}. "
                f"Given: {used} `inputs` tokens and {wanted} `max_new_tokens`",
                path,
            )
        return Asked(path, question, used, wanted, top, stream, body)

    def writer(self, asked: Asked, fault: Fault | None) -> "Native | Chat":
        return Chat(asked, fault) if asked.route == CHAT else Native(asked, fault)

    def facts(self) -> Mapping[str, Any]:
        info = {
            "model_id": MODEL,
            "model_sha": "0" * 40,
            "model_pipeline_tag": "text-generation",
            "max_concurrent_requests": 128,
            "max_best_of": 2,
            "max_stop_sequences": 4,
            "max_input_tokens": MAX_INPUT_TOKENS,
            "max_total_tokens": CONTEXT_TOKENS,
            "validation_workers": 2,
            "max_client_batch_size": 4,
            "router": "text-generation-router",
            "version": "3.3.7",
            "sha": None,
            "docker_label": None,
        }
        models = {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": MODEL}]}
        return {"/health": "", "/info": info, "/": info, "/v1/models": models}

    def tokenize(self, body: Mapping[str, Any]) -> Any:
        if "messages" in body:
            text = "\n".join(CHAT_OVERHEAD * "<|> " + str(message["content"]) for message in body["messages"])
            return {"tokenize_response": _tokens(text), "templated_text": text}
        return _tokens(str(body["inputs"]))

    def failure(self, status: int) -> Any:
        error_type, words, _ = ERRORS["overloaded" if status in (429, 503) else "generation"]
        return {"error": words, "error_type": error_type}

    def _invalid(self, words: str, path: str) -> Refusal:
        """A validation error: within HTTP 200 in a stream, as everything that goes wrong behind its doors."""
        return Refusal(200, _error_event(f"Input validation error: {words}", "validation", 422, chat=path == CHAT))


def _tokens(text: str) -> list[Event]:
    tokens: list[Event] = []
    start = 0
    for word in tokenized(text):
        tokens.append({"id": identity(word.encode()), "text": word, "start": start, "stop": start + len(word)})
        start += len(word) + 1
    return tokens


class Native:
    """`/generate_stream` and `/`: the last token's event has the details."""

    def __init__(self, asked: Asked, fault: Fault | None) -> None:
        self.held = 0
        self._asked = asked
        self._numbers = Numbers(fault, nothing=None)
        self._counts = Counts(asked, fault)
        self._characters = WholeCharacters()
        self._text = ""
        self._index = 0

    def opening(self) -> list[bytes]:
        return [KEEP_ALIVE]

    def token(self, piece: Piece, finish: str | None) -> list[bytes]:
        self._numbers.begin(self._index)
        self._index += 1
        text = piece.text if piece.special else self._characters.add(piece.raw)
        self._text += "" if piece.special else text
        event: Event = {"index": self._index, "token": self._token(piece, text, special=piece.special)}
        top = [self._token(each, each.text, special=False) for each in piece.top(self._asked.top or 0)]
        if top and not self._numbers.missing and not self._numbers.short:
            event["top_tokens"] = top
        return [_framed(event | self._end(finish))]

    def ending(self, finish: str) -> list[bytes]:  # noqa: ARG002
        return []

    def error(self, kind: str) -> list[bytes]:
        error_type, words, status = ERRORS[kind]
        return [_framed(_error_event(words, error_type, status, chat=False))]

    def _token(self, one: Piece | Candidate, text: str, *, special: bool) -> Event:
        logprob = None if self._numbers.missing else self._numbers(one)
        return {"id": one.token_id, "text": text, "logprob": logprob, "special": special}

    def _end(self, finish: str | None) -> Event:
        if finish is None or not (self._asked.body.get("parameters") or {}).get("details"):
            return {"generated_text": None if finish is None else self._text, "details": None}
        details: Event = {"finish_reason": FINISHES[finish], "seed": None}
        counted = self._counts(self._index)
        if counted is not None:
            details |= {"input_length": counted[0], "generated_tokens": counted[1]}
        return {"generated_text": self._text, "details": details}


class Chat:
    """`/v1/chat/completions`: every delta has the role, log-probabilities have neither bytes nor ids."""

    def __init__(self, asked: Asked, fault: Fault | None) -> None:
        self.held = 0
        self._asked = asked
        self._numbers = Numbers(fault, nothing=None)
        self._counts = Counts(asked, fault)
        self._characters = WholeCharacters()
        self._written = 0

    def opening(self) -> list[bytes]:
        return [KEEP_ALIVE]

    def token(self, piece: Piece, finish: str | None) -> list[bytes]:
        self._numbers.begin(self._written)
        self._written += 1
        text = piece.text if piece.special else self._characters.add(piece.raw)
        logprobs = None
        if self._asked.top is not None and not self._numbers.missing:
            top = [{"token": each.text, "logprob": self._numbers(each)} for each in piece.top(self._asked.top)]
            row = {"token": text, "logprob": self._numbers(piece), "top_logprobs": top}
            logprobs = {"content": [] if self._numbers.short else [row]}
        delta = {"role": "assistant", "content": "" if piece.special else text}
        return [self._chunk([{"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}])]

    def ending(self, finish: str) -> list[bytes]:  # noqa: ARG002
        usage = self._counts.usage(self._written) if self._asked.usage_wanted else None
        return [*([] if usage is None else [self._chunk([], usage)]), DONE]

    def error(self, kind: str) -> list[bytes]:
        error_type, words, status = ERRORS[kind]
        return [framed(_error_event(words, error_type, status, chat=True)), DONE]

    def _chunk(self, choices: list[Event], usage: Event | None = None) -> bytes:
        event = {"object": "chat.completion.chunk", "id": "", "created": 1, "model": MODEL}
        return framed(event | {"system_fingerprint": "3.3.7-sha", "choices": choices, "usage": usage})


def _error_event(words: str, error_type: str, status: int, *, chat: bool) -> Event:
    if chat:
        return {"error": {"message": words, "http_status_code": status}}
    return {"error": words, "error_type": error_type}


def _framed(event: Any) -> bytes:
    return b"data:" + json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
