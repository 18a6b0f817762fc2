"""What the tests of telemetry share: tracing into memory and into a list of log lines."""

import io
import json
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from marginal.telemetry.logs import Layout, Logs, configure
from marginal.telemetry.tracing import Tracing, tracing_to


class MemoryTracing:
    """Tracing whose spans can be looked at."""

    def __init__(self, service_name: str = "test") -> None:
        self._memory = InMemorySpanExporter()
        self.tracing: Tracing = tracing_to(self._memory, service_name=service_name, version="1")

    def spans(self) -> tuple[ReadableSpan, ...]:
        """Every ended span, the first ended first."""
        self.tracing.provider.force_flush()
        return self._memory.get_finished_spans()

    def only(self) -> ReadableSpan:
        """The one span there is."""
        (span,) = self.spans()
        return span


class MemoryLog:
    """Logs whose lines can be looked at."""

    def __init__(self, layout: Layout = Layout.JSON) -> None:
        self.stream = io.StringIO()
        self.logs: Logs = configure("test", self.stream, layout=layout)

    def lines(self) -> list[str]:
        """Every line as it was written."""
        return self.stream.getvalue().splitlines()

    def events(self) -> list[dict[str, Any]]:
        """Every line as the object it holds."""
        return [json.loads(line) for line in self.lines()]
