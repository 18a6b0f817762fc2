"""Command-line options that choose a model service's engine, and what of them fits together."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import SplitResult, urlsplit

import typer

from marginal.backends.endpoints import address
from marginal.backends.llama_cpp import EngineSettings
from marginal.entrypoints.engines import EMBEDDED, Embedded, Engine, EngineKind, External, Route
from marginal.errors import ConfigurationError
from marginal.tokens import Tier

MODEL_HELP = "home-small, home-large, a GGUF file, hub:owner/repo@revision/file.gguf#sha256, or scripted:..."
ROUTES = {EngineKind.OPENAI: (Route.CHAT, Route.COMPLETIONS), EngineKind.TGI: (Route.NATIVE, Route.CHAT)}
"""The routes of each external engine, its default first."""

_OPTION = re.compile(r"(?<!\S)--")
"""Where an option begins in a sentence; within a host name it does not."""


def _external(about: str, *names: str, env: str, **more: Any) -> Any:
    return typer.Option(*names, envvar=f"MARGINAL_{env}", help=about, rich_help_panel="External engine", **more)


def _embedded(about: str, *, env: str, default: object, **more: Any) -> Any:
    return typer.Option(
        envvar=f"MARGINAL_{env}", help=about, rich_help_panel="Embedded engine", show_default=str(default), **more
    )


EngineOption = Annotated[EngineKind, typer.Option(envvar="MARGINAL_ENGINE", help="What generates.")]
ContextTokens = Annotated[
    int | None,
    typer.Option(
        envvar="MARGINAL_CONTEXT_TOKENS",
        min=256,
        help="Prompt and answer of one generation.",
        show_default=f"{EMBEDDED.context_tokens} embedded, else as the engine says",
    ),
]
Model = Annotated[str | None, _embedded(MODEL_HELP, env="MODEL", default="the tier's of the home pair")]
Parallel = Annotated[
    int | None, _embedded("Generations at once; further ones wait.", env="PARALLEL", default=EMBEDDED.parallel, min=1)
]
Threads = Annotated[
    int | None, _embedded("Processor threads of the engine.", env="THREADS", default=EMBEDDED.threads, min=1)
]
EndpointUrls = Annotated[
    list[str] | None,
    _external("URL of the engine; several times, or with commas, for several.", "--endpoint", env="ENDPOINT"),
]
EngineModel = Annotated[
    str | None, _external("The engine's name of the model.", env="ENGINE_MODEL", show_default="its only one")
]
Template = Annotated[
    str | None,
    _external("The prompt of --route completions; {} is the user's message.", env="TEMPLATE", show_default="{}"),
]
ApiKeyFile = Annotated[Path | None, _external("File that holds the engine's API key.", env="API_KEY_FILE")]
CaFile = Annotated[
    Path | None, _external("Certificates to trust for https.", env="CA_FILE", show_default="the system's")
]
RouteOption = Annotated[
    Route | None,
    _external(
        "The engine's API: chat or completions of openai, native or chat of tgi.",
        "--route",
        env="ROUTE",
        show_default="the first",
    ),
]
ExtraBody = Annotated[
    str | None, _external("A JSON object of further fields for the engine's requests.", env="EXTRA_BODY")
]
FirstTokenSeconds = Annotated[
    float | None, _external("Longest wait for an answer's first token.", env="FIRST_TOKEN_SECONDS", min=0.001)
]
InterTokenSeconds = Annotated[
    float | None, _external("Longest wait for any further token.", env="INTER_TOKEN_SECONDS", min=0.001)
]


@dataclass(frozen=True, slots=True)
class Given:
    """The options as they were given; None and () were not."""

    kind: EngineKind = EngineKind.EMBEDDED
    context_tokens: int | None = None
    model: str | None = None
    parallel: int | None = None
    threads: int | None = None
    endpoint: tuple[str, ...] = ()
    engine_model: str | None = None
    route: Route | None = None
    template: str | None = None
    api_key_file: Path | None = None
    ca_file: Path | None = None
    extra_body: str | None = None
    first_token_seconds: float | None = None
    inter_token_seconds: float | None = None


_FOR_EMBEDDED = ("model", "parallel", "threads")
_FOR_EXTERNAL = (
    "endpoint",
    "engine_model",
    "route",
    "template",
    "api_key_file",
    "ca_file",
    "extra_body",
    "first_token_seconds",
    "inter_token_seconds",
)


def checked(given: Given, *, default_model: str) -> Engine:
    """The engine that the options describe. Raises ConfigurationError, one sentence that names them."""
    if given.kind is EngineKind.EMBEDDED:
        return _checked_embedded(given, default_model)
    return _checked_external(given)


def in_front_of(tier: Tier, given: Given) -> External | None:
    """The engine of one's own that a tier of `marginal up` stands in front of; None when no option asks for one.

    An endpoint is an OpenAI-compatible one unless told otherwise. Raises ConfigurationError in the words of `up`, whose
    options are those of a model service with the tier before.
    """
    if not given.endpoint:
        kind = () if given.kind is EngineKind.EMBEDDED else ("--engine",)
        if foreign := ", ".join((*kind, *_options(given, ("engine_model", "api_key_file")))):
            raise ConfigurationError(of_tier(tier, f"{foreign}: only with --endpoint"))
        return None
    if given.model is not None:
        told = "--model and --endpoint: give one of them; the model of an engine of your own is named by --engine-model"
        raise ConfigurationError(of_tier(tier, told))
    try:
        return _checked_external(replace(given, kind=EngineKind.OPENAI) if given.kind is EngineKind.EMBEDDED else given)
    except ConfigurationError as error:
        raise ConfigurationError(of_tier(tier, str(error))) from None


def of_tier(tier: Tier, text: str) -> str:
    """A text with the options of a model service named as `marginal up` names them."""
    return _OPTION.sub(f"--{tier.value}-", text)


def _checked_embedded(given: Given, default_model: str) -> Embedded:
    if foreign := _named(given, _FOR_EXTERNAL):
        raise ConfigurationError(f"{foreign}: only for an engine of your own, add --engine openai or --engine tgi")
    settings = EngineSettings(
        threads=given.threads or EMBEDDED.threads,
        parallel=given.parallel or EMBEDDED.parallel,
        context_tokens=given.context_tokens or EMBEDDED.context_tokens,
    )
    return Embedded(given.model or default_model, settings)


def _checked_external(given: Given) -> External:
    kind = given.kind
    if foreign := _named(given, _FOR_EMBEDDED):
        raise ConfigurationError(
            f"{foreign}: only for --engine embedded; the model of --engine {kind.value} is named by --engine-model"
        )
    urls = tuple(url.strip() for one in given.endpoint for url in one.split(",") if url.strip())
    if not urls:
        raise ConfigurationError(f"--engine {kind.value} needs --endpoint, for example http://127.0.0.1:8000")
    parts = [_checked_url(url) for url in urls]
    if len(set(urls)) < len(urls):
        raise ConfigurationError("--endpoint: the same one is given twice")
    if given.ca_file is not None and all(part.scheme == "http" for part in parts):
        raise ConfigurationError("--ca-file: only for an --endpoint with https, and none has it")
    if given.route is not None and given.route not in ROUTES[kind]:
        known = " or ".join(route.value for route in ROUTES[kind])
        raise ConfigurationError(f"--route {given.route.value}: --engine {kind.value} has {known}")
    if given.template is not None and (given.route is not Route.COMPLETIONS or given.template.count("{}") != 1):
        raise ConfigurationError("--template: only for --route completions, with one {} for the user's message")
    return External(
        kind=kind,
        urls=urls,
        route=given.route or ROUTES[kind][0],
        model=given.engine_model,
        template=given.template,
        api_key_file=given.api_key_file,
        ca_file=given.ca_file,
        extra_body=_json_object(given.extra_body) if given.extra_body is not None else None,
        first_token_seconds=given.first_token_seconds,
        inter_token_seconds=given.inter_token_seconds,
        context_tokens=given.context_tokens,
    )


def _named(given: Given, fields: tuple[str, ...]) -> str:
    """The options among these that were given, as they are typed."""
    return ", ".join(_options(given, fields))


def _options(given: Given, fields: tuple[str, ...]) -> list[str]:
    return [f"--{field.replace('_', '-')}" for field in fields if getattr(given, field) not in (None, ())]


def _checked_url(url: str) -> SplitResult:
    """A URL's parts. Raises ConfigurationError, which shows no more of it than host and port."""
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        whole = False
    if not whole:
        raise ConfigurationError("--endpoint: one is not http://HOST:PORT or https://HOST:PORT, with or without a path")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ConfigurationError(
            f"--endpoint {address(url)}: give it without user, password and query; a key goes into --api-key-file"
        )
    return parts


def _json_object(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ConfigurationError("""--extra-body: not a JSON object such as '{"top_k": 40}'""")
    return found
