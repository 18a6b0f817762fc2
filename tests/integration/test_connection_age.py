"""Connections that get old: callers come to routers that were added, and no call is lost on the way."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from evidence import sure
from marginal.backends.scripted import Script
from marginal.entrypoints.processes import free_addresses
from marginal.telemetry.tracing import tracing_to
from marginal.transport.guard import Guard
from marginal.transport.router_client import Answer, RouterClient
from marginal.transport.router_servicer import SERVICE, RouterServicer
from marginal.transport.server import ServerSettings, options, serve
from marginal.transport.validation import Limits
from marginal.v1 import router_pb2
from marginal.v1.router_pb2_grpc import RouterServiceStub
from unit.routing.cascade import Cascade

AGE_SECONDS = 1.0
ASKED = router_pb2.RouterServiceGenerateRequest(prompt="who knows?")


@dataclass
class Aging:
    """A router whose callers' connections get old, and the connections that calls came by."""

    address: str
    peers: Counter[str] = field(default_factory=Counter)


class SeenServicer(RouterServicer):
    """Notes by which connection each call comes."""

    def __init__(self, seen: Aging, *arguments: Any, **others: Any) -> None:
        super().__init__(*arguments, **others)
        self._seen = seen

    async def Generate(self, request: Any, context: Any) -> None:  # noqa: N802
        self._seen.peers[context.peer()] += 1
        await super().Generate(request, context)

    async def Complete(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._seen.peers[context.peer()] += 1
        return await super().Complete(request, context)


@asynccontextmanager
async def aging(*, age: float = AGE_SECONDS, tokens: int = 4, delay: float = 0.02) -> AsyncIterator[Aging]:
    """Serves answers of so many tokens, each after a delay in seconds."""
    script = Script(tuple(sure(0.9, text=f"{n} ") for n in range(tokens)), delay_seconds=delay)
    seen, stop = Aging(free_addresses("127.0.0.1", 1)[0]), asyncio.Event()
    limits, tracer = Limits(), tracing_to(None, service_name="test", version="1").tracer
    settings = ServerSettings(
        seen.address, grace_seconds=10.0, connection_age_seconds=age, longest_call_seconds=limits.deadline_seconds
    )

    async def ready() -> None:
        pass

    serving = asyncio.create_task(
        serve(
            SERVICE,
            settings,
            guard=Guard(tracer, max_calls=256, trust_baggage=False),
            register=SeenServicer(seen, Cascade(small=script).router, limits=limits, tracer=tracer).register,
            until_ready=ready,
            stop=stop,
        )
    )
    try:
        yield seen
    finally:
        stop.set()
        await serving


class Front:
    """One address before several servers, as a ClusterIP is: each connection goes to the next of them."""

    def __init__(self, *servers: str) -> None:
        self.servers = list(servers)
        self.address = ""
        self._taken = 0
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Front":
        self._listener = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        self._taken += 1
        host, _, port = self.servers[self._taken % len(self.servers)].partition(":")
        back, on = await asyncio.open_connection(host, int(port))
        await asyncio.gather(_passed_on(reader, on), _passed_on(back, writer), return_exceptions=True)
        self._connections.discard(task)


async def _passed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


@dataclass
class Callers:
    """Callers that keep what they connected to, and what came of their calls."""

    target: str
    until: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)

    async def call(self, seconds: float, *, clients: int = 3, channels: int = 3, each: int = 3) -> None:
        """Calls for so long, over connections that nobody shares."""
        self.until = time.monotonic() + seconds
        async with AsyncExitStack() as stack:
            work = []
            for _ in range(clients):
                client = await stack.enter_async_context(RouterClient(self.target))
                work += [self._by_client(client, stream=bool(n % 2)) for n in range(each)]
            for _ in range(channels):
                own = (("grpc.use_local_subchannel_pool", 1),)
                channel = await stack.enter_async_context(grpc.aio.insecure_channel(self.target, options=own))
                work += [self._by_channel(RouterServiceStub(channel), stream=bool(n % 2)) for n in range(each)]
            await asyncio.gather(*work)

    async def _by_client(self, client: RouterClient, *, stream: bool) -> None:
        while time.monotonic() < self.until:
            try:
                if stream:
                    *pieces, last = [event async for event in client.ask("who knows?")]
                    assert pieces
                else:
                    text, last = await client.complete("who knows?")
                    assert text
                assert isinstance(last, Answer)
                self.outcomes["client"] += 1
            except Exception as error:
                self.outcomes[repr(error)] += 1

    async def _by_channel(self, stub: Any, *, stream: bool) -> None:
        while time.monotonic() < self.until:
            try:
                if stream:
                    *_, last = [message async for message in stub.Generate(ASKED, timeout=10.0)]
                    assert last.HasField("final")
                else:
                    await stub.Complete(router_pb2.CompleteRequest(request=ASKED), timeout=10.0)
                self.outcomes["channel"] += 1
            except grpc.aio.AioRpcError as error:
                self.outcomes[f"{error.code()} {error.details()}"] += 1


