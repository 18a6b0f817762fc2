"""marginal-router: answers with the small model and defers to the large one when it is unsure."""

import asyncio
import random
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from marginal.entrypoints import options
from marginal.entrypoints.certificate_keeping import CertificateKeeper, TlsFiles
from marginal.entrypoints.exposure import PLAIN_TEXT, Access
from marginal.entrypoints.options import DrainSeconds, GraceSeconds, MaxCalls, OtlpEndpoint, TraceExporter, TraceFile
from marginal.entrypoints.policy_keeping import PolicyKeeper
from marginal.entrypoints.serving import TraceOptions, run, telemetry
from marginal.entrypoints.tenant_keeping import TenantFiles, TenantKeeper
from marginal.errors import DeadlineExceeded, ModelFault
from marginal.routing.overview import overview
from marginal.routing.router import Router
from marginal.routing.shadows import Shadows
from marginal.routing.tiers import TierState
from marginal.telemetry.logs import Log
from marginal.telemetry.recorder import OpenTelemetryRecorder
from marginal.telemetry.tracing import Exporter
from marginal.tokens import Tier
from marginal.transport.admin import AdminServicer, serving_admin
from marginal.transport.guard import Guard
from marginal.transport.remote_model import connected
from marginal.transport.router_servicer import SERVICE, RouterServicer
from marginal.transport.server import ServerSettings, serve
from marginal.transport.validation import Limits

ASK_AGAIN_SECONDS = 0.2
NAME_AGAIN_SECONDS = 20.0
ADMIN_CALLS = 4
LIMITS = Limits()
SERVER = ServerSettings(listen="")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


@dataclass(frozen=True, slots=True)
class Files:
    """Where policies come from and where what they learn is kept; None is the bundled ones, and nowhere."""

    policies: Path | None
    state: Path | None


@app.command(
    epilog="[bold]Examples[/]\n\n"
    "marginal-router --small 127.0.0.1:50052 --large 127.0.0.1:50053\n\n"
    "marginal-router --listen 0.0.0.0:50051 --keys-file keys.jsonl --tenants-file tenants.toml\n\n"
    "marginal-router --listen 0.0.0.0:50051 --keys-file keys.jsonl --tls-cert tls.crt --tls-key tls.key --tls-ca ca.crt"
)
def serve_router(
    listen: Annotated[str, typer.Option(envvar="MARGINAL_LISTEN", help="Address to listen on.")] = "127.0.0.1:50051",
    small: Annotated[str, typer.Option(envvar="MARGINAL_SMALL", help="The small tier, host:port.")] = "127.0.0.1:50052",
    large: Annotated[str, typer.Option(envvar="MARGINAL_LARGE", help="The large tier, host:port.")] = "127.0.0.1:50053",
    policy_file: Annotated[
        Path | None, typer.Option(envvar="MARGINAL_POLICY_FILE", help="Policies and prices; bundled ones by default.")
    ] = None,
    state_file: Annotated[
        Path | None,
        typer.Option(envvar="MARGINAL_STATE_FILE", help="Where thresholds that moved are kept over a restart."),
    ] = None,
    admin_listen: Annotated[
        str,
        typer.Option(envvar="MARGINAL_ADMIN_LISTEN", help="Address of the AdminService; empty for none."),
    ] = "127.0.0.1:50054",
    maximum_deadline_seconds: Annotated[
        float, typer.Option(envvar="MARGINAL_MAXIMUM_DEADLINE_SECONDS", min=0.1, help="The most a request may take.")
    ] = LIMITS.deadline_seconds,
    grace_seconds: GraceSeconds = SERVER.grace_seconds,
    drain_seconds: DrainSeconds = SERVER.drain_seconds,
    max_calls: MaxCalls = 256,
    tenants_file: options.TenantsFile = None,
    keys_file: options.KeysFile = None,
    trust_tenant_header: options.TrustTenantHeader = False,
    insecure: options.Insecure = False,
    reflection: options.Reflection = None,
    tls_cert: options.TlsCert = None,
    tls_key: options.TlsKey = None,
    tls_client_ca: options.TlsClientCa = None,
    tls_ca: options.TlsCa = None,
    trace_exporter: TraceExporter = Exporter.NONE,
    trace_file: TraceFile = None,
    otlp_endpoint: OtlpEndpoint = "",
) -> None:
    """Routes requests: the small tier answers, the large one when the small one's tokens say that it is unsure."""
    limits = Limits(deadline_seconds=maximum_deadline_seconds)
    settings = ServerSettings(listen, drain_seconds=drain_seconds, grace_seconds=grace_seconds, reflection=reflection)
    tls = TlsFiles(tls_cert, tls_key, tls_client_ca, tls_ca)
    access = Access(TenantFiles(tenants_file, keys_file, trust_header=trust_tenant_header), tls, insecure=insecure)
    traces = TraceOptions(trace_exporter, trace_file, otlp_endpoint)
    targets = {Tier.SMALL: small, Tier.LARGE: large}
    files = Files(policy_file, state_file)
    run(
        lambda stop: _serve(
            settings,
            targets,
            files,
            admin_listen,
            access=access,
            limits=limits,
            max_calls=max_calls,
            traces=traces,
            stop=stop,
        )
    )


