"""RouterService over a Router: convert, call, convert."""

import re
import uuid
from typing import Any

import grpc

from marginal.errors import InvalidRequest
from marginal.routing.records import CostRecord
from marginal.routing.requests import Delta
from marginal.routing.router import Retract, Router, Send
from marginal.transport import router_messages, validation
from marginal.transport.deadlines import within
from marginal.transport.tracing import CallTracer
from marginal.transport.validation import Limits
from marginal.v1 import router_pb2, router_pb2_grpc

TENANT_HEADER = "marginal-tenant"
DEFAULT_TENANT = "default"
TENANT = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


SERVICE = "marginal.v1.RouterService"


class RouterServicer(router_pb2_grpc.RouterServiceServicer):
    """Serves one router."""

    def __init__(self, router: Router, *, limits: Limits, tracer: CallTracer) -> None:
        self._router = router
        self._limits = limits
        self._tracer = tracer

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the service to a server."""
        router_pb2_grpc.add_RouterServiceServicer_to_server(self, server)

    async def Generate(  # type: ignore[override]  # writes to the context, so that a cancel is a CancelledError here
        self, request: router_pb2.RouterServiceGenerateRequest, context: Any
    ) -> None:
        async def send(delta: Delta) -> None:
            await context.write(router_messages.delta_to_proto(delta, margins=request.return_margins))

        record = await self._route(request, context, send, lambda: False)
        await context.write(router_pb2.RouterServiceGenerateResponse(final=router_messages.final_to_proto(record)))

    async def Complete(self, request: router_pb2.CompleteRequest, context: Any) -> router_pb2.CompleteResponse:
        pieces: list[str] = []

        async def collect(delta: Delta) -> None:
            pieces.extend(token.text for token in delta.tokens)

        def retract() -> bool:
            pieces.clear()
            return True

        record = await self._route(request.request, context, collect, retract)
        return router_pb2.CompleteResponse(text="".join(pieces), final=router_messages.final_to_proto(record))

    async def _route(
        self, asked: router_pb2.RouterServiceGenerateRequest, context: Any, send: Send, retract: Retract
    ) -> CostRecord:
        tenant = _tenant(context.invocation_metadata())
        request = router_messages.request_from_proto(asked, self._limits, request_id=uuid.uuid4().hex, tenant=tenant)
        timeout = validation.timeout(context.time_remaining(), limits=self._limits)
        with self._tracer.tenant(tenant):
            async with within(timeout):
                return await self._router.route(request, send, timeout=timeout, retract=retract)


def _tenant(metadata: Any) -> str:
    """Whoever is billed, by header. Raises InvalidRequest for a name that could not be a label."""
    tenant = dict(metadata or ()).get(TENANT_HEADER, DEFAULT_TENANT)
    if not isinstance(tenant, str) or not TENANT.fullmatch(tenant):
        raise InvalidRequest(TENANT_HEADER, f"must match {TENANT.pattern}")
    return tenant
