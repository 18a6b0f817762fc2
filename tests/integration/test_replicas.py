"""A tier of several replicas on real ports: how streams spread, and what a caller notices when one of them goes."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from cluster.api_server import ApiServer, endpoint, endpoint_slice
from contract.subjects import Unrecorded, Untraced
from evidence import sure
from integration.authorities import Authority
from integration.test_tls import side
from marginal.backends.scripted import Script, ScriptedModel
from marginal.cluster import api as kubernetes
from marginal.cluster.endpoints import Service, follow
from marginal.entrypoints.certificate_keeping import TlsFiles
from marginal.routing.ports import LanguageModel
from marginal.tokens import Chunk, Generation, Message, Role, Sampling
from marginal.transport.guard import Guard
from marginal.transport.model_servicer import ModelServicer
from marginal.transport.remote_model import connected
from marginal.transport.remote_pool import RemotePool
from marginal.transport.server import options
from marginal.transport.targets import Discovery
from marginal.transport.tls import ServerTls, open_port
from marginal.transport.validation import Limits

ASKED = Generation((Message(Role.USER, "a question"),), Sampling(max_tokens=64))
SLICES = Service("llm", "small", "50052")


@dataclass
class Replica:
    """A model service at an address of its own on this machine, and how many calls it has begun."""

    address: str
    server: grpc.aio.Server
    calls: list[str] = field(default_factory=list)
    called: asyncio.Event = field(default_factory=asyncio.Event)


@asynccontextmanager
async def replica(
    host: str, port: int, *, tls: ServerTls | None = None, delay: float = 0.0, first: float = 0.0
) -> AsyncIterator[Replica]:
    guard = Guard(Untraced(), max_calls=64, trust_baggage=True)
    server = grpc.aio.server(interceptors=[guard], options=options(guard, message_bytes=1024 * 1024))
    served = Replica(f"{host}:{port}", server)

    def script(generation: Generation) -> Script:
        served.calls.append(generation.messages[-1].text)
        served.called.set()
        tokens = tuple(sure(0.9, text=f"{n} ") for n in range(3))
        return Script(tokens, input_tokens=1, delay_seconds=delay, first_delay_seconds=first)

    ModelServicer(ScriptedModel(script), name="scripted", limits=Limits(), recorder=Unrecorded()).register(server)
    statuses = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(statuses, server)
    await statuses.set("marginal.v1.ModelService", health_pb2.HealthCheckResponse.SERVING)
    open_port(server, served.address, tls, option="--listen")
    await server.start()
    try:
        yield served
    finally:
        await server.stop(None)
        await guard.idle()


def free_port() -> int:
    """A port that is free at every address of the loopback network."""
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        return int(taken.getsockname()[1])


async def answered(model: LanguageModel) -> list[Chunk]:
    async with aclosing(model.generate(ASKED, timeout=10.0)) as chunks:
        return [chunk async for chunk in chunks]


async def all_ready(pool: RemotePool, count: int) -> None:
    """Waits until so many replicas are connected, which no caller has to."""
    async with asyncio.timeout(10):
        while pool.ready() < count:  # noqa: ASYNC110 (gRPC tells nobody)
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("form", ["{0}:{2},{1}:{2}", "dns:///localhost:{2}"])
async def test_a_list_and_a_name_spread_streams_over_what_they_stand_for(form: str) -> None:
    port = free_port()
    async with replica("127.0.0.1", port) as first, replica("127.0.0.2", port) as second:
        async with connected(form.format("127.0.0.1", "127.0.0.2", port)) as pool:
            addresses = pool.under_way()
            await all_ready(pool, max(1, len(addresses)))
            for _ in range(10):
                await answered(pool)
        spread = [len(first.calls), len(second.calls)]
        assert spread == ([5, 5] if "," in form else [10, 0])


async def test_pods_that_the_api_server_tells_of_are_called_and_left_without_a_failed_call(tmp_path: Path) -> None:
    port = free_port()
    service = Service("llm", "small", str(port))
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(ApiServer())
        pods = [await stack.enter_async_context(replica(f"127.0.0.{n}", port, delay=0.02)) for n in (1, 2, 3)]
        hosts = [pod.address.partition(":")[0] for pod in pods]
        await server.put(SLICES.path, endpoint_slice("s", "small", *map(endpoint, hosts[:2])))
        api = await stack.enter_async_context(kubernetes.opened(server.kubeconfig(tmp_path)))
        found = Discovery(lambda push: follow(api, service, push))
        pool = await stack.enter_async_context(connected("small", found=found))
        await answered(pool)

        async def load() -> int:
            for _ in range(20):
                assert len(await answered(pool)) == 4
            return 20

        callers = [asyncio.create_task(load()) for _ in range(4)]
        await asyncio.sleep(0.2)
        ending = endpoint(hosts[0], ready=False, serving=True, terminating=True)
        await server.put(SLICES.path, endpoint_slice("s", "small", ending, *map(endpoint, hosts[1:])))
        await asyncio.sleep(0.1)
        await pods[0].server.stop(5.0)
        assert sum(await asyncio.gather(*callers)) == 80
        assert set(pool.under_way()) == {pods[1].address, pods[2].address}
        assert len(pods[2].calls) > 10


async def test_a_replica_that_dies_before_its_first_token_costs_no_call() -> None:
    port = free_port()
    async with (
        replica("127.0.0.1", port, first=1.0) as dying,
        replica("127.0.0.2", port) as other,
        connected(f"{dying.address},{other.address}") as pool,
    ):
        await all_ready(pool, 2)
        calls = [asyncio.create_task(answered(pool)) for _ in range(6)]
        async with asyncio.timeout(5):
            await dying.called.wait()
        await dying.server.stop(None)
        assert [len(chunks) for chunks in await asyncio.gather(*calls)] == [4] * 6
        assert dying.calls


async def test_certificates_are_for_the_service_though_its_pods_have_bare_addresses(tmp_path: Path) -> None:
    port, identity = free_port(), Authority().write(tmp_path, "small.llm.svc")
    served = side(identity.serving()).keeper.server
    async with replica("127.0.0.1", port, tls=served) as pod:

        async def one(push: "object") -> None:
            push(frozenset({pod.address}))  # type: ignore[operator]

        found = Discovery(one, authority="small.llm.svc")
        client = side(TlsFiles(ca=identity.ca)).keeper.client
        async with connected("small", tls=client, found=found) as pool:
            assert len(await answered(pool)) == 4