async def test_no_call_fails_while_connections_are_replaced() -> None:
    async with aging() as router:
        callers = Callers(router.address)
        await callers.call(5.0)
    assert set(callers.outcomes) == {"client", "channel"}, callers.outcomes
    assert callers.outcomes.total() == router.peers.total() > 100
    assert len(router.peers) >= 4 * 3, "a connection lived on"


async def test_callers_come_to_a_router_that_was_added_and_leave_one_that_ends_without_a_failed_call() -> None:
    async with AsyncExitStack() as stack:
        added = await stack.enter_async_context(aging())
        first = await stack.enter_async_context(aging())
        front = await stack.enter_async_context(Front(first.address))
        callers = Callers(front.address)
        calling = asyncio.create_task(callers.call(7.0))
        await asyncio.sleep(2.0)
        assert not added.peers
        front.servers.append(added.address)
        await asyncio.sleep(2.0)
        assert added.peers.total() > 50
        front.servers.remove(first.address)
        await asyncio.sleep(1.5)
        before = first.peers.total()
        await calling
        assert first.peers.total() == before
    assert set(callers.outcomes) == {"client", "channel"}, callers.outcomes


async def test_a_stream_and_a_health_watch_outlive_the_age_of_their_connection_many_times() -> None:
    async with (
        aging(tokens=60, delay=0.1) as router,
        grpc.aio.insecure_channel(router.address) as channel,
    ):
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        assert (await watch.read()).status in (
            health_pb2.HealthCheckResponse.SERVING,
            health_pb2.HealthCheckResponse.NOT_SERVING,
        )
        streams = []
        for _ in range(4):
            call = RouterServiceStub(channel).Generate(ASKED, timeout=30.0)
            streams.append(asyncio.create_task(_taken(call)))
            await asyncio.sleep(1.5)
        assert not watch.done()
        for messages in await asyncio.gather(*streams):
            assert messages[-1].final.attempts[-1].usage.output_tokens == 60
        assert len(router.peers) >= 3
        assert not watch.done()


async def _taken(call: Any) -> list[router_pb2.RouterServiceGenerateResponse]:
    return [message async for message in call]


async def test_without_an_age_a_connection_is_kept() -> None:
    async with aging(age=0.0) as router:
        callers = Callers(router.address)
        await callers.call(3.0)
    assert len(router.peers) <= 6


def test_an_aged_connection_has_longer_than_the_longest_call() -> None:
    guard = Guard(tracing_to(None, service_name="test", version="1").tracer, max_calls=1, trust_baggage=False)
    chosen = dict(options(guard, message_bytes=1, connection_age_seconds=300.0, longest_call_seconds=7_200.0))
    assert chosen["grpc.max_connection_age_ms"] == 300_000
    assert chosen["grpc.max_connection_age_grace_ms"] > 7_200_000
    endless = dict(options(guard, message_bytes=1, connection_age_seconds=1e9, longest_call_seconds=1e9))
    assert endless["grpc.max_connection_age_ms"] == endless["grpc.max_connection_age_grace_ms"] == 2**31 - 1
    assert "grpc.max_connection_age_ms" not in dict(options(guard, message_bytes=1))
