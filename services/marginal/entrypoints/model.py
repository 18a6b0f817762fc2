"""marginal-small-model and marginal-large-model: one language model behind ModelService, deployed once per tier."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Annotated

import typer

from marginal.backends.endpoints import EndpointObserver, Endpoints
from marginal.entrypoints import engine_options as engines
from marginal.entrypoints import options
from marginal.entrypoints.certificate_keeping import CertificateKeeper, TlsFiles
from marginal.entrypoints.engine_options import Given, checked
from marginal.entrypoints.engines import Embedded, Engine, EngineKind, External, build_model, evidence, risk
from marginal.entrypoints.options import DrainSeconds, GraceSeconds, MaxCalls, OtlpEndpoint, TraceExporter, TraceFile
from marginal.entrypoints.processes import STAYS
from marginal.entrypoints.serving import TraceOptions, run, telemetry, unless_stopped
from marginal.errors import ModelFault
from marginal.routing.ports import LanguageModel
from marginal.telemetry.calls import outgoing_headers
from marginal.telemetry.endpoint_recorder import EndpointRecorder
from marginal.telemetry.logs import Log
from marginal.telemetry.recorder import GenerationRecorder
from marginal.telemetry.tracing import Exporter
from marginal.tokens import Tier
from marginal.transport.guard import Guard
from marginal.transport.model_servicer import SERVICE, ModelServicer
from marginal.transport.server import ServerSettings, serve
from marginal.transport.validation import Limits

PROBE_AGAIN_SECONDS = 5.0
SERVER = ServerSettings(listen="", message_bytes=4 * 1024 * 1024)
"""Takes larger messages than a router, whose requests grow a little on their way here."""

PORTS = {Tier.SMALL: 50052, Tier.LARGE: 50053}


def program(tier: Tier) -> typer.Typer:
    """The program of one tier; they differ in names, ports and in that a small tier must prove its evidence."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")

    @app.command(
        help=f"Serves a language model as the {tier.value} tier.",
        epilog="[bold]Examples[/]\n\n"
        f"marginal-{tier.value}-model --model home-{tier.value} --listen 127.0.0.1:{PORTS[tier]}\n\n"
        f"marginal-{tier.value}-model --engine openai --endpoint http://127.0.0.1:8000",
    )
    def serve_model(
        listen: Annotated[
            str, typer.Option(envvar="MARGINAL_LISTEN", help="Address to listen on.")
        ] = f"127.0.0.1:{PORTS[tier]}",
        engine: engines.EngineOption = EngineKind.EMBEDDED,
        context_tokens: engines.ContextTokens = None,
        model: engines.Model = None,
        parallel: engines.Parallel = None,
        threads: engines.Threads = None,
        endpoint: engines.EndpointUrls = None,
        engine_model: engines.EngineModel = None,
        route: engines.RouteOption = None,
        template: engines.Template = None,
        api_key_file: engines.ApiKeyFile = None,
        ca_file: engines.CaFile = None,
        extra_body: engines.ExtraBody = None,
        first_token_seconds: engines.FirstTokenSeconds = None,
        inter_token_seconds: engines.InterTokenSeconds = None,
        grace_seconds: GraceSeconds = SERVER.grace_seconds,
        drain_seconds: DrainSeconds = SERVER.drain_seconds,
        max_calls: MaxCalls = 256,
        reflection: options.Reflection = None,
        health_listen: options.HealthListen = "",
        tls_cert: options.TlsCert = None,
        tls_key: options.TlsKey = None,
        tls_client_ca: options.TlsClientCa = None,
        trace_exporter: TraceExporter = Exporter.NONE,
        trace_file: TraceFile = None,
        otlp_endpoint: OtlpEndpoint = "",
        metrics_listen: options.MetricsListen = "",
    ) -> None:
        given = Given(
            kind=engine,
            context_tokens=context_tokens,
            model=model,
            parallel=parallel,
            threads=threads,
            endpoint=tuple(endpoint or ()),
            engine_model=engine_model,
            route=route,
            template=template,
            api_key_file=api_key_file,
            ca_file=ca_file,
            extra_body=extra_body,
            first_token_seconds=first_token_seconds,
            inter_token_seconds=inter_token_seconds,
        )
        settings = replace(
            SERVER,
            listen=listen,
            drain_seconds=drain_seconds,
            grace_seconds=grace_seconds,
            reflection=reflection,
            health_listen=health_listen,
        )
        tls = TlsFiles(tls_cert, tls_key, tls_client_ca)
        traces = TraceOptions(trace_exporter, trace_file, otlp_endpoint, metrics_listen)
        run(lambda stop: _serve(tier, given, settings, tls, max_calls=max_calls, traces=traces, stop=stop))

    return app


async def _serve(
    tier: Tier,
    given: Given,
    settings: ServerSettings,
    tls: TlsFiles,
    *,
    max_calls: int,
    traces: TraceOptions,
    stop: asyncio.Event,
) -> None:
    engine = checked(given, default_model=f"home-{tier.value}")
    with telemetry(f"marginal-{tier.value}-model", traces) as own:
        if (danger := risk(engine)) is not None:
            own.log.warning(danger)
        certificates = CertificateKeeper(tls, log=own.log, metrics=own.tracing.metrics)
        observer = EndpointRecorder(tier, own.log, own.tracing.metrics)
        async with certificates.running(), _built(engine, observer, stop) as model:
            if model is None:
                return
            recorder = GenerationRecorder(own.tracing.spans, own.log, own.tracing.metrics, tier=tier)
            servicer = ModelServicer(model, name=engine.name, limits=Limits(), recorder=recorder)
            await serve(
                SERVICE,
                replace(settings, tls=certificates.server),
                guard=Guard(own.tracing.tracer, max_calls=max_calls, trust_baggage=True),
                register=servicer.register,
                until_ready=lambda: _until_ready(tier, engine, model, servicer, own.log),
                stop=stop,
            )


@asynccontextmanager
async def _built(
    engine: Engine, observer: EndpointObserver, stop: asyncio.Event
) -> AsyncIterator[LanguageModel | None]:
    """The engine's model, its connections closed in the end; None when told to stop before a file was loaded."""
    if isinstance(engine, Embedded):
        yield await unless_stopped(stop, lambda: build_model(engine, outgoing_headers))
        return
    model = build_model(engine, outgoing_headers, observer)
    try:
        yield model
    finally:
        if isinstance(model, Endpoints):
            await model.close()


async def _until_ready(tier: Tier, engine: Engine, model: LanguageModel, servicer: ModelServicer, log: Log) -> None:
    await until_evidence(tier, model, servicer, log)
    if isinstance(engine, External):
        with suppress(ModelFault):
            servicer.name = (await model.describe()).name


async def until_evidence(
    tier: Tier, model: LanguageModel, servicer: ModelServicer, log: Log, *, again_seconds: float = PROBE_AGAIN_SECONDS
) -> None:
    """Probes until the model gives what its tier needs: any answer, and of a small one usable log-probabilities."""
    said = None
    while True:
        servicer.evidence = seen = await evidence(model)
        if seen.proven or (tier is Tier.LARGE and seen.tokens):
            return
        if seen.shortfall != said:
            log.warning(f"{STAYS}: cannot be a {tier.value} tier", because=seen.shortfall)
            said = seen.shortfall
        await asyncio.sleep(again_seconds)


def small() -> None:
    """Runs marginal-small-model."""
    program(Tier.SMALL)()


def large() -> None:
    """Runs marginal-large-model."""
    program(Tier.LARGE)()