async def _serve(
    settings: ServerSettings,
    targets: Mapping[Tier, str],
    files: Files,
    admin_listen: str,
    *,
    access: Access,
    limits: Limits,
    max_calls: int,
    traces: TraceOptions,
    stop: asyncio.Event,
) -> None:
    access.check(settings.listen, admin_listen)
    with telemetry("marginal-router", traces) as own:
        if access.readable_on_the_way(settings.listen):
            own.log.warning(PLAIN_TEXT, listen=settings.listen)
        tracer, metrics = own.tracing.tracer, own.tracing.metrics
        keeper = PolicyKeeper(files.policies, files.state, log=own.log, metrics=metrics)
        tenants = TenantKeeper(access.tenants, log=own.log, metrics=metrics)
        tls = CertificateKeeper(access.tls, log=own.log, metrics=metrics)
        book, shadows = keeper.book, Shadows(random.random, time.monotonic)
        recorder = OpenTelemetryRecorder(own.tracing.spans, own.log, metrics, currency=lambda: book.policies.currency)
        admin = AdminServicer(lambda: overview(book, shadows, keeper.source))
        async with (
            tls.running(),
            tenants.running(),
            connected(targets[Tier.SMALL], tracer, tls=tls.client) as small,
            connected(targets[Tier.LARGE], tracer, tls=tls.client) as large,
            keeper.running(),
            serving_admin(
                admin_listen,
                admin,
                guard=Guard(tracer, max_calls=ADMIN_CALLS, trust_baggage=False),
                tls=tls.server,
            ),
        ):
            tiers = {Tier.SMALL: TierState(Tier.SMALL, small), Tier.LARGE: TierState(Tier.LARGE, large)}
            router = Router(tiers, book=book, shadows=shadows, recorder=recorder, clock=time.monotonic)
            naming = [asyncio.create_task(_keep_name(state)) for state in tiers.values()]
            try:
                await serve(
                    SERVICE,
                    replace(settings, tls=tls.server),
                    guard=Guard(tracer, max_calls=max_calls, trust_baggage=False, callers=tenants.callers),
                    register=RouterServicer(router, limits=limits, tracer=tracer, callers=tenants.callers).register,
                    until_ready=lambda: _until_evidence(tiers[Tier.SMALL], own.log),
                    stop=stop,
                )
            finally:
                await shadows.drained(settings.settle_seconds)
                for task in naming:
                    task.cancel()


async def _until_evidence(small: TierState, log: Log) -> None:
    """Waits until the small tier has proven that it streams usable log-probabilities."""
    said = None
    while True:
        try:
            description = await small.model.describe()
            if description.evidence.proven:
                small.is_now(description)
                return
            waiting = description.evidence.shortfall
        except (ModelFault, DeadlineExceeded) as error:
            waiting = str(error)
        if waiting != said:
            log.info("waiting for the small tier", because=waiting)
            said = waiting
        await asyncio.sleep(ASK_AGAIN_SECONDS)


async def _keep_name(state: TierState) -> None:
    """Keeps up with the name of a tier's model; the tier may come up later, and come back as another."""
    while True:
        with suppress(ModelFault, DeadlineExceeded):
            state.is_now(await state.model.describe())
        known = state.model_name != state.tier.value
        await asyncio.sleep(NAME_AGAIN_SECONDS if known else ASK_AGAIN_SECONDS)


def main() -> None:
    """Runs marginal-router."""
    app()


if __name__ == "__main__":
    main()
