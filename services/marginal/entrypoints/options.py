"""Command-line options that several programs take; each can be given by its environment variable as well."""

from pathlib import Path
from typing import Annotated

import typer

from marginal.ledger.slices import FailureMode
from marginal.telemetry.tracing import Exporter

TraceExporter = Annotated[
    Exporter, typer.Option(envvar="MARGINAL_TRACE_EXPORTER", help="Where spans go.", rich_help_panel="Tracing")
]
TraceFile = Annotated[
    Path | None,
    typer.Option(envvar="MARGINAL_TRACE_FILE", help="File for --trace-exporter file.", rich_help_panel="Tracing"),
]
OtlpEndpoint = Annotated[
    str,
    typer.Option(
        envvar="MARGINAL_OTLP_ENDPOINT", help="Collector for --trace-exporter otlp.", rich_help_panel="Tracing"
    ),
]
MetricsListen = Annotated[
    str,
    typer.Option(
        envvar="MARGINAL_METRICS_LISTEN",
        help="Address where Prometheus fetches /metrics, in plain text; by default there is none.",
        rich_help_panel="Tracing",
    ),
]
GraceSeconds = Annotated[
    float,
    typer.Option(envvar="MARGINAL_GRACE_SECONDS", min=0.0, help="Seconds that streams in flight may go on at SIGTERM."),
]
DrainSeconds = Annotated[
    float,
    typer.Option(
        envvar="MARGINAL_DRAIN_SECONDS", min=0.0, help="Seconds that new calls are taken after health says NOT_SERVING."
    ),
]
HealthListen = Annotated[
    str,
    typer.Option(
        envvar="MARGINAL_HEALTH_LISTEN",
        help="Address that tells health without TLS, for probes that speak none; empty for none.",
    ),
]
MaxCalls = Annotated[
    int, typer.Option(envvar="MARGINAL_MAX_CALLS", min=1, help="Calls handled at a time; further ones are refused.")
]

StallSeconds = Annotated[
    float,
    typer.Option(
        envvar="MARGINAL_STALL_SECONDS",
        min=0.1,
        help="Seconds that a caller may leave its answer unread before the call is ended.",
    ),
]
KeepaliveSeconds = Annotated[
    float,
    typer.Option(
        envvar="MARGINAL_KEEPALIVE_SECONDS",
        min=1.0,
        help="Seconds of silence after which a caller is asked whether it is still there; a quarter is left to answer.",
    ),
]
ConnectionAgeSeconds = Annotated[
    float,
    typer.Option(
        envvar="MARGINAL_CONNECTION_AGE_SECONDS",
        min=0.0,
        help="Age at which a caller is asked to connect anew, so that it comes to routers that were added; its calls"
        " under way go on. 0 is never.",
    ),
]

ScalerListen = Annotated[
    str,
    typer.Option(
        envvar="MARGINAL_SCALER_LISTEN",
        help="Address of KEDA's external scaler, which tells how much of each tier is wanted: by all routers with the"
        " same --store and --store-name, or by this one alone without a store. In plain text; by default none.",
    ),
]

LEDGER, TENANTS, TLS = "Money", "Tenants and keys", "TLS"

