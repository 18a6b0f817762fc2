"""AdminService and its client: what operators ask of a running router, on an address of its own."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc

from marginal.routing.overview import Overview
from marginal.transport.admin_messages import overview_from_proto, overview_to_proto
from marginal.transport.guard import Guard
from marginal.transport.server import options
from marginal.transport.tls import ClientTls, ServerTls, dialled, error_of_call, open_port
from marginal.v1 import admin_pb2, admin_pb2_grpc

MESSAGE_BYTES = 64 * 1024


class AdminServicer(admin_pb2_grpc.AdminServiceServicer):
    """Shows what `look` sees."""

    def __init__(self, look: Callable[[], Overview]) -> None:
        self._look = look

    async def ListPolicies(  # noqa: N802 (named as in the proto)
        self, request: admin_pb2.ListPoliciesRequest, _: Any
    ) -> admin_pb2.ListPoliciesResponse:
        return overview_to_proto(self._look(), only=request.policy)


@asynccontextmanager
async def serving_admin(
    listen: str, servicer: AdminServicer, *, guard: Guard, tls: ServerTls | None = None
) -> AsyncIterator[None]:
    """Serves at `listen` meanwhile; "" serves nothing. Raises ConfigurationError when the address cannot be had."""
    if not listen:
        yield
        return
    server = grpc.aio.server(interceptors=[guard], options=options(guard, message_bytes=MESSAGE_BYTES))
    admin_pb2_grpc.add_AdminServiceServicer_to_server(servicer, server)
    open_port(server, listen, tls, option="--admin-listen")
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)


async def list_policies(
    target: str, *, policy: str = "", tls: ClientTls | None = None, timeout_seconds: float = 5.0
) -> Overview:
    """The policies in force at a router's admin address. Raises MarginalError."""
    async with dialled(target, tls) as channel:
        stub = admin_pb2_grpc.AdminServiceStub(channel)
        try:
            response = await stub.ListPolicies(admin_pb2.ListPoliciesRequest(policy=policy), timeout=timeout_seconds)
        except grpc.aio.AioRpcError as error:
            raise error_of_call(error) from error
    return overview_from_proto(response)
