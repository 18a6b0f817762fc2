"""What an engine tells about itself beside its answers: which dialect it speaks, and how many requests it runs now.

The dialect is a guess from what the engine says of itself; nothing depends on it but advice to people.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from pathlib import Path

from marginal.backends.http_calls import HttpCalls
from marginal.backends.patience import Timeouts
from marginal.errors import MarginalError, TierUnavailable

METRICS = "/metrics"
SLOTS = "/slots"
CONNECTIONS = 4


class Dialect(Enum):
    """An engine; the value is what people call it."""

    VLLM = "vLLM"
    SGLANG = "SGLang"
    LLAMA_SERVER = "llama-server"
    TGI = "TGI"
    UNKNOWN = "unknown"


RUNNING: Mapping[Dialect, str] = {
    Dialect.VLLM: "vllm:num_requests_running",
    Dialect.SGLANG: "sglang:num_running_reqs",
    Dialect.LLAMA_SERVER: "llamacpp:requests_processing",
    Dialect.TGI: "tgi_batch_current_size",
}
"""The gauge in which an engine tells how many requests it runs."""

_OWNERS = {"vllm": Dialect.VLLM, "sglang": Dialect.SGLANG, "llamacpp": Dialect.LLAMA_SERVER}
_SAMPLE = re.compile(r"^(?P<name>[A-Za-z_:][\w:]*)(?:\{[^}]*\})?\s+(?P<value>[0-9.eE+-]+)\s*$", re.MULTILINE)
_VERSION = re.compile(r"[\w.+-]{1,40}")


@dataclass(frozen=True, slots=True)
class Recognised:
    """A dialect, what it was recognised by, and the version that the engine says it has."""

    dialect: Dialect
    sign: str | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """How many requests an engine runs now, and where it says so."""

    running: int
    source: str


class EngineFacts:
    """One engine by its URL, over connections of its own; `aclose` it in the end."""

    def __init__(self, url: str, *, api_key_file: Path | None = None, ca_file: Path | None = None) -> None:
        """Raises ConfigurationError."""
        self.calls = HttpCalls(
            url,
            api_key_file=api_key_file,
            ca_file=ca_file,
            headers=None,
            timeouts=Timeouts(),
            connections=CONNECTIONS,
        )
        self._source: str | None = None

    async def recognise(self) -> Recognised:
        """Guesses the dialect by what the engine says of itself. Raises TierUnavailable when nothing answers there."""
        status, headers, _ = await self.calls.read("/health")
        if headers.get("Server") == "llama.cpp":
            return Recognised(Dialect.LLAMA_SERVER, "the header Server: llama.cpp", await self._version("/props"))
        if await self.is_tgi():
            return Recognised(Dialect.TGI, "model_id and max_total_tokens in /info", await self._version("/info"))
        listed = await self._object("/v1/models")
        cards = listed.get("data")
        owners = [card.get("owned_by") for card in cards if isinstance(card, dict)] if isinstance(cards, list) else []
        for owner, dialect in _OWNERS.items():
            if owner in owners:
                version = await self._version("/version" if dialect is Dialect.VLLM else "/server_info")
                return Recognised(dialect, f"owned_by: {owner} in /v1/models", version)
        if "model_path" in await self._object("/model_info"):
            return Recognised(Dialect.SGLANG, "model_path in /model_info")
        if status in (HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT):
            raise TierUnavailable("a gateway answers, but no engine behind it")
        return Recognised(Dialect.UNKNOWN)

    async def is_tgi(self) -> bool:
        """Whether `/info` is that of Text Generation Inference. Raises TierUnavailable when nothing answers there."""
        status, said = await self.calls.ask("/info")
        return status == HTTPStatus.OK and isinstance(said, dict) and {"model_id", "max_total_tokens"} <= said.keys()

    async def load(self, dialect: Dialect) -> Load | None:
        """How many requests run now, by `/metrics` or llama-server's `/slots`; None when the engine does not tell."""
        if self._source in (None, METRICS):
            running = await self._in_metrics(dialect)
            if running is not None:
                self._source = METRICS
                return Load(running, RUNNING[dialect])
        if self._source in (None, SLOTS) and dialect is Dialect.LLAMA_SERVER:
            running = await self._in_slots()
            if running is not None:
                self._source = SLOTS
                return Load(running, "is_processing in /slots")
        return None

    async def aclose(self) -> None:
        """Closes every connection."""
        await self.calls.close()

    async def _in_metrics(self, dialect: Dialect) -> int | None:
        """The gauge's sum over all its labels: one for each model, engine core or rank."""
        if dialect not in RUNNING:
            return None
        try:
            status, _, text = await self.calls.read(METRICS)
        except MarginalError:
            return None
        if status != HTTPStatus.OK:
            return None
        values = [found["value"] for found in _SAMPLE.finditer(text) if found["name"] == RUNNING[dialect]]
        try:
            return round(sum(map(float, values))) if values else None
        except (ValueError, OverflowError):
            return None

    async def _in_slots(self) -> int | None:
        try:
            status, slots = await self.calls.ask(SLOTS)
        except MarginalError:
            return None
        if status != HTTPStatus.OK or not isinstance(slots, list):
            return None
        return sum(bool(slot.get("is_processing")) for slot in slots if isinstance(slot, dict))

    async def _object(self, path: str) -> Mapping[str, object]:
        status, said = await self.calls.ask(path)
        return said if status == HTTPStatus.OK and isinstance(said, dict) else {}

    async def _version(self, path: str) -> str | None:
        said = await self._object(path)
        found = said.get("version") or said.get("build_info")
        return found if isinstance(found, str) and _VERSION.fullmatch(found) else None
