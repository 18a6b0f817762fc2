"""What every server program shares: its logs, its tracing, and an exit code."""

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import typer

from marginal.errors import ConfigurationError
from marginal.telemetry import logs, tracing
from marginal.telemetry.logs import Log
from marginal.telemetry.tracing import Exporter, Tracing


@dataclass(frozen=True, slots=True)
class TraceOptions:
    """Where spans go."""

    exporter: Exporter
    file: Path | None
    otlp_endpoint: str


@dataclass(frozen=True, slots=True)
class Telemetry:
    """A program's logs and tracing."""

    log: Log
    tracing: Tracing


@contextmanager
def telemetry(service: str, options: TraceOptions) -> Iterator[Telemetry]:
    """Configures logs and tracing, and flushes the spans on the way out."""
    configured = tracing.configure(
        service,
        options.exporter,
        version=version("marginal"),
        otlp_endpoint=options.otlp_endpoint,
        trace_file=options.file,
    )
    lines = logs.configure(service, sys.stdout)
    with lines.standard_library():
        try:
            yield Telemetry(lines.log, configured)
        finally:
            configured.shutdown()


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs a server to its end; a mistake of the operator's is one sentence and exit code 2."""
    try:
        asyncio.run(main())
    except ConfigurationError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None
