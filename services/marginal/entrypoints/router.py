"""marginal-router: answers with the small model and defers to the large one when it is unsure."""

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from marginal.entrypoints import options
from marginal.entrypoints.accounting import LedgerOptions, accounting
from marginal.entrypoints.books import RouterBooks
from marginal.entrypoints.certificate_keeping import CertificateKeeper, TlsFiles
from marginal.entrypoints.exposure import PLAIN_TEXT, Access
from marginal.entrypoints.failpoints import failpoint
from marginal.entrypoints.options import DrainSeconds, GraceSeconds, MaxCalls, OtlpEndpoint, TraceExporter, TraceFile
from marginal.entrypoints.policy_keeping import PolicyKeeper
from marginal.entrypoints.readiness import naming, until_evidence
from marginal.entrypoints.scaling import Scaling, both
from marginal.entrypoints.serving import TraceOptions, run, telemetry
from marginal.entrypoints.tenant_keeping import TenantFiles, TenantKeeper
from marginal.entrypoints.tier_targets import FORMS, tier_at
from marginal.routing.admission import Admission
from marginal.routing.overview import overview
from marginal.routing.router import Router
from marginal.routing.shadows import Shadows
from marginal.routing.tenant_limits import TenantLimits
from marginal.routing.tiers import TierState
from marginal.telemetry.recorder import OpenTelemetryRecorder
from marginal.telemetry.tracing import Exporter
from marginal.tokens import Tier
from marginal.transport.admin import AdminServicer, serving_admin
from marginal.transport.guard import Guard
from marginal.transport.router_servicer import SERVICE, RouterServicer
from marginal.transport.scaler import serving_scaler
from marginal.transport.server import AGE_SECONDS, ServerSettings, serve
from marginal.transport.validation import Limits

ADMIN_CALLS = 4
SCALER_CALLS = 64
LIMITS = Limits()
SERVER = ServerSettings(listen="")
LEDGER = LedgerOptions()

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


@dataclass(frozen=True, slots=True)
class Plan:
    """One router as it was asked for.

    `policies` None are the bundled ones; what they learn is kept in `state`, None is nowhere. `admin_listen` "" serves
    no AdminService, `scaler_listen` "" no ExternalScaler.
    """

    settings: ServerSettings
    targets: Mapping[Tier, str]
    policies: Path | None
    state: Path | None
    admin_listen: str
    scaler_listen: str
    access: Access
    ledger: LedgerOptions
    limits: Limits
    max_calls: int
    traces: TraceOptions


@app.command(
    epilog="[bold]Examples[/]\n\n"
    "marginal-router --small 127.0.0.1:50052 --large 127.0.0.1:50053\n\n"
    "marginal-router --listen 0.0.0.0:50051 --keys-file keys.jsonl --tenants-file tenants.toml\n\n"
    "marginal-router --listen 0.0.0.0:50051 --keys-file keys.jsonl --tls-cert tls.crt --tls-key tls.key --tls-ca ca.crt"
)
def serve_router(
    listen: Annotated[str, typer.Option(envvar="MARGINAL_LISTEN", help="Address to listen on.")] = "127.0.0.1:50051",
    small: Annotated[str, typer.Option(envvar="MARGINAL_SMALL", help=f"The small tier: {FORMS}.")] = "127.0.0.1:50052",
    large: Annotated[str, typer.Option(envvar="MARGINAL_LARGE", help=f"The large tier: {FORMS}.")] = "127.0.0.1:50053",
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
    scaler_listen: options.ScalerListen = "",
    health_listen: options.HealthListen = "",
    maximum_deadline_seconds: Annotated[
        float, typer.Option(envvar="MARGINAL_MAXIMUM_DEADLINE_SECONDS", min=0.1, help="The most a request may take.")
    ] = LIMITS.deadline_seconds,
    stall_seconds: options.StallSeconds = LIMITS.stall_seconds,
    keepalive_seconds: options.KeepaliveSeconds = SERVER.keepalive_seconds,
    connection_age_seconds: options.ConnectionAgeSeconds = AGE_SECONDS,
    grace_seconds: GraceSeconds = SERVER.grace_seconds,
    drain_seconds: DrainSeconds = SERVER.drain_seconds,
    max_calls: MaxCalls = 256,
    journal: options.JournalDirectory = None,
    journal_days: options.JournalDays = LEDGER.journal_days,
    journal_bytes: options.JournalBytes = LEDGER.journal_bytes,
    store: options.Store = "",
    store_name: options.StoreName = LEDGER.store_name,
    store_ca: options.StoreCa = None,
    store_password_file: options.StorePasswordFile = None,
    failure_mode: options.FailureModeOption = LEDGER.failure_mode,
    slice_share: options.SliceShare = LEDGER.slice_share,
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
    metrics_listen: options.MetricsListen = "",
) -> None:
    """Routes requests: the small tier answers, the large one when the small one's tokens say that it is unsure."""
    limits = Limits(deadline_seconds=maximum_deadline_seconds, stall_seconds=stall_seconds)
    settings = ServerSettings(
        listen,
        drain_seconds=drain_seconds,
        grace_seconds=grace_seconds,
        keepalive_seconds=keepalive_seconds,
        connection_age_seconds=connection_age_seconds,
        longest_call_seconds=limits.deadline_seconds,
        reflection=reflection,
        health_listen=health_listen,
    )
    tls = TlsFiles(tls_cert, tls_key, tls_client_ca, tls_ca)
    access = Access(TenantFiles(tenants_file, keys_file, trust_header=trust_tenant_header), tls, insecure=insecure)
    traces = TraceOptions(trace_exporter, trace_file, otlp_endpoint, metrics_listen)
    ledger = LedgerOptions(
        journal,
        store,
        store_name,
        store_ca,
        store_password_file,
        failure_mode,
        slice_share,
        journal_days=journal_days,
        journal_bytes=journal_bytes,
    )
    targets = {Tier.SMALL: small, Tier.LARGE: large}
    listens = (admin_listen, scaler_listen)
    plan = Plan(settings, targets, policy_file, state_file, *listens, access, ledger, limits, max_calls, traces)
    run(lambda stop: _serve(plan, stop))


