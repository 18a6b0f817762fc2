"""Engines that were started with flags which cost a small tier its evidence.

server = DialectServer("vllm")
server.dialect = ProcessedLogprobs()
async with server: ...
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dialects.answers import Candidate, Piece
from dialects.faults import Fault
from dialects.vllm import Vllm, VllmWriter
from dialects.writing import Asked


class ProcessedLogprobs(Vllm):
    """vLLM with --logprobs-mode processed_logprobs: after the temperature."""

    def writer(self, asked: Asked, fault: Fault | None) -> VllmWriter:
        return _Processed(asked, fault, model=self.model)


class FewLogprobs(Vllm):
    """vLLM with --max-logprobs 1."""

    def read(self, path: str, body: Mapping[str, Any]) -> Asked:
        asked = super().read(path, body)
        if (asked.top or 0) > 1:
            raise self._refused(f"Requested sample logprobs of {asked.top}, which is greater than max allowed: 1")
        return asked


class _Processed(VllmWriter):
    def token(self, piece: Piece, finish: str | None) -> list[bytes]:
        return super().token(_processed(piece, float(self._asked.body.get("temperature") or 1.0)), finish)


def _processed(piece: Piece, temperature: float) -> Piece:
    """The token with its candidates' log-probabilities divided by a temperature, their probabilities again 1."""
    divided = [(one.logprob or 0.0) / temperature for one in piece.candidates]
    whole = math.log(math.fsum(map(math.exp, divided)))
    candidates = tuple(
        Candidate(one.token_id, one.raw, logprob - whole)
        for one, logprob in zip(piece.candidates, divided, strict=True)
    )
    own = next(one.logprob for one in candidates if one.token_id == piece.token_id or one.raw == piece.raw)
    return replace(piece, logprob=own, candidates=candidates)