JournalDirectory = Annotated[
    Path | None,
    typer.Option(
        envvar="MARGINAL_JOURNAL",
        help="Directory of this router's own for its cost records; a restart goes on from it.",
        rich_help_panel=LEDGER,
    ),
]
JournalDays = Annotated[
    int,
    typer.Option(
        envvar="MARGINAL_JOURNAL_DAYS",
        min=0,
        help="Days after which files of --journal are deleted, 0 is never; budgets stay exact.",
        rich_help_panel=LEDGER,
    ),
]
JournalBytes = Annotated[
    int,
    typer.Option(
        envvar="MARGINAL_JOURNAL_BYTES",
        min=0,
        help="The most bytes that --journal may have: the oldest files are deleted sooner then, budgets stay exact."
        " 0 is any number, else 64000 at least.",
        rich_help_panel=LEDGER,
    ),
]
Store = Annotated[
    str,
    typer.Option(
        envvar="MARGINAL_STORE",
        help="Valkey server that keeps the budgets of several routers, as valkey://host:6379/0, or valkeys:// with TLS;"
        " by default each router keeps its own.",
        rich_help_panel=LEDGER,
    ),
]
StoreName = Annotated[
    str,
    typer.Option(
        envvar="MARGINAL_STORE_NAME",
        help="Whose budgets these are: routers with the same --store and another name share nothing.",
        rich_help_panel=LEDGER,
    ),
]
StoreCa = Annotated[
    Path | None,
    typer.Option(envvar="MARGINAL_STORE_CA", help="PEM authorities of a valkeys:// server.", rich_help_panel=LEDGER),
]
StorePasswordFile = Annotated[
    Path | None,
    typer.Option(
        envvar="MARGINAL_STORE_PASSWORD_FILE",
        help="File with the server's password, read anew for every connection.",
        rich_help_panel=LEDGER,
    ),
]
FailureModeOption = Annotated[
    FailureMode,
    typer.Option(
        "--failure-mode",
        envvar="MARGINAL_FAILURE_MODE",
        help="While the server is away: spend a slice of each budget, everything that is asked for, or nothing.",
        rich_help_panel=LEDGER,
    ),
]
SliceShare = Annotated[
    float,
    typer.Option(
        envvar="MARGINAL_SLICE_SHARE",
        min=0.0,
        max=1.0,
        help="The slice, as a share of a budget: the most that one router overspends.",
        rich_help_panel=LEDGER,
    ),
]

TenantsFile = Annotated[
    Path | None,
    typer.Option(
        envvar="MARGINAL_TENANTS_FILE", help="TOML file of budgets and limits per tenant.", rich_help_panel=TENANTS
    ),
]
KeysFile = Annotated[
    Path | None,
    typer.Option(
        envvar="MARGINAL_KEYS_FILE",
        help="File of API keys as hashes, see `marginal keys`; calls without one are refused then.",
        rich_help_panel=TENANTS,
    ),
]
TrustTenantHeader = Annotated[
    bool,
    typer.Option(
        "--trust-tenant-header",
        envvar="MARGINAL_TRUST_TENANT_HEADER",
        help="Without keys, bill whom the header marginal-tenant names.",
        rich_help_panel=TENANTS,
    ),
]
Insecure = Annotated[
    bool,
    typer.Option(
        "--insecure",
        envvar="MARGINAL_INSECURE",
        help="Let others than this machine call without keys, and operators without certificates.",
        rich_help_panel=TENANTS,
    ),
]
TlsCert = Annotated[
    Path | None,
    typer.Option(
        envvar="MARGINAL_TLS_CERT",
        help="PEM certificate chain, shown to callers and to those called; read anew when it changes.",
        rich_help_panel=TLS,
    ),
]
TlsKey = Annotated[
    Path | None, typer.Option(envvar="MARGINAL_TLS_KEY", help="PEM key of --tls-cert.", rich_help_panel=TLS)
]
TlsClientCa = Annotated[
    Path | None,
    typer.Option(
        envvar="MARGINAL_TLS_CLIENT_CA",
        help="PEM authorities; callers must show a certificate of theirs.",
        rich_help_panel=TLS,
    ),
]
TlsCa = Annotated[
    Path | None,
    typer.Option(
        envvar="MARGINAL_TLS_CA",
        help="PEM authorities of the tiers; they are called with TLS then.",
        rich_help_panel=TLS,
    ),
]
Reflection = Annotated[
    bool | None,
    typer.Option(
        "--reflection/--no-reflection",
        envvar="MARGINAL_REFLECTION",
        help="Whether callers may list methods and messages.",
        show_default="on this machine only",
    ),
]
