"""SGLang 0.5: as vLLM's routes, with habits of its own, from sglang/srt/entrypoints/openai."""

from collections.abc import Mapping
from typing import Any

from dialects.answers import CONTEXT_TOKENS, END_TEXT, Candidate, Piece
from dialects.faults import Fault
from dialects.vllm import OpenAIWriter, Vllm
from dialects.writing import DONE, Asked, Refusal, framed

MODEL = "dialect/sglang"


class Sglang(Vllm):
    """Text offsets are always -1, fragments of characters are written as Latin-1, and errors name no parameter."""

    name = "sglang"
    model = MODEL

    def _check_room(self, used: int, most: int) -> None:
        if used >= CONTEXT_TOKENS:
            raise self._refused(
                f"The input ({used} tokens) is longer than the model's context length ({CONTEXT_TOKENS} tokens)."
            )
        if used + most > CONTEXT_TOKENS:
            raise self._refused(
                f"Requested token count exceeds the model's maximum context length of {CONTEXT_TOKENS} tokens. You "
                f"requested a total of {used + most} tokens: {used} tokens from the input messages and {most} tokens "
                "for the completion. Please reduce the number of tokens in the input messages or the completion to fit "
                "within the limit."
            )

    def _refused(self, words: str) -> Refusal:
        body = {"object": "error", "message": words, "type": "BadRequestError", "param": None, "code": 400}
        return Refusal(400, body)

    def writer(self, asked: Asked, fault: Fault | None) -> OpenAIWriter:
        return SglangWriter(asked, fault, model=MODEL)

    def facts(self) -> Mapping[str, Any]:
        card = {"id": MODEL, "object": "model", "created": 1, "owned_by": "sglang", "root": MODEL}
        models = {"object": "list", "data": [card | {"max_model_len": CONTEXT_TOKENS}]}
        info = {"model_path": MODEL, "tokenizer_path": MODEL, "is_generation": True}
        return {"/health": "", "/v1/models": models, "/get_model_info": info, "/model_info": info}

    def failure(self, status: int) -> Any:
        words = "The request queue is full." if status in (429, 503) else "Internal server error"
        return {"object": "error", "message": words, "type": "InternalServerError", "param": None, "code": status}


class SglangWriter(OpenAIWriter):
    """An impossible candidate is null."""

    def name(self, one: Piece | Candidate) -> str:
        if isinstance(one, Piece) and one.special:
            return END_TEXT
        try:
            return one.raw.decode()
        except UnicodeDecodeError:
            return one.raw.decode("latin-1")

    def error(self, kind: str) -> list[bytes]:
        status = 503 if kind == "overloaded" else 500
        error = {"object": "error", "message": "Internal server error", "type": "InternalServerError", "param": None}
        return [framed({"error": error | {"code": status}}), DONE]
