"""Answers requests through the llama.cpp runtime, streamed, greedy, with the margin of every token."""

import json
import math
import os
import secrets
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xllamacpp

ANSWER_LIMIT = 48


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model said: its text, p(first) - p(second) of each token, and whether it stopped by itself."""

    text: str
    margins: tuple[float, ...]
    finished: bool

    def least(self, window: int | None = None) -> float:
        """Gives the smallest margin of the first `window` tokens, of all without one; 0 where nothing was said."""
        return min(self.margins[:window], default=0.0) if self.finished or window else 0.0

    def mean(self) -> float:
        """Gives the mean margin of the answer; 0 where nothing was said."""
        return sum(self.margins) / len(self.margins) if self.margins and self.finished else 0.0


class Runtime:
    """One model in one slot and one thread, so that repeats are identical."""

    def __init__(self, path: Path) -> None:
        params = xllamacpp.CommonParams()
        params.model.path = os.fspath(path)
        params.n_parallel = 1
        params.n_ctx = 256
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        params.no_extra_bufts = True
        params.cache_ram_mib = 0
        params.verbosity = -1
        self._key = secrets.token_hex(16)
        params.api_keys = [self._key]
        self._server = xllamacpp.Server(params)

    def answer(self, request: str) -> Reply:
        """Asks one request as a single user turn."""
        pieces: list[str] = []
        margins: list[float] = []
        finish: list[str] = []

        def receive(chunk: dict[str, Any]) -> bool:
            if "error" in chunk:
                raise RuntimeError(chunk["error"]["message"])
            for choice in chunk.get("choices", ()):
                tokens = (choice.get("logprobs") or {}).get("content") or ()
                margins.extend(_margin(token["top_logprobs"]) for token in tokens if token["token"])
                pieces.append(choice.get("delta", {}).get("content") or "")
                if choice.get("finish_reason"):
                    finish.append(choice["finish_reason"])
            return False

        body = {
            "messages": [{"role": "user", "content": request}],
            "max_tokens": ANSWER_LIMIT,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": 2,
            "stream": True,
        }
        self._server.handle_chat_completions(body, receive)
        return Reply("".join(pieces), tuple(margins), finish == ["stop"])

    def token_ids(self, text: str) -> list[int]:
        """Tokenizes a text as the runtime does, over its own loopback port."""
        call = urllib.request.Request(  # noqa: S310 - the runtime's own loopback address
            f"{self._server.listening_address}/tokenize",
            json.dumps({"content": text, "add_special": False, "parse_special": False}).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"},
        )
        with urllib.request.urlopen(call, timeout=10) as reply:  # noqa: S310
            return list(json.load(reply)["tokens"])


def _margin(candidates: list[dict[str, Any]]) -> float:
    first, second = sorted((math.exp(c["logprob"]) for c in candidates), reverse=True)[:2]
    return first - second
