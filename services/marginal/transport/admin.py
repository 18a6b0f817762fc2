"""AdminService and its client: what operators ask of a running router, on an address of its own."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import grpc

from marginal.errors import InvalidRequest
from marginal.routing.overview import Overview
from marginal.routing.spending import Books, BudgetStates, CostQuery, CostSummary
from marginal.routing.tenants import TENANT
from marginal.transport.admin_costs import (
    budgets_from_proto,
    budgets_to_proto,
    query_from_proto,
    query_to_proto,
    summary_from_proto,
    summary_to_proto,
)
from marginal.transport.admin_messages import overview_from_proto, overview_to_proto
from marginal.transport.admin_records import record_from_proto, record_to_proto
from marginal.transport.guard import Guard
from marginal.transport.server import options
from marginal.transport.tls import ClientTls, ServerTls, dialled, error_of_call, open_port
from marginal.v1 import admin_pb2, admin_pb2_grpc

MESSAGE_BYTES = 64 * 1024
JOURNAL_SECONDS = 120.0
"""How long a client waits for what is read from a journal."""

REQUEST_ID = re.compile(r"[!-~]{1,128}")

Answer = TypeVar("Answer")


class AdminServicer(admin_pb2_grpc.AdminServiceServicer):
    """Shows what `look` sees and what the books say; a journal is read for one call at a time."""

    def __init__(self, look: Callable[[], Overview], books: Books) -> None:
        self._look = look
        self._books = books
        self._reader = ThreadPoolExecutor(1, "journal-reader")

    async def ListPolicies(  # noqa: N802 (named as in the proto)
        self, request: admin_pb2.ListPoliciesRequest, _: Any
    ) -> admin_pb2.ListPoliciesResponse:
        return overview_to_proto(self._look(), only=request.policy)

    async def ListCosts(  # noqa: N802
        self, request: admin_pb2.ListCostsRequest, _: Any
    ) -> admin_pb2.ListCostsResponse:
        query = query_from_proto(request)
        return summary_to_proto(await self._read(lambda: self._books.costs(query)))

    async def GetCost(  # noqa: N802
        self, request: admin_pb2.GetCostRequest, _: Any
    ) -> admin_pb2.GetCostResponse:
        request_id = request.request_id
        if not REQUEST_ID.fullmatch(request_id):
            raise InvalidRequest("request_id", "must be 1 to 128 printable ASCII characters without spaces")
        line = await self._read(lambda: self._books.record(request_id))
        if line is None:
            raise InvalidRequest("request_id", f"there is no record of {request_id} in this router's journal")
        return admin_pb2.GetCostResponse(record=record_to_proto(line))

    async def ListBudgets(  # noqa: N802
        self, request: admin_pb2.ListBudgetsRequest, _: Any
    ) -> admin_pb2.ListBudgetsResponse:
        if request.tenant and not TENANT.fullmatch(request.tenant):
            raise InvalidRequest("tenant", "is no name of a tenant")
        return budgets_to_proto(await self._books.budgets(request.tenant))

    async def _read(self, read: Callable[[], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._reader, read)


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
    request = admin_pb2.ListPoliciesRequest(policy=policy)
    return overview_from_proto(
        await _asked(target, tls, lambda stub: stub.ListPolicies(request, timeout=timeout_seconds))
    )


async def list_costs(
    target: str, query: CostQuery, *, tls: ClientTls | None = None, timeout_seconds: float = JOURNAL_SECONDS
) -> CostSummary:
    """What was spent through the router at this admin address. Raises MarginalError."""
    request = query_to_proto(query)
    response = await _asked(target, tls, lambda stub: stub.ListCosts(request, timeout=timeout_seconds))
    return summary_from_proto(response)


async def get_cost(
    target: str, request_id: str, *, tls: ClientTls | None = None, timeout_seconds: float = JOURNAL_SECONDS
) -> Mapping[str, Any]:
    """The line of one request's cost record. Raises InvalidRequest when there is none, MarginalError."""
    request = admin_pb2.GetCostRequest(request_id=request_id)
    response = await _asked(target, tls, lambda stub: stub.GetCost(request, timeout=timeout_seconds))
    return record_from_proto(response.record)


async def list_budgets(
    target: str, *, tenant: str = "", tls: ClientTls | None = None, timeout_seconds: float = 5.0
) -> BudgetStates:
    """What tenants have spent and may spend now. Raises MarginalError."""
    request = admin_pb2.ListBudgetsRequest(tenant=tenant)
    return budgets_from_proto(
        await _asked(target, tls, lambda stub: stub.ListBudgets(request, timeout=timeout_seconds))
    )


async def _asked(
    target: str, tls: ClientTls | None, call: "Callable[[admin_pb2_grpc.AdminServiceAsyncStub], Awaitable[Answer]]"
) -> Answer:
    async with dialled(target, tls) as channel:
        try:
            return await call(admin_pb2_grpc.AdminServiceStub(channel))
        except grpc.aio.AioRpcError as error:
            raise error_of_call(error) from error
