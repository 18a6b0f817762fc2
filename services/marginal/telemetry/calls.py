"""Traces gRPC calls without knowing gRPC: the transport says when a call starts, with what headers, and how it ended.

Two rules. A call that was cancelled ends CANCELLED and is no error: cancelling the small stream is how we defer.
A server span is an error only when the server is at fault, a client span whenever the call did not do what was asked.
"""

import contextlib
from collections.abc import Iterator, Mapping

from opentelemetry import baggage, context, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from marginal.telemetry import names

OK = "OK"
UNKNOWN = "UNKNOWN"
CANCELLED = "CANCELLED"
SERVER_FAULTS = frozenset({UNKNOWN, "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})

_TRACE_CONTEXT = TraceContextTextMapPropagator()
_BAGGAGE = W3CBaggagePropagator()


class ServerCall:
    """A call being served."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self._open = True

    def ended(self, status_code: str) -> None:
        """Ends the span with a gRPC status name; later ones change nothing."""
        if self._open:
            self._open = False
            _end(self._span, status_code, is_error=status_code in SERVER_FAULTS)


class OutgoingCall:
    """A call being made, and the headers that carry its context."""

    metadata: Mapping[str, str]

    def __init__(self, span: Span) -> None:
        headers: dict[str, str] = {}
        own = trace.set_span_in_context(span)
        _TRACE_CONTEXT.inject(headers, own)
        _BAGGAGE.inject(headers, own)
        self.metadata = headers
        self._span = span
        self._open = True

    def ended(self, status_code: str) -> None:
        """Ends the span with a gRPC status name, from any thread or context; later ones change nothing."""
        if self._open:
            self._open = False
            _end(self._span, status_code, is_error=status_code not in (OK, CANCELLED))


class OpenTelemetryCallTracer:
    """Starts the spans of incoming and outgoing calls."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    @contextlib.contextmanager
    def server_call(self, method: str, metadata: Mapping[str, str], *, trust_baggage: bool) -> Iterator[ServerCall]:
        """Makes a server span current, child of the caller's; baggage is taken from callers we trust only.

        `method` is "package.Service/Method"; `metadata` has lower-case keys. A call of which nobody says that it ended
        ends UNKNOWN.
        """
        surroundings = _TRACE_CONTEXT.extract(metadata, Context())
        if trust_baggage:
            surroundings = _BAGGAGE.extract(metadata, surroundings)
        span = self._start(method, SpanKind.SERVER, surroundings)
        tenant = current_tenant(surroundings)
        if tenant is not None:
            span.set_attribute(names.TENANT, tenant)
        call = ServerCall(span)
        try:
            with attached(trace.set_span_in_context(span, surroundings)):
                yield call
        finally:
            call.ended(UNKNOWN)

    def client_call(self, method: str, target: str) -> OutgoingCall:
        """Starts a client span, child of the current one; `target` is a gRPC target such as "dns:///host:port"."""
        span = self._start(method, SpanKind.CLIENT, context.get_current())
        host, port = _host_and_port(target)
        span.set_attribute(names.SERVER_ADDRESS, host)
        if port is not None:
            span.set_attribute(names.SERVER_PORT, port)
        return OutgoingCall(span)

    @contextlib.contextmanager
    def tenant(self, name: str) -> Iterator[None]:
        """Puts an authenticated tenant on the current span and into the baggage of the calls made inside."""
        trace.get_current_span().set_attribute(names.TENANT, name)
        with attached(baggage.set_baggage(names.TENANT, name)):
            yield

    def _start(self, method: str, kind: SpanKind, parent: Context) -> Span:
        method = method.removeprefix("/")
        attributes = {names.RPC_SYSTEM_NAME: names.GRPC, names.RPC_METHOD: method}
        return self._tracer.start_span(method, parent, kind, attributes)


def current_tenant(surroundings: Context | None = None) -> str | None:
    """The tenant a router sent along; None for a call that no router made."""
    tenant = baggage.get_baggage(names.TENANT, surroundings)
    return tenant if isinstance(tenant, str) else None


def outgoing_headers() -> dict[str, str]:
    """The current trace context as W3C headers, for calls to what is not ours: the tenant's baggage stays here."""
    headers: dict[str, str] = {}
    _TRACE_CONTEXT.inject(headers)
    return headers


@contextlib.contextmanager
def attached(surroundings: Context) -> Iterator[None]:
    """Makes a context current; leaving from another task or thread leaves that one's context alone.

    A generator that is closed by the garbage collector or by a cancelled task ends outside the context it began in,
    where OpenTelemetry's own `detach` would log a traceback for each.
    """
    token = context.attach(surroundings)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            token.var.reset(token)


def _end(span: Span, status_code: str, *, is_error: bool) -> None:
    span.set_attribute(names.RPC_RESPONSE_STATUS_CODE, status_code)
    if is_error:
        span.set_attribute(names.ERROR_TYPE, status_code)
        span.set_status(Status(StatusCode.ERROR))
    span.end()


def _host_and_port(target: str) -> tuple[str, int | None]:
    """Splits "dns:///host:port" or "host:port"; an IPv6 address may stand in brackets."""
    address = target.rsplit("/", maxsplit=1)[-1] if "://" in target else target
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or host.endswith(":"):
        return address, None
    return host.strip("[]"), int(port)
