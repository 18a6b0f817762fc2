"""What probes see: a program that lives though it is not ready, and health without TLS where a port is for that."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from contract.subjects import Untraced
from integration.authorities import Authority
from integration.test_tls import side
from marginal.entrypoints.processes import free_addresses
from marginal.errors import ConfigurationError, TierUnavailable
from marginal.transport.guard import Guard
from marginal.transport.health import LIVENESS
from marginal.transport.model_servicer import SERVICE
from marginal.transport.router_client import wait_until_serving
from marginal.transport.server import ServerSettings, serve


class Dependencies:
    """What a server needs before it is ready, and while it is."""

    def __init__(self) -> None:
        self.there = asyncio.Event()
        self.able = True

    async def until_ready(self) -> None:
        await self.there.wait()


@asynccontextmanager
async def running(settings: ServerSettings, needs: Dependencies) -> AsyncIterator["asyncio.Task[None]"]:
    stop = asyncio.Event()
    guard = Guard(Untraced(), max_calls=4, trust_baggage=False)
    serving = asyncio.create_task(
        serve(
            SERVICE,
            settings,
            guard=guard,
            register=lambda _: None,
            until_ready=needs.until_ready,
            stop=stop,
            able=lambda: needs.able,
        )
    )
    try:
        yield serving
    finally:
        stop.set()
        await asyncio.wait({serving})


def addresses() -> tuple[str, str]:
    own, probed = free_addresses("127.0.0.1", 2)
    return own, probed


async def serving(target: str, name: str) -> bool:
    """Whether a probe of this name would be content within a moment."""
    try:
        await wait_until_serving(target, name, timeout_seconds=1.5)
    except TierUnavailable:
        return False
    return True


async def test_it_lives_before_it_is_ready_and_while_it_is_not_able() -> None:
    (listen, _), needs = addresses(), Dependencies()
    async with running(ServerSettings(listen, grace_seconds=0.0), needs):
        assert await serving(listen, LIVENESS)
        assert [await serving(listen, name) for name in ("", SERVICE)] == [False, False]
        needs.there.set()
        assert [await serving(listen, name) for name in (LIVENESS, "", SERVICE)] == [True, True, True]
        needs.able = False
        await asyncio.sleep(1.0)
        assert [await serving(listen, name) for name in (LIVENESS, "", SERVICE)] == [True, False, False]


async def test_probes_that_speak_no_tls_have_a_port_and_nothing_but_health_is_there(tmp_path: Path) -> None:
    identity = Authority().write(tmp_path / "server")
    (listen, probed), needs = addresses(), Dependencies()
    settings = ServerSettings(
        listen, grace_seconds=0.0, tls=side(identity.serving()).keeper.server, reflection=True, health_listen=probed
    )
    async with running(settings, needs), grpc.aio.insecure_channel(probed) as channel:
        assert await serving(probed, LIVENESS)
        assert not await serving(probed, SERVICE)
        needs.there.set()
        assert await serving(probed, SERVICE)
        for method in ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", f"/{SERVICE}/Generate"):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await channel.unary_unary(method)(b"", timeout=5)
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_program_that_drains_says_so_at_both_ports() -> None:
    (listen, probed), needs = addresses(), Dependencies()
    needs.there.set()
    settings = ServerSettings(listen, drain_seconds=1.5, grace_seconds=0.0, health_listen=probed)
    async with grpc.aio.insecure_channel(probed) as channel:
        async with running(settings, needs):
            assert await serving(probed, SERVICE)
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE))
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            told = asyncio.create_task(watch.read())
            await asyncio.sleep(0)
        assert (await told).status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_all_addresses_of_either_kind_are_listened_on_at_both_ports() -> None:
    ports, needs = [address.rpartition(":")[2] for address in addresses()], Dependencies()
    needs.there.set()
    listen, probed = (f"[::]:{port}" for port in ports)
    hosts = ["127.0.0.1", "[::1]"] if _has_six() else ["127.0.0.1"]
    async with running(ServerSettings(listen, grace_seconds=0.0, health_listen=probed), needs):
        assert [await serving(f"{host}:{port}", SERVICE) for host in hosts for port in ports] == [True] * 2 * len(hosts)


def _has_six() -> bool:
    """Whether this machine speaks IPv6, with itself at least."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


async def test_an_address_that_is_taken_is_named_with_its_option() -> None:
    (listen, probed), needs = addresses(), Dependencies()
    async with (
        running(ServerSettings(probed, grace_seconds=0.0), Dependencies()),
        running(ServerSettings(listen, grace_seconds=0.0, health_listen=probed), needs) as second,
    ):
        with pytest.raises(ConfigurationError, match=f"--health-listen {probed}: the address is taken"):
            await second
