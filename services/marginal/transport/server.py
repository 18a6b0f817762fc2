"""A gRPC server that tells the truth about its health and loses no stream when it is told to stop."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection

from marginal.transport.addresses import only_this_machine
from marginal.transport.beside import begun, failure
from marginal.transport.guard import Guard
from marginal.transport.health import Health
from marginal.transport.tls import ServerTls, open_port

logger = logging.getLogger(__name__)

ACCEPTED_SECONDS = 0.05
"""Calls accepted just before the stop have reached their handlers by then."""

STREAMS_PER_CALL = 4
"""Streams a connection may have for each call the guard lets through: it sheds with a reason, the library resets."""

KEEPALIVE_SECONDS = 20.0
ANSWERED_SHARE = 0.25
"""A ping must be answered within this share of the time between two."""

AGE_SECONDS = 300.0
BEYOND_SECONDS = 60.0
"""What an aged connection has beyond the longest call: new ones may begin on it until its caller has been told."""

MOST_MILLISECONDS = 2**31 - 1


def options(
    guard: Guard,
    *,
    message_bytes: int,
    keepalive_seconds: float = KEEPALIVE_SECONDS,
    connection_age_seconds: float = 0.0,
    longest_call_seconds: float = 0.0,
) -> tuple[tuple[str, int], ...]:
    """The options of a server behind `guard` that takes messages of up to `message_bytes`.

    A caller that is silent for `keepalive_seconds` is asked whether it is still there, and left when it is not.
    The ages are those of `ServerSettings`; gRPC makes each connection's up to a tenth longer or shorter.
    """
    every = round(1000 * keepalive_seconds)
    within = round(ANSWERED_SHARE * every)
    aged: tuple[tuple[str, int], ...] = ()
    if connection_age_seconds:
        aged = (
            ("grpc.max_connection_age_ms", _milliseconds(connection_age_seconds)),
            ("grpc.max_connection_age_grace_ms", _milliseconds(longest_call_seconds + BEYOND_SECONDS)),
        )
    return (
        *aged,
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", message_bytes),
        ("grpc.max_concurrent_streams", STREAMS_PER_CALL * guard.max_calls),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_time_ms", every),
        ("grpc.keepalive_timeout_ms", within),
        ("grpc.http2.ping_timeout_ms", within),  # this one governs, and is a minute by default (measured)
        ("grpc.http2.max_pings_without_data", 0),
    )


def _milliseconds(seconds: float) -> int:
    return max(1, round(min(1000 * seconds, MOST_MILLISECONDS)))


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Where a server listens, and how it stops.

    `drain_seconds`: new calls are still taken after health says NOT_SERVING. `grace_seconds`: streams in flight may go
    on. `settle_seconds`: their clean-up may take. `message_bytes`: the most one request may have on the wire.
    `keepalive_seconds`: see `options`. `health_listen`: where health is told without TLS as well, "" nowhere.

    `connection_age_seconds`: a caller is then asked to connect anew, so that it comes to servers that were added; calls
    under way go on, `longest_call_seconds` and a minute more, and only a health watch is ever cut. 0 is never, as for
    model services: a router learns of every pod and has a connection to each, so it has nothing to connect anew for.
    """

    listen: str
    message_bytes: int = 1024 * 1024
    drain_seconds: float = 0.0
    grace_seconds: float = 30.0
    settle_seconds: float = 5.0
    keepalive_seconds: float = KEEPALIVE_SECONDS
    connection_age_seconds: float = 0.0
    longest_call_seconds: float = 0.0
    tls: ServerTls | None = None
    reflection: bool | None = None
    health_listen: str = ""

    @property
    def reflects(self) -> bool:
        """Whether callers may ask which methods and messages there are."""
        return only_this_machine(self.listen) if self.reflection is None else self.reflection


async def serve(
    service: str,
    settings: ServerSettings,
    *,
    guard: Guard,
    register: Callable[[grpc.aio.Server], None],
    until_ready: Callable[[], Awaitable[None]],
    stop: asyncio.Event,
    able: Callable[[], bool] = lambda: True,
) -> None:
    """Serves `service` until `stop` is set, then drains.

    Health is NOT_SERVING until `until_ready` returns, and afterwards while not `able`; calls are taken all the same.
    What `until_ready` raises ends the server and is raised on. Raises ConfigurationError when the address cannot be
    had.
    """
    own = options(
        guard,
        message_bytes=settings.message_bytes,
        keepalive_seconds=settings.keepalive_seconds,
        connection_age_seconds=settings.connection_age_seconds,
        longest_call_seconds=settings.longest_call_seconds,
    )
    server = grpc.aio.server(interceptors=[guard], options=own)
    register(server)
    told = Health(service)
    await told.register(server)
    if settings.reflects:
        reflection.enable_server_reflection((service, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    open_port(server, settings.listen, settings.tls, option="--listen")
    async with told.serving(settings.health_listen):
        await server.start()
        logger.info("listening on %s%s", settings.listen, " with TLS" if settings.tls else "")
        following = begun(told.follow(until_ready, able), stop.set, name="health")
        await stop.wait()
        following.cancel()
        logger.info("draining")
        await told.drain()
        await asyncio.sleep(settings.drain_seconds)
        await _drained(server, guard, settings)
    logger.info("stopped")
    if following.done() and (error := failure(following)) is not None:
        raise error


async def _drained(server: grpc.aio.Server, guard: Guard, settings: ServerSettings) -> None:
    """Lets the calls in flight end; a health watch, which never does, is not waited for."""
    stopping = asyncio.create_task(server.stop(settings.grace_seconds))
    await asyncio.sleep(ACCEPTED_SECONDS)
    idle = asyncio.create_task(guard.idle())
    await asyncio.wait({stopping, idle}, return_when=asyncio.FIRST_COMPLETED)
    await server.stop(0)
    await stopping
    try:
        async with asyncio.timeout(settings.settle_seconds):
            await idle
    except TimeoutError:
        logger.warning("calls were still cleaning up after %g s", settings.settle_seconds)
