"""What a server says of its health (grpc.health.v1), on its own port and on one for probes that speak no TLS."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from marginal.transport.tls import open_port

logger = logging.getLogger(__name__)

LIVENESS = "liveness"
"""Asks only whether the program answers: nothing that it depends on is mended by starting it again."""

WATCH_SECONDS = 0.5
PROBE_STREAMS = 32

Status = health_pb2.HealthCheckResponse


class Health:
    """One server's health. `liveness` is SERVING from the start; "" and the service's name once it is ready."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._statuses = health.aio.HealthServicer()

    async def register(self, server: grpc.aio.Server) -> None:
        """Adds itself to a server that has not started."""
        await self._statuses.set(LIVENESS, Status.SERVING)
        await self._report(Status.NOT_SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(self._statuses, server)

    async def follow(self, until_ready: Callable[[], Awaitable[None]], able: Callable[[], bool]) -> None:
        """Says SERVING once `until_ready` returns and while `able`, for ever. Raises what `until_ready` raises."""
        await until_ready()
        said = False
        while True:
            if able() is not said:
                said = not said
                await self._report(Status.SERVING if said else Status.NOT_SERVING)
                logger.info("serving %s" if said else "not serving %s for now", self._service)
            await asyncio.sleep(WATCH_SECONDS)

    async def drain(self) -> None:
        """Says NOT_SERVING to everybody from now on."""
        await self._statuses.enter_graceful_shutdown()

    @asynccontextmanager
    async def serving(self, listen: str) -> AsyncIterator[None]:
        """Answers without TLS at `listen` as well, health and nothing else; "" serves nothing.

        kubelet's gRPC probes speak no TLS. Raises ConfigurationError when the address cannot be had.
        """
        if not listen:
            yield
            return
        server = grpc.aio.server(
            options=(("grpc.so_reuseport", 0), ("grpc.max_concurrent_streams", PROBE_STREAMS)),
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._statuses, server)
        open_port(server, listen, None, option="--health-listen")
        await server.start()
        try:
            yield
        finally:
            await server.stop(None)

    async def _report(self, status: int) -> None:
        for name in (health.OVERALL_HEALTH, self._service):
            await self._statuses.set(name, status)
