"""A gRPC server that tells the truth about its health and loses no stream when it is told to stop."""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from marginal.errors import ConfigurationError
from marginal.transport.guard import Guard

logger = logging.getLogger(__name__)

OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 1024 * 1024),
    ("grpc.max_concurrent_streams", 256),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Where a server listens, and how it stops.

    `drain_seconds`: new calls are still taken after health says NOT_SERVING. `grace_seconds`: streams in flight may go
    on. `settle_seconds`: their clean-up may take.
    """

    listen: str
    drain_seconds: float = 0.0
    grace_seconds: float = 30.0
    settle_seconds: float = 5.0


async def serve(
    service: str,
    settings: ServerSettings,
    *,
    guard: Guard,
    register: Callable[[grpc.aio.Server], None],
    until_ready: Callable[[], Awaitable[None]],
) -> None:
    """Serves `service` until SIGTERM or SIGINT, then drains.

    Health is NOT_SERVING until `until_ready` returns, for good when it raises ConfigurationError. Raises
    ConfigurationError when the address cannot be had.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    statuses = health.aio.HealthServicer()
    names = (health.OVERALL_HEALTH, service)
    await _report(statuses, names, health_pb2.HealthCheckResponse.NOT_SERVING)

    server = grpc.aio.server(interceptors=[guard], options=OPTIONS)
    register(server)
    health_pb2_grpc.add_HealthServicer_to_server(statuses, server)
    reflection.enable_server_reflection((service, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    try:
        server.add_insecure_port(settings.listen)
    except RuntimeError:
        raise ConfigurationError(
            f"--listen {settings.listen}: the address is taken or not ours, choose another"
        ) from None
    await server.start()
    logger.info("listening on %s", settings.listen)

    ready = asyncio.create_task(_ready(service, statuses, names, until_ready))
    await stop.wait()
    ready.cancel()
    logger.info("draining")
    await statuses.enter_graceful_shutdown()
    await asyncio.sleep(settings.drain_seconds)
    await server.stop(settings.grace_seconds)
    async with asyncio.timeout(settings.settle_seconds):
        await guard.idle()
    logger.info("stopped")


async def _ready(
    service: str, statuses: health.aio.HealthServicer, names: Sequence[str], until_ready: Callable[[], Awaitable[None]]
) -> None:
    try:
        await until_ready()
    except ConfigurationError as error:
        logger.error("%s stays NOT_SERVING: %s", service, error)
        return
    await _report(statuses, names, health_pb2.HealthCheckResponse.SERVING)
    logger.info("serving %s", service)


async def _report(statuses: health.aio.HealthServicer, names: Sequence[str], status: int) -> None:
    for name in names:
        await statuses.set(name, status)