async def _serve(plan: Plan, stop: asyncio.Event) -> None:
    plan.access.check(plan.settings.listen, plan.admin_listen)
    step, clock = failpoint(), time.monotonic
    with telemetry("marginal-router", plan.traces) as own:
        if plan.access.readable_on_the_way(plan.settings.listen):
            own.log.warning(PLAIN_TEXT, listen=plan.settings.listen)
        tracer, metrics = own.tracing.tracer, own.tracing.metrics
        keeper = PolicyKeeper(plan.policies, plan.state, log=own.log, metrics=metrics)
        tenants = TenantKeeper(plan.access.tenants, log=own.log, metrics=metrics)
        tls = CertificateKeeper(plan.access.tls, log=own.log, metrics=metrics)
        book, shadows, scaling = keeper.book, Shadows(random.random, clock), Scaling(clock, own.log)
        recorder = OpenTelemetryRecorder(own.tracing.spans, own.log, metrics, currency=lambda: book.policies.currency)
        accounts = accounting(
            plan.ledger,
            currency=book.policies.currency,
            tenants=lambda: tenants.tenants,
            share=both(keeper.sharing, scaling.sharing),
            recorder=recorder,
            log=own.log,
            metrics=metrics,
        )
        admin_guard, scaler_guard = (
            Guard(tracer, max_calls=n, trust_baggage=False) for n in (ADMIN_CALLS, SCALER_CALLS)
        )
        async with (
            tls.running(),
            tenants.running(),
            keeper.running(),
            accounts as ledger,
            tier_at(plan.targets[Tier.SMALL], tracer, tls=tls.client, lost=stop.set) as small,
            tier_at(plan.targets[Tier.LARGE], tracer, tls=tls.client, lost=stop.set) as large,
        ):
            pools = {Tier.SMALL: small, Tier.LARGE: large}
            tiers = {tier: TierState(tier, pool, presence=pool.presence) for tier, pool in pools.items()}
            limits = TenantLimits(lambda tenant: tenants.tenants.rules(tenant))
            admission = Admission(tiers, lambda: tenants.tenants, limits, ledger, clock, step)
            router = Router(
                tiers,
                book=book,
                shadows=shadows,
                recorder=recorder,
                admission=admission,
                ledger=ledger,
                clock=clock,
                step=step,
            )
            books = RouterBooks(ledger, lambda: tenants.tenants, lambda: book.policies.currency)
            admin = AdminServicer(lambda: overview(book, shadows, keeper.source), books)
            servicer = RouterServicer(router, limits=plan.limits, tracer=tracer, callers=tenants.callers)
            async with (
                naming(tiers.values(), stop.set),
                serving_admin(plan.admin_listen, admin, guard=admin_guard, tls=tls.server),
                scaling.watching(tiers, stop.set),
                serving_scaler(plan.scaler_listen, scaling, guard=scaler_guard),
            ):
                try:
                    await serve(
                        SERVICE,
                        replace(plan.settings, tls=tls.server),
                        guard=Guard(tracer, max_calls=plan.max_calls, trust_baggage=False, callers=tenants.callers),
                        register=servicer.register,
                        until_ready=lambda: until_evidence(tiers[Tier.SMALL], own.log),
                        stop=stop,
                        able=lambda: ledger.writable,
                    )
                finally:
                    books.close()
                    await shadows.drained(plan.settings.settle_seconds)


def main() -> None:
    """Runs marginal-router."""
    app()


if __name__ == "__main__":
    main()
