"""`marginal probe`: what an operator runs first against an engine: what it gives, and which tier it can be."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from marginal.backends.endpoints import Endpoints, address
from marginal.backends.engine_facts import Dialect, EngineFacts, Recognised
from marginal.backends.engine_habits import time_to_stop, usage_in_stream
from marginal.entrypoints import reaching
from marginal.entrypoints.cli_options import AsJson
from marginal.entrypoints.engine_options import Given, checked
from marginal.entrypoints.engines import EngineKind, External, Route, build_model
from marginal.entrypoints.probe_report import Report, as_json, shown
from marginal.entrypoints.progress import Tell, counted
from marginal.entrypoints.wording import as_json as one_line
from marginal.errors import ConfigurationError, MarginalError
from marginal.routing.ports import LanguageModel
from marginal.routing.probing import STEPS, Findings, examine
from marginal.tokens import Evidence, Tier
from marginal.transport.remote_model import connected

UNFIT = 1
WITHOUT_END = {"ignore_eos": True}
"""Makes an answer long enough to be cancelled; only sent to engines that take it."""

TAKE_IT = (Dialect.VLLM, Dialect.SGLANG, Dialect.LLAMA_SERVER)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


class Kind(Enum):
    """What is at the other end: an OpenAI-compatible engine, TGI, or one of our model services."""

    OPENAI = "openai"
    TGI = "tgi"
    GRPC = "grpc"


@app.command(
    "probe",
    epilog="[bold]Examples[/]\n\nmarginal probe http://127.0.0.1:8000\n\n"
    "marginal probe https://api.example.com/v1 --model big --api-key-file key.txt\n\n"
    "marginal probe 127.0.0.1:50052 --json\n\n"
    "Exit code 0: fit as the small tier. 1: fit only as the large tier, or as none. 2: wrong usage.",
)
def probe_command(
    url: Annotated[
        str, typer.Argument(help="http(s)://HOST:PORT of an engine, or HOST:PORT of a model service.", metavar="URL")
    ],
    kind: Annotated[Kind | None, typer.Option(help="What answers there.", show_default="found out")] = None,
    route: Annotated[
        Route | None,
        typer.Option(
            help="The engine's API: chat or completions of openai, native or chat of tgi.", show_default="first"
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The engine's name of the model.", show_default="its only one")
    ] = None,
    template: Annotated[
        str | None, typer.Option(help="What a prompt is set into at {}, for --route completions.", show_default="{}")
    ] = None,
    api_key_file: Annotated[Path | None, typer.Option(help="File that holds the engine's API key.")] = None,
    ca_file: Annotated[
        Path | None, typer.Option(help="Certificates to trust for https.", show_default="the system's")
    ] = None,
    json: AsJson = False,
) -> None:
    """Find out what an engine or a model service gives, which tier it can be, and the flag for what it lacks."""
    given = Given(
        endpoint=(url,), engine_model=model, route=route, api_key_file=api_key_file, ca_file=ca_file, template=template
    )
    service = kind is Kind.GRPC or (kind is None and "://" not in url)
    try:
        if service:
            _check_service(given)
        with counted(Console(stderr=True, highlight=False), total=STEPS + 3, verb="probed") as tell:
            report = asyncio.run(_service(url, tell) if service else _engine(given, kind, tell))
    except ConfigurationError as error:
        raise typer.BadParameter(_in_our_words(str(error))) from None
    console = Console(highlight=False)
    if json:
        console.out(one_line(as_json(report)), highlight=False)
    else:
        console.print(shown(report))
    raise typer.Exit(0 if report.unfit(Tier.SMALL) is None else UNFIT)


def _check_service(given: Given) -> None:
    """Raises ConfigurationError for what a model service has not."""
    [target] = given.endpoint
    host, _, port = target.rpartition(":")
    if "://" in target or not host or not port.isdecimal():
        raise ConfigurationError("--endpoint: a model service is HOST:PORT; an engine is http://HOST:PORT")
    fields = ("route", "engine_model", "template", "api_key_file", "ca_file")
    if foreign := ", ".join(f"--{one.replace('_', '-')}" for one in fields if getattr(given, one) is not None):
        raise ConfigurationError(f"{foreign}: only for an engine, whose URL begins with http:// or https://")


async def _service(target: str, tell: Tell) -> Report:
    """Probes a model service; what it says of itself goes before, as when it does not serve."""
    async with connected(target, tls=reaching.current().tls) as model:
        found = await examine(model, tell=tell)
        said = found.description.evidence.shortfall if found.description else None
        if found.fault is not None and said is not None:
            found = replace(found, fault=f"does not serve: {said}")
        elif found.fault is not None:
            found = replace(found, fault=f"{found.fault}; if it is an engine, begin its URL with http://")
    return Report(target, Kind.GRPC.value, None, found)


async def _engine(given: Given, kind: Kind | None, tell: Tell) -> Report:
    """Probes an engine over HTTP. Raises ConfigurationError."""
    external = _external(given, kind or (Kind.TGI if given.route is Route.NATIVE else Kind.OPENAI))
    [url] = external.urls
    facts = EngineFacts(url, api_key_file=external.api_key_file, ca_file=external.ca_file)
    async with aclosing(facts):
        tell("what it is")
        try:
            engine = await facts.recognise()
        except MarginalError as error:
            nothing = Findings(None, Evidence(str(error)), fault=str(error))
            unknown = Recognised(Dialect.UNKNOWN)
            return Report(address(url), external.kind.value, external.route.value, nothing, unknown)
        if kind is None and engine.dialect is Dialect.TGI:
            external = _external(given, Kind.TGI)
        return await _examined(external, facts, engine, tell)


async def _examined(external: External, facts: EngineFacts, engine: Recognised, tell: Tell) -> Report:
    usage, stop = None, None
    async with _built(external) as model:
        found = await examine(model, tell=tell)
    if found.answers:
        tell("its counts")
        name = external.model or (found.description.name if found.description else "")
        usage = await usage_in_stream(facts, external.route.value, name)
        tell("a cancel")
        endless = replace(external, extra_body=WITHOUT_END) if engine.dialect in TAKE_IT else external
        async with _built(endless) as model:
            stop = await time_to_stop(facts, engine.dialect, model)
    return Report(address(external.urls[0]), external.kind.value, external.route.value, found, engine, usage, stop)


@asynccontextmanager
async def _built(external: External) -> AsyncIterator[LanguageModel]:
    model = build_model(external, dict)
    try:
        yield model
    finally:
        if isinstance(model, Endpoints):
            await model.close()


def _in_our_words(error: str) -> str:
    """A complaint about the options of a model service, as those of this command are called."""
    for theirs, ours in (("--endpoint", "URL"), ("--engine-model", "--model"), ("--engine ", "--kind ")):
        error = error.replace(theirs, ours)
    return error


def _external(given: Given, kind: Kind) -> External:
    engine = checked(replace(given, kind=EngineKind(kind.value)), default_model="")
    if not isinstance(engine, External):
        raise ConfigurationError("--kind: names no engine")
    return engine
