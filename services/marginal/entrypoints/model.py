"""marginal-small-model and marginal-large-model: one language model behind ModelService, deployed once per tier."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from marginal.backends.llama_cpp import EngineSettings, LlamaCpp
from marginal.backends.script_names import SCHEME, scripted_model
from marginal.entrypoints.options import DrainSeconds, GraceSeconds, MaxCalls, OtlpEndpoint, TraceExporter, TraceFile
from marginal.entrypoints.serving import TraceOptions, run, telemetry, unless_stopped
from marginal.models import fetch
from marginal.routing.evidence import probe
from marginal.routing.ports import LanguageModel
from marginal.telemetry.logs import Log
from marginal.telemetry.recorder import GenerationRecorder
from marginal.telemetry.tracing import Exporter
from marginal.tokens import Tier
from marginal.transport.guard import Guard
from marginal.transport.model_servicer import SERVICE, ModelServicer
from marginal.transport.server import ServerSettings, serve
from marginal.transport.validation import Limits

PROBE_AGAIN_SECONDS = 5.0
ENGINE = EngineSettings()
SERVER = ServerSettings(listen="", message_bytes=4 * 1024 * 1024)
"""Takes larger messages than a router, whose requests grow a little on their way here."""

PORTS = {Tier.SMALL: 50052, Tier.LARGE: 50053}
MODEL_HELP = "home-small, home-large, a GGUF file, hub:owner/repo@revision/file.gguf#sha256, or scripted:..."


def program(tier: Tier) -> typer.Typer:
    """The program of one tier; they differ in names, ports and in that a small tier must prove its evidence."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

    @app.command(
        help=f"Serves a language model as the {tier.value} tier.",
        epilog=f"Example: marginal-{tier.value}-model --model home-{tier.value} --listen 127.0.0.1:{PORTS[tier]}",
    )
    def serve_model(
        listen: Annotated[
            str, typer.Option(envvar="MARGINAL_LISTEN", help="Address to listen on.")
        ] = f"127.0.0.1:{PORTS[tier]}",
        model: Annotated[str, typer.Option(envvar="MARGINAL_MODEL", help=MODEL_HELP)] = f"home-{tier.value}",
        parallel: Annotated[
            int, typer.Option(envvar="MARGINAL_PARALLEL", min=1, help="Generations at once; further ones wait.")
        ] = ENGINE.parallel,
        threads: Annotated[
            int, typer.Option(envvar="MARGINAL_THREADS", min=1, help="Processor threads of the engine.")
        ] = ENGINE.threads,
        context_tokens: Annotated[
            int, typer.Option(envvar="MARGINAL_CONTEXT_TOKENS", min=256, help="Prompt and answer of one generation.")
        ] = ENGINE.context_tokens,
        grace_seconds: GraceSeconds = SERVER.grace_seconds,
        drain_seconds: DrainSeconds = SERVER.drain_seconds,
        max_calls: MaxCalls = 256,
        trace_exporter: TraceExporter = Exporter.NONE,
        trace_file: TraceFile = None,
        otlp_endpoint: OtlpEndpoint = "",
    ) -> None:
        settings = replace(SERVER, listen=listen, drain_seconds=drain_seconds, grace_seconds=grace_seconds)
        engine = EngineSettings(threads=threads, parallel=parallel, context_tokens=context_tokens)
        traces = TraceOptions(trace_exporter, trace_file, otlp_endpoint)
        run(lambda stop: _serve(tier, model, engine, settings, max_calls=max_calls, traces=traces, stop=stop))

    return app


async def _serve(
    tier: Tier,
    name: str,
    engine: EngineSettings,
    settings: ServerSettings,
    *,
    max_calls: int,
    traces: TraceOptions,
    stop: asyncio.Event,
) -> None:
    with telemetry(f"marginal-{tier.value}-model", traces) as own:
        model = await unless_stopped(stop, lambda: load(name, engine))
        if model is None:
            return
        recorder = GenerationRecorder(own.tracing.spans, own.log, tier=tier)
        servicer = ModelServicer(model, name=short(name), limits=Limits(), recorder=recorder)
        await serve(
            SERVICE,
            settings,
            guard=Guard(own.tracing.tracer, max_calls=max_calls, trust_baggage=True),
            register=servicer.register,
            until_ready=lambda: until_evidence(tier, model, servicer, own.log),
            stop=stop,
        )


async def until_evidence(
    tier: Tier, model: LanguageModel, servicer: ModelServicer, log: Log, *, again_seconds: float = PROBE_AGAIN_SECONDS
) -> None:
    """Probes until the model gives what its tier needs: any answer, and of a small one usable log-probabilities."""
    said = None
    while True:
        servicer.evidence = seen = await probe(model)
        if seen.proven or (tier is Tier.LARGE and seen.tokens):
            return
        if seen.shortfall != said:
            log.warning(f"stays NOT_SERVING: cannot be a {tier.value} tier", because=seen.shortfall)
            said = seen.shortfall
        await asyncio.sleep(again_seconds)


def load(name: str, engine: EngineSettings) -> LanguageModel:
    """Loads a model by its name, fetching it if need be. Raises ConfigurationError."""
    if name.startswith(SCHEME):
        return scripted_model(name)
    return LlamaCpp(fetch.resolve(name), name=short(name), settings=engine)


def short(name: str) -> str:
    """What a model is called in records and spans: its name, of a file only the file's."""
    return Path(name.partition("#")[0]).name.removesuffix(".gguf")


def small() -> None:
    """Runs marginal-small-model."""
    program(Tier.SMALL)()


def large() -> None:
    """Runs marginal-large-model."""
    program(Tier.LARGE)()
