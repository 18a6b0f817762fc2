"""Sets up tracing and metrics for one process: where they go and who makes them.

No global provider is set and nothing happens at import: what `configure` returns is passed on by the entry point.
"""

import sys
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler
from opentelemetry.trace import Tracer

from marginal.errors import ConfigurationError
from marginal.telemetry import names
from marginal.telemetry.calls import OpenTelemetryCallTracer
from marginal.telemetry.exporters import SpanFile, SpanStream
from marginal.telemetry.metrics import Metrics, metrics_to, otlp_reader

OTLP_DELAY_MILLISECONDS = 1000
LOCAL_DELAY_MILLISECONDS = 200
OTLP_TIMEOUT_SECONDS = 5.0
SHUTDOWN_SECONDS = 2.0


class Exporter(Enum):
    """Where spans go: a collector, standard output, a file, or nowhere."""

    OTLP = "otlp"
    CONSOLE = "console"
    FILE = "file"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Tracing:
    """A process's tracing: `tracer` for gRPC calls, `spans` for everything else; and its counters."""

    tracer: OpenTelemetryCallTracer
    spans: Tracer
    metrics: Metrics
    provider: TracerProvider
    meters: MeterProvider
    exporter: SpanExporter | None

    def shutdown(self, seconds: float = SHUTDOWN_SECONDS) -> None:
        """Sends what is left and stops within about `seconds`; without an answering collector it is lost."""

        def close() -> None:
            self.provider.shutdown()
            self.meters.shutdown(timeout_millis=1_000.0 * seconds)

        closing = threading.Thread(target=close, name="tracing-shutdown", daemon=True)
        closing.start()
        closing.join(seconds)
        if closing.is_alive() and self.exporter is not None:
            self.exporter.shutdown()


def configure(
    service_name: str,
    exporter: Exporter,
    *,
    version: str,
    otlp_endpoint: str = "",
    trace_file: Path | None = None,
    readers: Sequence[MetricReader] = (),
) -> Tracing:
    """Builds the tracing of one process.

    `otlp_endpoint` is "http://host:port", https for TLS; `trace_file` is appended to. Metrics go to `readers`, and
    with OTLP to the collector too. Raises ConfigurationError when what the exporter needs is missing or cannot be used.
    """
    if exporter is Exporter.NONE:
        return tracing_to(None, service_name=service_name, version=version, readers=readers)
    if exporter is Exporter.CONSOLE:
        return tracing_to(SpanStream(sys.stdout), service_name=service_name, version=version, readers=readers)
    if exporter is Exporter.FILE:
        return tracing_to(_span_file(trace_file), service_name=service_name, version=version, readers=readers)
    if not otlp_endpoint:
        raise ConfigurationError("otlp_endpoint: missing, give the collector's address such as http://localhost:4317")
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # slow, and seldom wanted

    collector = OTLPSpanExporter(
        endpoint=otlp_endpoint, insecure=not otlp_endpoint.startswith("https://"), timeout=OTLP_TIMEOUT_SECONDS
    )
    return tracing_to(
        collector,
        service_name=service_name,
        version=version,
        delay_milliseconds=OTLP_DELAY_MILLISECONDS,
        readers=(*readers, otlp_reader(otlp_endpoint, timeout_seconds=OTLP_TIMEOUT_SECONDS)),
    )


def tracing_to(
    exporter: SpanExporter | None,
    *,
    service_name: str,
    version: str,
    delay_milliseconds: int = LOCAL_DELAY_MILLISECONDS,
    readers: Sequence[MetricReader] = (),
) -> Tracing:
    """Tracing into any exporter, in batches; into None nothing is recorded, but trace ids are made and handed on.

    Metrics go to `readers`, or nowhere.
    """
    resource = Resource.create(
        {
            names.SERVICE_NAME: service_name,
            names.SERVICE_VERSION: version,
            names.SERVICE_INSTANCE_ID: str(uuid.uuid4()),
        }
    )
    sampler: Sampler = ALWAYS_OFF if exporter is None else ParentBased(ALWAYS_ON)
    provider = TracerProvider(sampler=sampler, resource=resource, shutdown_on_exit=False)
    if exporter is not None:
        provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=delay_milliseconds))
    spans = provider.get_tracer(names.SCOPE, version)
    meters = metrics_to(readers, resource)
    metrics = Metrics(meters.get_meter(names.SCOPE, version))
    return Tracing(OpenTelemetryCallTracer(spans), spans, metrics, provider, meters, exporter)


def _span_file(trace_file: Path | None) -> SpanFile:
    if trace_file is None:
        raise ConfigurationError("trace_file: missing, give the file that spans are to be written to")
    try:
        return SpanFile(trace_file)
    except OSError as error:
        raise ConfigurationError(f"trace_file: {trace_file} cannot be written ({error.strerror})") from error
