"""Command-line options that several programs take; each can be given by its environment variable as well."""

from pathlib import Path
from typing import Annotated

import typer

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
MaxCalls = Annotated[
    int, typer.Option(envvar="MARGINAL_MAX_CALLS", min=1, help="Calls handled at a time; further ones are refused.")
]
