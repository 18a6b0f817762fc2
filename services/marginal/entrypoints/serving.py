"""What every server program shares: its logs, its tracing, and an exit code."""

import asyncio
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import typer

from marginal.errors import ConfigurationError
from marginal.telemetry import logs, tracing
from marginal.telemetry.logs import Log
from marginal.telemetry.tracing import Exporter, Tracing

Result = TypeVar("Result")


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


def run(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Runs a server to its end; `main` takes the event that SIGTERM and SIGINT set, from its very start.

    A mistake of the operator's is one sentence and exit code 2.
    """
    try:
        asyncio.run(_until_signalled(main))
    except ConfigurationError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None


async def _until_signalled(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await main(stop)


async def unless_stopped(stop: asyncio.Event, work: Callable[[], Result]) -> Result | None:
    """What blocking `work` gives, in a thread that nobody waits for once `stop` is set: then None."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Result] = loop.create_future()

    def tell(outcome: Callable[[], None]) -> None:
        loop.call_soon_threadsafe(lambda: None if done.done() else outcome())

    def run() -> None:
        try:
            result = work()
        except Exception as error:  # handed over, whatever it is
            fault = error
            tell(lambda: done.set_exception(fault))
        else:
            tell(lambda: done.set_result(result))

    threading.Thread(target=run, name="start-up", daemon=True).start()
    stopped = asyncio.ensure_future(stop.wait())
    waited: set[asyncio.Future[Any]] = {done, stopped}
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    return done.result() if done.done() else None
