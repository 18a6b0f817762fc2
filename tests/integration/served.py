"""A router on a real port of this process, over two scripted tiers, and the raw calls that reach it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from marginal.telemetry.tracing import tracing_to
from marginal.transport.credentials import Callers
from marginal.transport.guard import Guard
from marginal.transport.router_servicer import RouterServicer
from marginal.transport.server import options
from marginal.transport.validation import Limits
from marginal.v1 import router_pb2
from unit.routing.cascade import Cascade

GENERATE = "/marginal.v1.RouterService/Generate"
COMPLETE = "/marginal.v1.RouterService/Complete"


class Served:
    """A caller's channel to a served cascade; `call` sends bytes or a message and gives the answers."""

    def __init__(self, channel: grpc.aio.Channel, guard: Guard) -> None:
        self.channel = channel
        self.guard = guard

    async def call(
        self,
        request: bytes | router_pb2.RouterServiceGenerateRequest,
        *,
        timeout: float | None = 5.0,
        metadata: tuple[tuple[str, str], ...] = (),
    ) -> list[router_pb2.RouterServiceGenerateResponse]:
        """Raises grpc.aio.AioRpcError."""
        data = request if isinstance(request, bytes) else request.SerializeToString()
        generate = self.channel.unary_stream(
            GENERATE, response_deserializer=router_pb2.RouterServiceGenerateResponse.FromString
        )
        return [response async for response in generate(data, timeout=timeout, metadata=metadata)]

    async def healthy(self) -> bool:
        """Whether the health service answers SERVING."""
        answer = await health_pb2_grpc.HealthStub(self.channel).Check(health_pb2.HealthCheckRequest(), timeout=2.0)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


@asynccontextmanager
async def served(
    cascade: Cascade,
    *,
    limits: Limits | None = None,
    max_calls: int = 64,
    callers: Callers = Callers(trust_header=True),  # noqa: B008 (nothing changes it)
) -> AsyncIterator[Served]:
    """Serves a cascade; afterwards no call may be left over."""
    tracer = tracing_to(None, service_name="test", version="1").tracer
    guard = Guard(tracer, max_calls=max_calls, trust_baggage=False, callers=callers)
    server = grpc.aio.server(interceptors=[guard], options=options(guard, message_bytes=1024 * 1024))
    RouterServicer(cascade.router, limits=limits or Limits(), tracer=tracer, callers=callers).register(server)
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Served(channel, guard)
    finally:
        await server.stop(None)
        await guard.idle()
