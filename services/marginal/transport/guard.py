"""What happens around every call of ours: its span, its place, and a deliberate status for whatever goes wrong.

Health and reflection pass untouched, so a busy server still answers its probes.
"""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from marginal.errors import InvalidRequest, MarginalError, Overloaded
from marginal.transport import statuses
from marginal.transport.credentials import Callers
from marginal.transport.tracing import CallTracer

Behaviour = Callable[[Any, Any], Awaitable[Any]]

logger = logging.getLogger(__name__)


class _Unreadable:
    """Stands for a request whose bytes are not a message."""


UNREADABLE = _Unreadable()


class Guard(grpc.aio.ServerInterceptor):
    """Guards the handlers of one server.

    `max_calls` are handled at a time, further ones are Overloaded. `trust_baggage` takes the tenant from the caller's
    baggage: for tiers behind our own router only. With `callers`, a call of nobody's is refused unread.
    """

    def __init__(
        self, tracer: CallTracer, *, max_calls: int, trust_baggage: bool, callers: Callers | None = None
    ) -> None:
        self._tracer = tracer
        self.max_calls = max_calls
        self._trust_baggage = trust_baggage
        self._callers = callers
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def idle(self) -> None:
        """Waits until no call is being handled: `Server.stop` returns before handlers have cleaned up."""
        await self._idle.wait()

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Wraps the handler of one of our methods."""
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith("/grpc."):
            return handler
        method = handler_call_details.method.removeprefix("/")
        if handler.response_streaming:
            build, behaviour = grpc.unary_stream_rpc_method_handler, handler.unary_stream
        else:
            build, behaviour = grpc.unary_unary_rpc_method_handler, handler.unary_unary
        read = _readable_or_not(handler.request_deserializer)
        if (refused := self._refused(handler_call_details.invocation_metadata)) is not None:
            behaviour, read = _refusing(refused), bytes

        async def guarded(request: Any, context: Any) -> Any:
            return await self._guarded(method, behaviour, request, context)

        return build(guarded, read, handler.response_serializer)

    def _refused(self, metadata: Any) -> MarginalError | None:
        """What the caller did wrong before anything it sent is looked at."""
        try:
            if self._callers is not None:
                self._callers.tenant(metadata)
        except MarginalError as error:
            return error
        return None

    async def _guarded(self, method: str, behaviour: Behaviour, request: Any, context: Any) -> Any:
        metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        self._calls += 1
        self._idle.clear()
        try:
            with self._tracer.server_call(method, metadata, trust_baggage=self._trust_baggage) as span:
                try:
                    answer = await self._admitted(behaviour, request, context)
                except MarginalError as error:
                    span.ended(statuses.OUTSIDE[type(error)].code.name)
                    await statuses.abort(context, error)
                except asyncio.CancelledError:
                    late = context.time_remaining() == 0
                    code = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
                    span.ended(code.name)
                    raise
                except Exception as error:
                    error_id = uuid.uuid4().hex
                    # Only where it happened: an exception's text may quote a prompt.
                    logger.error("unexpected %s id=%s at %s", type(error).__name__, error_id, _origin(error))
                    span.ended(grpc.StatusCode.INTERNAL.name)
                    await statuses.abort_internal(context, error_id)
                else:
                    span.ended(grpc.StatusCode.OK.name)
                    return answer
        finally:
            self._calls -= 1
            if not self._calls:
                self._idle.set()

    async def _admitted(self, behaviour: Behaviour, request: Any, context: Any) -> Any:
        if self._calls > self.max_calls:
            raise Overloaded(f"{self.max_calls} calls are being handled already, retry shortly")
        if request is UNREADABLE:
            raise InvalidRequest("request", "is not a message of this method")
        return await behaviour(request, context)


def _refusing(error: MarginalError) -> Behaviour:
    async def refuse(request: Any, context: Any) -> Any:  # noqa: ARG001 (the shape of every behaviour)
        raise error

    return refuse


def _readable_or_not(deserializer: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def deserialize(data: bytes) -> Any:
        try:
            return deserializer(data)
        except Exception:  # whatever it is, the bytes are at fault
            return UNREADABLE

    return deserialize


def _origin(error: BaseException) -> str:
    frames = []
    traceback = error.__traceback__
    while traceback is not None:
        frames.append(f"{traceback.tb_frame.f_code.co_filename.rpartition('/')[2]}:{traceback.tb_lineno}")
        traceback = traceback.tb_next
    return " > ".join(frames)
