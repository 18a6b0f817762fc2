"""Logs of one process: an event a line, JSON for machines, short text for a terminal.

Two rules. Nothing that came from outside can break a line: control characters are escaped in both layouts. No text of
unexpected exceptions is written, only their types and where they were raised: such a text may hold a prompt.
"""

import contextlib
import json
import logging
import re
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol, TextIO

import structlog
from opentelemetry import trace
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from marginal.errors import MarginalError

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_LEADING = ("timestamp", "level", "event")
_PLAIN = re.compile(r"[\w./:+@-]+", re.ASCII)
_OWN_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "event", "level"}


class Layout(Enum):
    """How a line looks: a JSON object, or text for people; AUTO is TEXT on a terminal."""

    AUTO = "auto"
    JSON = "json"
    TEXT = "text"


class Log(Protocol):
    """What telemetry writes its lines to."""

    def info(self, event: str, **fields: Any) -> Any: ...

    def warning(self, event: str, **fields: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class Logs:
    """A process's logs: `log` takes events with fields."""

    log: FilteringBoundLogger
    level: int

    @contextlib.contextmanager
    def standard_library(self) -> Iterator[None]:
        """Sends what libraries log through `logging` the same way, for as long as the block lasts."""
        root, handler = logging.getLogger(), _Forwarding(self.log)
        before = root.level
        root.addHandler(handler)
        root.setLevel(self.level)
        try:
            yield
        finally:
            root.removeHandler(handler)
            root.setLevel(before)


def configure(service_name: str, stream: TextIO, *, level: str = "info", layout: Layout = Layout.AUTO) -> Logs:
    """Builds the logs of one process; `level` is one of LEVELS. Nothing global changes."""
    text = layout is Layout.TEXT or (layout is Layout.AUTO and stream.isatty())
    processors: list[Processor] = [
        structlog.processors.add_log_level,
        _with_service(service_name),
        _with_trace,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _with_exception,
        _as_text if text else _as_json,
    ]
    log: FilteringBoundLogger = structlog.wrap_logger(
        structlog.WriteLogger(_Lossy(stream)),  # type: ignore[arg-type]  # it writes and flushes, no more
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        context_class=dict,
        cache_logger_on_first_use=True,
    )
    return Logs(log, LEVELS[level])


class _Lossy:
    """A stream that loses what cannot be written: a full disk or a closed pipe must not end a request."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


class _Forwarding(logging.Handler):
    """Turns records of the standard library into events.

    Only the first line of a message is kept: asyncio prints exceptions, text and all, on those that follow.
    """

    def __init__(self, log: FilteringBoundLogger) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message, *_ = record.getMessage().splitlines() or [""]
            fields = {name: value for name, value in vars(record).items() if name not in _OWN_FIELDS}
            fields |= {"logger": record.name, "exc_info": record.exc_info}
            self._log.log(record.levelno, "%s", message, **fields)
        except Exception:
            self.handleError(record)


def _with_service(service_name: str) -> Processor:
    def add(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["service"] = service_name
        return event

    return add


def _with_trace(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event.setdefault("trace_id", trace.format_trace_id(context.trace_id))
    return event


def _with_exception(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replaces an exception by its type, where it was raised, and its text if it is one of ours."""
    exception = event.pop("exc_info", None)
    if isinstance(exception, tuple):
        exception = exception[1]
    if isinstance(exception, BaseException):
        frames = traceback.extract_tb(exception.__traceback__)
        event["exception"] = type(exception).__name__
        event["raised_at"] = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames]
        if isinstance(exception, MarginalError):
            event["problem"] = str(exception)
    return event


def _as_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    leading = {name: event.pop(name) for name in _LEADING if name in event}
    return _json({**leading, **event})


def _as_text(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    clock = str(event.pop("timestamp"))[11:23]
    level, what = event.pop("level"), event.pop("event")
    event.pop("service")
    fields = " ".join(f"{name}={_word(value)}" for name, value in event.items() if value is not None)
    return f"{clock} {level:<7} {_sentence(str(what))} {fields}".rstrip()


def _word(value: object) -> str:
    """A value as one word, quoted when it is not plainly one."""
    return value if isinstance(value, str) and _PLAIN.fullmatch(value) else _json(value)


def _sentence(text: str) -> str:
    return text if text.isascii() and text.isprintable() else _json(text)


def _json(value: object) -> str:
    """One line of valid JSON in ASCII; what JSON does not know becomes its type's name, NaN and infinities strings."""
    try:
        return json.dumps(value, default=_type_name, allow_nan=False)
    except ValueError:
        return json.dumps(json.loads(json.dumps(value, default=_type_name), parse_constant=str))


def _type_name(value: object) -> str:
    return type(value).__name__
