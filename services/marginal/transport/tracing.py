"""Traces gRPC calls on both sides, whatever way they end; what a span is, the tracer knows.

Own interceptors because a client that cancels a stream is our main path, and the contrib ones lose exactly those.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import grpc


class CallSpan(Protocol):
    """The server's side of one call."""

    def ended(self, status_code: str) -> None:
        """Takes the name of the call's gRPC status, once."""
        ...


class ClientCall(Protocol):
    """The client's side of one call, with the headers that carry its context."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """Headers to send."""
        ...

    def ended(self, status_code: str) -> None:
        """Takes the name of the call's gRPC status, once, from any context."""
        ...


class CallTracer(Protocol):
    """Traces calls; implemented in telemetry."""

    def server_call(
        self, method: str, metadata: Mapping[str, str], *, trust_baggage: bool
    ) -> AbstractContextManager[CallSpan]:
        """Spans a call while it is handled."""
        ...

    def client_call(self, method: str, target: str) -> ClientCall:
        """Starts the span of an outgoing call."""
        ...

    def tenant(self, name: str) -> AbstractContextManager[None]:
        """Carries the tenant in the baggage of the calls made inside."""
        ...


class _TracingClient:
    """Starts a span per call and ends it when the call is done, cancelled ones included."""

    def __init__(self, tracer: CallTracer, target: str) -> None:
        self._tracer = tracer
        self._target = target

    async def _intercept(
        self, continuation: Callable[[Any, Any], Any], details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        method = details.method.decode() if isinstance(details.method, bytes) else details.method
        span = self._tracer.client_call(method.lstrip("/"), self._target)
        metadata = grpc.aio.Metadata(*(details.metadata or ()))
        for key, value in span.metadata.items():
            metadata.add(key, value)
        try:
            call = await continuation(
                grpc.aio.ClientCallDetails(
                    details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
                ),
                request,
            )
        except BaseException:
            span.ended(grpc.StatusCode.CANCELLED.name)
            raise
        ends = _Ends(span)
        call.add_done_callback(ends.start)
        return call


class _Ends:
    """Asks a finished call for its code; the task is held so that it cannot be collected."""

    def __init__(self, span: ClientCall) -> None:
        self._span = span
        self._task: asyncio.Task[None] | None = None

    def start(self, call: grpc.aio.Call) -> None:
        self._task = asyncio.ensure_future(self._end(call))

    async def _end(self, call: grpc.aio.Call) -> None:
        self._span.ended((await call.code()).name)


class TracingUnaryUnary(_TracingClient, grpc.aio.UnaryUnaryClientInterceptor):
    """Traces unary calls."""

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self._intercept(continuation, client_call_details, request)


class TracingUnaryStream(_TracingClient, grpc.aio.UnaryStreamClientInterceptor):
    """Traces calls with a streamed answer."""

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self._intercept(continuation, client_call_details, request)


def client_interceptors(tracer: CallTracer, target: str) -> list[grpc.aio.ClientInterceptor]:
    """The interceptors of a channel to `target`."""
    return [TracingUnaryUnary(tracer, target), TracingUnaryStream(tracer, target)]
