"""llama.cpp's llama-server: `content[]` with ids on both routes, timings, and nothing before a character is whole."""

from collections.abc import Mapping
from typing import Any

from dialects.answers import CONTEXT_TOKENS, Candidate, Piece, identity, tokenized
from dialects.faults import Fault
from dialects.whole_text import WholeCharacters
from dialects.writing import DONE, Asked, Counts, Event, Numbers, Refusal, conversation_of, framed, prompt_of

MODEL = "dialect/llama-server"
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


class LlamaServer:
    """A prompt only has to fit, the answer is cut where the context ends.

    The end token has an event and a row on the completions route, and nothing of its own on the chat route.
    """

    name = "llama-server"
    generating = (CHAT, COMPLETIONS)

    def read(self, path: str, body: Mapping[str, Any]) -> Asked:
        chat = path == CHAT
        question, used = conversation_of(body) if chat else prompt_of(body)
        if used >= CONTEXT_TOKENS:
            words = f"request ({used} tokens) exceeds the available context size ({CONTEXT_TOKENS} tokens)"
            error = {"code": 400, "message": f"{words}, try increasing it", "type": "exceed_context_size_error"}
            raise Refusal(400, {"error": error | {"n_prompt_tokens": used, "n_ctx": CONTEXT_TOKENS}})
        wanted = body.get("max_tokens") or body.get("n_predict")
        most = min(int(wanted) if wanted and int(wanted) > 0 else CONTEXT_TOKENS, CONTEXT_TOKENS - used)
        if chat:
            top = int(body.get("top_logprobs") or 0) if body.get("logprobs") else None
        else:
            top = int(body.get("logprobs") or body.get("n_probs") or 0) or None
        return Asked(path, question, used, most, top, bool(body.get("stream")), body)

    def writer(self, asked: Asked, fault: Fault | None) -> "LlamaServerWriter":
        return LlamaServerWriter(asked, fault)

    def facts(self) -> Mapping[str, Any]:
        meta = {"vocab_type": 2, "n_vocab": 100_000, "n_ctx_train": CONTEXT_TOKENS, "n_embd": 64, "n_params": 1}
        card = {"id": MODEL, "object": "model", "created": 1, "owned_by": "llamacpp", "meta": meta}
        settings = {"id": 0, "id_task": -1, "n_ctx": CONTEXT_TOKENS, "speculative": False, "is_processing": False}
        props = {"default_generation_settings": settings, "total_slots": 4, "model_path": MODEL}
        return {
            "/health": {"status": "ok"},
            "/v1/models": {"object": "list", "data": [card]},
            "/props": props | {"chat_template": "{{ messages }}", "bos_token": "", "eos_token": "<|end|>"},
        }

    def tokenize(self, body: Mapping[str, Any]) -> Any:
        return {"tokens": [identity(word.encode()) for word in tokenized(str(body["content"]))]}

    def failure(self, status: int) -> Any:
        kind = "unavailable_error" if status in (429, 503) else "server_error"
        return {"error": {"code": status, "message": "Loading model", "type": kind}}


class LlamaServerWriter:
    """Tokens of a character that is not whole are held back; only the last of them gets a row, with all the text."""

    def __init__(self, asked: Asked, fault: Fault | None) -> None:
        self.held = 0
        self._asked = asked
        self._chat = asked.route == CHAT
        self._numbers = Numbers(fault, nothing=-1e9)
        self._counts = Counts(asked, fault)
        self._characters = WholeCharacters()
        self._written = 0

    def opening(self) -> list[bytes]:
        if not self._chat:
            return []
        return [self._chunk({"delta": {"role": "assistant", "content": None}}, None, None)]

    def token(self, piece: Piece, finish: str | None) -> list[bytes]:
        self._numbers.begin(self._written)
        self._written += 1
        events: list[bytes] = []
        text = "" if piece.special else self._characters.add(piece.raw)
        if not piece.special:
            self.held = self.held + 1 if self._characters.incomplete else 0
        if text or (piece.special and not self._chat):
            content: Event = {"delta": {"content": text}} if self._chat else {"text": text}
            events.append(self._chunk(content, self._logprobs(piece, text), None))
        if finish is not None:
            self.held = 0
            events.append(self._chunk({"delta": {}} if self._chat else {"text": ""}, None, finish))
        return events

    def ending(self, finish: str) -> list[bytes]:  # noqa: ARG002
        usage = self._counts.usage(self._written) if self._asked.usage_wanted else None
        event = {"choices": [], "usage": usage, "timings": self._timings()} | self._envelope()
        return [*([] if usage is None else [framed(event)]), DONE]

    def error(self, kind: str) -> list[bytes]:
        status = 503 if kind == "overloaded" else 500
        return [framed({"error": {"code": status, "message": "Compute error.", "type": "server_error"}})]

    def _chunk(self, content: Event, logprobs: Event | None, finish: str | None) -> bytes:
        choice: Event = {"index": 0, "finish_reason": finish} | content
        if logprobs is not None:
            choice["logprobs"] = logprobs
        event: Event = {"choices": [choice]} | self._envelope()
        if finish is not None or self._asked.body.get("timings_per_token"):
            timings = self._timings()
            event |= {} if timings is None else {"timings": timings}
        if finish is not None and not self._chat and (usage := self._counts.usage(self._written)) is not None:
            event["usage"] = usage
        return framed(event)

    def _envelope(self) -> Event:
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        return {"created": 1, "id": "chatcmpl-1", "model": MODEL, "system_fingerprint": "b11549", "object": kind}

    def _timings(self) -> Event | None:
        counted = self._counts(self._written)
        if counted is None:
            return None
        prompt, output = counted
        speeds = {"prompt_ms": 1.0, "prompt_per_second": 1.0, "predicted_ms": 1.0, "predicted_per_second": 1.0}
        return {"cache_n": 0, "prompt_n": prompt, "predicted_n": output} | speeds

    def _logprobs(self, piece: Piece, text: str) -> Event | None:
        if not self._asked.top or self._numbers.missing:
            return None
        top = [self._entry(each, each.text, each.raw) for each in piece.top(self._asked.top)]
        row = self._entry(piece, text, text.encode()) | {"top_logprobs": top}
        return {"content": [] if self._numbers.short else [row]}

    def _entry(self, one: Piece | Candidate, text: str, raw: bytes) -> Event:
        return {"id": one.token_id, "token": text, "bytes": list(raw), "logprob": self._numbers(one)}
