"""What a model at the other end of a channel is, while that end hangs, leaves, or was never found."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
import pytest

from marginal.errors import TierUnavailable
from marginal.tokens import ModelDescription
from marginal.transport import model_messages
from marginal.transport.remote_model import connected
from marginal.transport.targets import Discovery, Push
from marginal.v1 import model_pb2, model_pb2_grpc


class Service(model_pb2_grpc.ModelServiceServicer):
    """A model service that says what it is, once it is let go."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.goes_on = asyncio.Event()
        self.fails = False

    async def GetModel(  # noqa: N802
        self,
        request: model_pb2.GetModelRequest,  # noqa: ARG002
        context: grpc.aio.ServicerContext,
    ) -> model_pb2.GetModelResponse:
        self.asked.set()
        await self.goes_on.wait()
        if self.fails:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "going away")
        return model_messages.description_to_proto(ModelDescription("tiny", 256, 5))


class Pods:
    """A discovery that finds what it is told."""

    def __init__(self, *first: str) -> None:
        self._sets: asyncio.Queue[frozenset[str]] = asyncio.Queue()
        self.are_now(*first)

    def are_now(self, *addresses: str) -> None:
        self._sets.put_nowait(frozenset(addresses))

    async def follow(self, push: Push) -> None:
        while True:
            push(await self._sets.get())


@asynccontextmanager
async def served(*services: Service) -> AsyncIterator[list[str]]:
    addresses = []
    async with AsyncExitStack() as stack:
        for service in services:
            server = grpc.aio.server()
            model_pb2_grpc.add_ModelServiceServicer_to_server(service, server)
            addresses.append(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
            await server.start()
            stack.push_async_callback(server.stop, None)
        yield addresses


async def test_a_replica_that_leaves_while_it_is_asked_what_it_is_is_an_unavailable_tier() -> None:
    service = Service()
    async with served(service) as [address]:
        pods = Pods(address)
        async with connected("small", found=Discovery(pods.follow)) as pool:
            describing = asyncio.create_task(pool.describe())
            await service.asked.wait()
            pods.are_now()
            with pytest.raises(TierUnavailable):
                await describing


async def test_whoever_does_not_want_to_know_any_more_is_not_told_of_a_fault() -> None:
    service = Service()
    async with served(service) as [address], connected(address) as pool:
        describing = asyncio.create_task(pool.describe())
        await service.asked.wait()
        describing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await describing


async def test_a_replica_that_left_before_its_turn_is_not_asked_in_place_of_one_that_fails() -> None:
    first, second = Service(), Service()
    async with served(first, second) as addresses:
        pods = Pods(*addresses)
        async with connected("small", found=Discovery(pods.follow)) as pool:
            describing = asyncio.create_task(pool.describe())
            asked, left = await either(first, second)
            pods.are_now(addresses[(first, second).index(asked)])
            asked.fails = True
            asked.goes_on.set()
            with pytest.raises(TierUnavailable):
                await describing
            assert not left.asked.is_set()


async def either(first: Service, second: Service) -> tuple[Service, Service]:
    """The one that is asked, and the other."""
    waiting = {asyncio.create_task(one.asked.wait()): one for one in (first, second)}
    done, others = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in others:
        task.cancel()
    asked = waiting[done.pop()]
    return asked, second if asked is first else first


async def test_a_closed_connection_is_an_unavailable_tier() -> None:
    async with served(Service()) as [address]:
        async with connected(address) as pool:
            pass
        with pytest.raises(TierUnavailable):
            await pool.describe()


async def test_one_that_hangs_is_passed_over_by_whoever_asks_what_the_model_is() -> None:
    hanging, well = Service(), Service()
    well.goes_on.set()
    async with served(hanging, well) as addresses:
        pods = Pods(addresses[0])
        async with connected("small", found=Discovery(pods.follow)) as pool:
            describing = asyncio.create_task(pool.describe())
            await hanging.asked.wait()
            pods.are_now(*addresses)
            assert (await describing).name == "tiny"


async def test_a_discovery_that_ends_by_a_fault_is_told_at_once_and_raised_in_the_end() -> None:
    async def broken(push: Push) -> None:
        push(frozenset())
        raise LookupError("nobody knows")

    lost = asyncio.Event()
    with pytest.raises(LookupError, match="nobody knows"):
        async with connected("small", found=Discovery(broken), lost=lost.set), asyncio.timeout(5):
            await lost.wait()


async def test_addresses_that_are_all_known_are_no_fault() -> None:
    lost = asyncio.Event()
    async with connected("127.0.0.1:1,127.0.0.1:2", lost=lost.set) as pool:
        await asyncio.sleep(0.01)
        assert len(pool.under_way()) == 2
    assert not lost.is_set()
