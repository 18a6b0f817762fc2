"""RouterService over a Router: convert, call, convert."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from marginal.routing.journey import Retract, Send
from marginal.routing.records import CostRecord
from marginal.routing.requests import Delta
from marginal.routing.router import Router
from marginal.transport import router_messages, validation
from marginal.transport.credentials import ONE_TENANT, Callers
from marginal.transport.tracing import CallTracer
from marginal.transport.validation import Limits
from marginal.transport.writing import write
from marginal.v1 import router_pb2, router_pb2_grpc

REQUEST_ID_HEADER = "marginal-request-id"
"""In the trailing metadata of every answer, failed ones included: the request's id in logs and records."""

DEADLINE_HEADER = "marginal-deadline-seconds"
"""In the trailing metadata of a call that had no deadline, or one too far away: how long it might take."""

SERVICE = "marginal.v1.RouterService"


class RouterServicer(router_pb2_grpc.RouterServiceServicer):
    """Serves one router."""

    def __init__(self, router: Router, *, limits: Limits, tracer: CallTracer, callers: Callers = ONE_TENANT) -> None:
        self._router = router
        self._callers = callers
        self._limits = limits
        self._tracer = tracer

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the service to a server."""
        router_pb2_grpc.add_RouterServiceServicer_to_server(self, server)

    async def Generate(  # type: ignore[override]  # writes to the context, so that a cancel is a CancelledError here
        self, request: router_pb2.RouterServiceGenerateRequest, context: Any
    ) -> None:
        stall = self._limits.stall_seconds

        async def send(delta: Delta) -> None:
            message = router_messages.delta_to_proto(delta, margins=request.return_margins)
            await write(context, message, stall_seconds=stall)

        async with self._routed(request, context, send, lambda: False) as record:
            final = router_pb2.RouterServiceGenerateResponse(final=router_messages.final_to_proto(record))
            await write(context, final, stall_seconds=stall)

    async def Complete(self, request: router_pb2.CompleteRequest, context: Any) -> router_pb2.CompleteResponse:
        pieces: list[str] = []

        async def collect(delta: Delta) -> None:
            pieces.extend(token.text for token in delta.tokens)

        def retract() -> bool:
            pieces.clear()
            return True

        async with self._routed(request.request, context, collect, retract) as record:
            return router_pb2.CompleteResponse(text="".join(pieces), final=router_messages.final_to_proto(record))

    @asynccontextmanager
    async def _routed(
        self, asked: router_pb2.RouterServiceGenerateRequest, context: Any, send: Send, retract: Retract
    ) -> AsyncIterator[CostRecord]:
        request_id, tenant = uuid.uuid4().hex, self._callers.tenant(context.invocation_metadata())
        left, most = context.time_remaining(), self._limits.deadline_seconds
        own = ((DEADLINE_HEADER, f"{most:g}"),) if left is None or left > most else ()
        context.set_trailing_metadata(((REQUEST_ID_HEADER, request_id), *own))
        request = router_messages.request_from_proto(asked, self._limits, request_id=request_id, tenant=tenant)
        timeout = validation.timeout(left, limits=self._limits)
        with self._tracer.tenant(tenant):
            async with self._router.route(request, send, timeout=timeout, retract=retract) as record:
                yield record
