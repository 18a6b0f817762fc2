"""What every server program shares: its logs, its tracing, its metrics, and an exit code."""

import asyncio
import logging
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from marginal.entrypoints.processes import split_address
from marginal.errors import ConfigurationError
from marginal.telemetry import logs, tracing
from marginal.telemetry.logs import Log
from marginal.telemetry.tracing import Exporter, Tracing

if TYPE_CHECKING:
    from marginal.telemetry.scraping import Scraped

logger = logging.getLogger(__name__)

METRICS_LISTEN = "--metrics-listen"

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class TraceOptions:
    """Where spans go, and where metrics can be fetched: at HOST:PORT, "" is nowhere."""

    exporter: Exporter
    file: Path | None
    otlp_endpoint: str
    metrics_listen: str = ""


@dataclass(frozen=True, slots=True)
class Telemetry:
    """A program's logs and tracing."""

    log: Log
    tracing: Tracing


@contextmanager
def telemetry(service: str, options: TraceOptions) -> Iterator[Telemetry]:
    """Configures logs, tracing and metrics, and flushes the spans on the way out. Raises ConfigurationError."""
    with _scraped(options.metrics_listen) as page:
        configured = tracing.configure(
            service,
            options.exporter,
            version=version("marginal"),
            otlp_endpoint=options.otlp_endpoint,
            trace_file=options.file,
            readers=[page.reader] if page else [],
        )
        lines = logs.configure(service, sys.stdout)
        with lines.standard_library():
            if page:
                logger.info("metrics at %s", page.url)
            try:
                yield Telemetry(lines.log, configured)
            finally:
                configured.shutdown()


@contextmanager
def _scraped(listen: str) -> Iterator["Scraped | None"]:
    """The page that Prometheus fetches, if there is to be one."""
    if not listen:
        yield None
        return
    from marginal.telemetry.scraping import Scraped  # slow, and seldom wanted

    host, port = split_address(listen, option=METRICS_LISTEN)
    try:
        page = Scraped(host, port)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigurationError(
            f"{METRICS_LISTEN} {listen}: cannot be listened on ({reason}), choose another"
        ) from error
    with closing(page):
        yield page


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
