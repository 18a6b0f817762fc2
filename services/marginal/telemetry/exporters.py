"""Where spans go: one JSON object a line into a file, one readable line on a stream.

The line of the file exporter: `trace_id`, `span_id`, `parent_span_id` (hexadecimal; null at the root), `name`, `kind`
(internal, server, client), `service`, `instance`, `start_nanos` and `end_nanos` (Unix time, integers), `status` (unset,
ok, error), `attributes` (an object) and `events` (a list of `name`, `time_nanos`, `attributes`). The reader is
`evaluation/traces.py`, which may not import this module: change both.
"""

import json
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import format_span_id, format_trace_id

from marginal.telemetry import names

NANOS_PER_MILLISECOND = 1_000_000
NANOS_PER_SECOND = 1_000_000_000


def span_line(span: ReadableSpan) -> str:
    """One span as a JSON object without line breaks."""
    context = span.get_span_context()
    fields: dict[str, Any] = {
        "trace_id": format_trace_id(context.trace_id) if context else "",
        "span_id": format_span_id(context.span_id) if context else "",
        "parent_span_id": format_span_id(span.parent.span_id) if span.parent else None,
        "name": span.name,
        "kind": span.kind.name.lower(),
        "service": span.resource.attributes.get(names.SERVICE_NAME, ""),
        "instance": span.resource.attributes.get(names.SERVICE_INSTANCE_ID, ""),
        "start_nanos": span.start_time,
        "end_nanos": span.end_time,
        "status": span.status.status_code.name.lower(),
        "attributes": dict(span.attributes or {}),
        "events": [
            {"name": event.name, "time_nanos": event.timestamp, "attributes": dict(event.attributes or {})}
            for event in span.events
        ],
    }
    return json.dumps(fields, separators=(",", ":"))


def readable_line(span: ReadableSpan) -> str:
    """One span for a person: when it started, how long it took, what it says."""
    started, ended = span.start_time or 0, span.end_time or 0
    clock = datetime.fromtimestamp(started / NANOS_PER_SECOND, UTC).strftime("%H:%M:%S.%f")[:-3]
    context = span.get_span_context()
    said = " ".join(f"{name}={json.dumps(value)}" for name, value in (span.attributes or {}).items())
    return (
        f"{clock} {format_trace_id(context.trace_id) if context else ''} {span.kind.name.lower():<8} {span.name}"
        f" {(ended - started) / NANOS_PER_MILLISECOND:.1f} ms {span.status.status_code.name.lower()} {said}"
    )


class SpanFile(SpanExporter):
    """Appends spans to a file, whole lines at a time, so that a reader sees them while the process runs."""

    def __init__(self, path: Path) -> None:
        """Creates the file and its directory. Raises OSError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
        self._lock = threading.Lock()
        if _torn(path):
            self._file.write(b"\n")
            self._file.flush()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        block = "".join(span_line(span) + "\n" for span in spans).encode()
        with self._lock:
            if self._file.closed:
                return SpanExportResult.FAILURE
            self._file.write(block)
            self._file.flush()
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        with self._lock:
            self._file.close()


class SpanStream(SpanExporter):
    """Writes one readable line a span."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._stream.write("".join(readable_line(span) + "\n" for span in spans))
        self._stream.flush()
        return SpanExportResult.SUCCESS


def _torn(path: Path) -> bool:
    """Whether the last line was cut, by a crash for example."""
    with path.open("rb") as file:
        if not file.seek(0, 2):
            return False
        file.seek(-1, 2)
        return file.read(1) != b"\n"
