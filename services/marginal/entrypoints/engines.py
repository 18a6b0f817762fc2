"""The engine behind a model service, embedded or external: how it is built, probed and closed."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from marginal.backends.endpoints import LIMIT, Endpoint, EndpointObserver, Endpoints, address
from marginal.backends.llama_cpp import EngineSettings, LlamaCpp
from marginal.backends.openai_compatible import OpenAICompatible
from marginal.backends.patience import Timeouts
from marginal.backends.script_names import SCHEME, scripted_model
from marginal.backends.tgi import TextGenerationInference
from marginal.models import fetch
from marginal.policy.evidence import MOST_ALTERNATIVES
from marginal.routing.evidence import probe
from marginal.routing.ports import LanguageModel
from marginal.tokens import Evidence

Headers = Callable[[], dict[str, str]]
"""Gives the headers that every call of an external engine carries: the trace that it belongs to."""

EMBEDDED = EngineSettings()


class EngineKind(Enum):
    """What generates: llama.cpp in this process, an OpenAI-compatible server, or Text Generation Inference."""

    EMBEDDED = "embedded"
    OPENAI = "openai"
    TGI = "tgi"


class Route(Enum):
    """Which of an engine's APIs is asked."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    NATIVE = "native"


@dataclass(frozen=True, slots=True)
class Embedded:
    """A model that runs in this process; `model` is a name, a file or a script."""

    model: str
    settings: EngineSettings = EMBEDDED

    @property
    def name(self) -> str:
        """What the model is called in records and spans."""
        return short(self.model)


@dataclass(frozen=True, slots=True)
class External:
    """One or more servers of the same model; what is None is left to the backend, or to the server."""

    kind: EngineKind
    urls: tuple[str, ...]
    route: Route
    model: str | None = None
    template: str | None = None
    api_key_file: Path | None = None
    ca_file: Path | None = None
    extra_body: Mapping[str, Any] | None = None
    first_token_seconds: float | None = None
    inter_token_seconds: float | None = None
    context_tokens: int | None = None

    @property
    def name(self) -> str:
        """What the model is called in records and spans until the engine says it: its name, or where it is."""
        return self.model or address(self.urls[0])


Engine = Embedded | External


def short(model: str) -> str:
    """What an embedded model is called: its name, of a file only the file's."""
    return Path(model.partition("#")[0]).name.removesuffix(".gguf")


def risk(engine: Engine) -> str | None:
    """What an operator is to be warned of, in a sentence; None when there is nothing."""
    if isinstance(engine, Embedded) or engine.api_key_file is None:
        return None
    open_ones = [address(url) for url in engine.urls if urlsplit(url).scheme == "http" and not _is_loopback(url)]
    return f"the key in --api-key-file is sent unencrypted to {', '.join(open_ones)}: use https" if open_ones else None


def build_model(engine: Engine, headers: Headers, observer: EndpointObserver | None = None) -> LanguageModel:
    """Makes the engine's LanguageModel; fetching and loading an embedded one blocks. Raises ConfigurationError.

    `observer` is told what becomes of an external engine's endpoints.
    """
    if isinstance(engine, External):
        return Endpoints([_endpoint(engine, url, headers) for url in engine.urls], observer=observer)
    if engine.model.startswith(SCHEME):
        return scripted_model(engine.model)
    return LlamaCpp(fetch.resolve(engine.model), name=engine.name, settings=engine.settings)


async def evidence(model: LanguageModel) -> Evidence:
    """Probes a model, of an external engine every endpoint.

    An endpoint that answers without evidence is told before all others: its requests could not be decided. Endpoints
    that do not answer yet only count when none does.
    """
    if not isinstance(model, Endpoints):
        return await probe(model)
    seen = [
        one if one.proven else replace(one, shortfall=f"{endpoint.name}: {one.shortfall}")
        for endpoint, one in zip(
            model.endpoints, await asyncio.gather(*(probe(endpoint.model) for endpoint in model.endpoints)), strict=True
        )
    ]
    return min(seen, key=lambda one: (2 if not one.tokens else 1 if one.proven else 0, one.alternatives))


def _endpoint(engine: External, url: str, headers: Headers) -> Endpoint:
    default = Timeouts()
    timeouts = Timeouts(
        first_token_seconds=engine.first_token_seconds or default.first_token_seconds,
        inter_token_seconds=engine.inter_token_seconds or default.inter_token_seconds,
    )
    told: dict[str, Any] = {
        "model": engine.model,
        "route": engine.route.value,
        "api_key_file": engine.api_key_file,
        "ca_file": engine.ca_file,
        "extra_body": engine.extra_body,
        "headers": headers,
        "context_tokens": engine.context_tokens,
        "timeouts": timeouts,
        "connections": LIMIT,
    }
    client: OpenAICompatible | TextGenerationInference
    if engine.kind is EngineKind.OPENAI:
        client = OpenAICompatible(url, template=engine.template or "{}", **told)
    else:
        client = TextGenerationInference(url, alternatives=MOST_ALTERNATIVES, **told)
    return Endpoint(address(url), client, client.close)


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
