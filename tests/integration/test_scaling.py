"""KEDA's view of a router: a tier at zero is woken by a push, and what is wanted is told as numbers."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import grpc
import pytest

from contract.subjects import Untraced
from engines.valkey import ValkeyProcess
from integration.served import served
from integration.test_replicas import free_port, replica
from marginal.backends.scripted import Script
from marginal.entrypoints.scaling import KEPT_SECONDS, DemandBoard, Scaling
from marginal.ledger.ports import StoreAway
from marginal.ledger.valkey import ValkeyStore
from marginal.ledger.valkey_link import open_client
from marginal.routing.policies import DegradeRules
from marginal.routing.tiers import TierState
from marginal.tokens import Tier
from marginal.transport.guard import Guard
from marginal.transport.remote_model import connected
from marginal.transport.scaler import demand_at, serving_scaler
from marginal.transport.targets import Discovery, Push
from marginal.v1 import externalscaler_pb2 as keda
from marginal.v1 import router_pb2
from marginal.v1.externalscaler_pb2_grpc import ExternalScalerStub
from unit.routing.cascade import INPUT_TOKENS, SURE, UNSURE, Cascade, script
from unit.telemetry.spans import MemoryLog

LARGE = keda.ScaledObjectRef(name="large", namespace="llm", scalerMetadata={"tier": "large"})
SMALL = keda.ScaledObjectRef(name="small", namespace="llm", scalerMetadata={"tier": "small", "target": "2.5"})


LONG = Script(SURE * 100, input_tokens=INPUT_TOKENS, delay_seconds=0.5)


@dataclass
class Scaled:
    """A scaler on a real port, its stub, and what is behind it."""

    address: str
    stub: ExternalScalerStub
    scaling: Scaling


@asynccontextmanager
async def scaled(cascade: Cascade, *boards: DemandBoard, scaling: Scaling | None = None) -> AsyncIterator[Scaled]:
    scaling = scaling or Scaling(time.monotonic, MemoryLog().logs.log)
    address = f"127.0.0.1:{free_port()}"
    guard = Guard(Untraced(), max_calls=8, trust_baggage=False)
    async with AsyncExitStack() as stack:
        for board in boards:
            await stack.enter_async_context(scaling.sharing(board))
        await stack.enter_async_context(scaling.watching(cascade.tiers))
        await stack.enter_async_context(serving_scaler(address, scaling, guard=guard))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
        yield Scaled(address, ExternalScalerStub(channel), scaling)


class Pods:
    """The discovery of a tier whose pods come and go as the test says."""

    def __init__(self) -> None:
        self.push: Push | None = None

    async def follow(self, push: Push) -> None:
        self.push = push
        push(frozenset())
        await asyncio.Event().wait()

    def are_now(self, *addresses: str) -> None:
        assert self.push is not None
        self.push(frozenset(addresses))


async def test_a_deferral_wakes_a_large_tier_at_zero_and_gets_its_answer() -> None:
    cascade, pods, port = Cascade(small=script(UNSURE), degrade=DegradeRules(wake_seconds=20.0)), Pods(), free_port()
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(connected("large", found=Discovery(pods.follow)))
        cascade.tiers[Tier.LARGE] = TierState(Tier.LARGE, pool, presence=pool.presence)  # type: ignore[index]
        keda_sees = await stack.enter_async_context(scaled(cascade))
        router = await stack.enter_async_context(served(cascade))
        pushes = keda_sees.stub.StreamIsActive(LARGE)
        assert (await pushes.read()).result is False

        began = time.monotonic()
        asked = router_pb2.RouterServiceGenerateRequest(prompt="who knows?")
        asking = asyncio.create_task(router.call(asked, timeout=30.0))
        assert (await pushes.read()).result is True
        pushed = time.monotonic() - began
        assert pool.presence.waiting == 1
        assert (await keda_sees.stub.IsActive(LARGE)).result is True
        pod = await stack.enter_async_context(replica("127.0.0.1", port))
        pods.are_now(pod.address)

        *texts, last = await asking
        assert "".join(event.text.text for event in texts) == "0 1 2 "
        assert last.final.tier == router_pb2.TIER_LARGE
        assert not last.final.degraded_reason
        assert pushed < 0.1


async def test_a_caller_without_patience_wakes_the_tier_for_those_after_it() -> None:
    cascade, pods = Cascade(small=script(UNSURE)), Pods()
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(connected("large", found=Discovery(pods.follow)))
        cascade.tiers[Tier.LARGE] = TierState(Tier.LARGE, pool, presence=pool.presence)  # type: ignore[index]
        keda_sees = await stack.enter_async_context(scaled(cascade))
        pushes = keda_sees.stub.StreamIsActive(LARGE)
        assert (await pushes.read()).result is False
        record = await cascade.ask()
        assert record.degraded is not None
        assert (await pushes.read()).result is True


async def test_what_is_wanted_is_a_number_per_tier() -> None:
    cascade = Cascade(small=script(delay=0.8))
    async with scaled(cascade) as keda_sees:
        asking = [asyncio.create_task(cascade.ask()) for _ in range(3)]
        await asyncio.sleep(0.6)
        metrics = await keda_sees.stub.GetMetrics(keda.GetMetricsRequest(scaledObjectRef=SMALL))
        [value] = metrics.metricValues
        assert value.metricName == "marginal-small-demand"
        assert 0.0 < value.metricValueFloat <= 3.0
        assert keda_sees.scaling.active(Tier.SMALL)
        assert await demand_at(keda_sees.address, Tier.SMALL) == pytest.approx(value.metricValueFloat, rel=0.5)
        assert await demand_at(keda_sees.address, Tier.LARGE) == 0.0
        await asyncio.gather(*asking)


async def test_a_trigger_says_which_tier_and_how_much_one_replica_is_for() -> None:
    async with scaled(Cascade()) as keda_sees:
        [small] = (await keda_sees.stub.GetMetricSpec(SMALL)).metricSpecs
        assert (small.metricName, small.targetSizeFloat) == ("marginal-small-demand", 2.5)
        [streamed] = (await keda_sees.stub.StreamMetricSpec(SMALL).read()).metricSpecs
        assert streamed == small
        [large] = (await keda_sees.stub.GetMetricSpec(LARGE)).metricSpecs
        assert large.targetSizeFloat > 0.0


@pytest.mark.parametrize(
    "metadata", [{}, {"tier": "medium"}, {"tier": "small", "target": "many"}, {"tier": "small", "target": "0"}]
)
async def test_a_trigger_that_makes_no_sense_is_refused(metadata: dict[str, str]) -> None:
    async with scaled(Cascade()) as keda_sees:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await keda_sees.stub.GetMetricSpec(keda.ScaledObjectRef(scalerMetadata=metadata))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_routers_that_share_a_store_answer_for_all_of_them() -> None:
    busy, idle = Cascade(small=script(UNSURE, delay=4.0)), Cascade()
    with ValkeyProcess() as server:
        async with (
            ValkeyStore(open_client(server.url)) as first,
            ValkeyStore(open_client(server.url)) as second,
            scaled(busy, first),
            scaled(idle, second) as keda_sees,
        ):
            pushes = keda_sees.stub.StreamIsActive(SMALL)
            assert (await pushes.read()).result is False
            asking = [asyncio.create_task(busy.ask()) for _ in range(5)]
            began = time.monotonic()
            assert (await pushes.read()).result is True
            assert time.monotonic() - began < 2.0
            assert 0.0 < keda_sees.scaling.demand(Tier.SMALL) <= 5.0
            for one in asking:
                one.cancel()
            await asyncio.gather(*asking, return_exceptions=True)


async def test_a_router_that_says_nothing_any_more_is_forgotten() -> None:
    now = 1_000.0
    with ValkeyProcess() as server:
        async with ValkeyStore(open_client(server.url), now=lambda: now) as store:
            assert await store.exchange_demand("a", "one") == []
            assert await store.exchange_demand("b", "two") == ["one"]
            now += 14.0
            assert await store.exchange_demand("b", "three") == ["one"]
            now += 2.0
            assert await store.exchange_demand("b", "three") == []
            assert await store.exchange_demand("a", "back") == ["three"]


@dataclass
class Leaping:
    """The time of this machine, and as much more as the test says."""

    ahead: float = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


async def wanted(scaled: Scaled, least: float, most: float) -> float:
    """The demand for the small tier as KEDA is told, once it is in this range; fails after some seconds."""
    asked = keda.GetMetricsRequest(scaledObjectRef=SMALL)
    async with asyncio.timeout(10.0):
        while True:
            [value] = (await scaled.stub.GetMetrics(asked)).metricValues
            if least <= value.metricValueFloat <= most:
                return value.metricValueFloat
            await asyncio.sleep(0.1)


async def test_a_store_that_is_away_scales_nothing_down_until_what_is_known_is_too_old() -> None:
    busy, idle, clock, log = Cascade(small=LONG), Cascade(), Leaping(), MemoryLog()
    with ValkeyProcess() as server:
        async with (
            ValkeyStore(open_client(server.url)) as first,
            ValkeyStore(open_client(server.url)) as second,
            scaled(busy, first),
            scaled(idle, second, scaling=Scaling(clock, log.logs.log)) as keda_sees,
        ):
            asking = [asyncio.create_task(busy.ask(seconds=300.0)) for _ in range(12)]
            await wanted(keda_sees, 11.9, 12.1)
            server.stop()
            for _ in range(14):
                await asyncio.sleep(0.5)
                assert keda_sees.scaling.demand(Tier.SMALL) == pytest.approx(12.0, abs=0.1)
            server.start()  # with nothing in it: it has no file
            for _ in range(12):
                await asyncio.sleep(0.25)
                assert keda_sees.scaling.demand(Tier.SMALL) == pytest.approx(12.0, abs=0.1)
            server.stop()
            await asyncio.sleep(1.0)
            clock.ahead = KEPT_SECONDS
            await wanted(keda_sees, 0.0, 0.1)
            server.start()
            await wanted(keda_sees, 11.9, 12.1)
            for one in asking:
                one.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
    assert [line["event"] for line in log.events() if line["level"] == "warning"] == [
        "the demand of other routers is not known now",
        "the demand of other routers is not known now",
        "the last known demand of other routers is dropped",
    ]


async def test_rubbish_on_the_board_is_passed_over_and_the_others_still_count() -> None:
    busy, idle, log = Cascade(small=LONG), Cascade(), MemoryLog()
    with ValkeyProcess() as server:
        async with (
            ValkeyStore(open_client(server.url)) as first,
            ValkeyStore(open_client(server.url)) as second,
            ValkeyStore(open_client(server.url)) as third,
            scaled(busy, first),
            scaled(idle, second, scaling=Scaling(time.monotonic, log.logs.log)) as keda_sees,
        ):
            await third.exchange_demand("newer", "2 requests")
            with server.client() as client:
                client.hset("{marginal}:demand", "older", "12")
            asking = [asyncio.create_task(busy.ask(seconds=300.0)) for _ in range(12)]
            await wanted(keda_sees, 11.9, 12.1)
            with server.client() as client:
                assert "newer" in client.hkeys("{marginal}:demand")
                assert "older" not in client.hkeys("{marginal}:demand")
            for one in asking:
                one.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
    [line] = log.events()
    assert (line["event"], line["routers"]) == ("the demand of other routers cannot be read", 1)


class BrokenBoard:
    """A board with a mistake of ours in it, until it is mended."""

    def __init__(self) -> None:
        self.broken = True

    async def exchange_demand(self, router: str, text: str) -> list[str]:  # noqa: ARG002
        if self.broken:
            raise RuntimeError("nobody thought of this")
        return ['{"small": 7.0, "large": 0.0}']


async def test_an_error_that_nobody_thought_of_does_not_end_the_exchange() -> None:
    log, board = MemoryLog(), BrokenBoard()
    scaling = Scaling(time.monotonic, log.logs.log)
    async with scaling.sharing(board), scaled(Cascade(), scaling=scaling) as keda_sees:
        await asyncio.sleep(1.2)
        board.broken = False
        assert await wanted(keda_sees, 6.9, 7.1)
    [line] = [line for line in log.events() if line["level"] == "warning"]
    assert line["exception"] == line["because"] == "RuntimeError"


class AwayBoard:
    """A store that cannot be reached."""

    async def exchange_demand(self, router: str, text: str) -> list[str]:  # noqa: ARG002
        raise StoreAway("the budget store did not answer in time")


async def test_without_the_store_a_router_answers_for_itself() -> None:
    log, cascade = MemoryLog(), Cascade(small=script(delay=1.0))
    scaling = Scaling(time.monotonic, log.logs.log)
    async with scaling.sharing(AwayBoard()), scaled(cascade, scaling=scaling):
        asking = asyncio.create_task(cascade.ask())
        await asyncio.sleep(0.7)
        assert scaling.demand(Tier.SMALL) > 0.0
        await asking
    told = [line["event"] for line in log.events() if line["level"] == "warning"]
    assert told == ["the demand of other routers is not known now"]
