"""Where a request goes when a tier has several replicas, that come, fail and leave."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from marginal.errors import MarginalError, Overloaded, TierUnavailable
from marginal.tokens import Chunk, FinishReason, Generation, Message, ModelDescription, Role, Token, Usage
from marginal.transport.remote_pool import CONNECT_SECONDS, LOOK_SECONDS, TOGETHER_SECONDS, RemotePool

ASKED = Generation(messages=(Message(Role.USER, "hello"),))


class Replica:
    """A replica that answers one token, waits to be let go, and ends; or fails as it is told to."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ready = True
        self.fault: MarginalError | None = None
        self.fault_after: MarginalError | None = None
        self.goes_on = asyncio.Event()
        self.calls = 0
        self.closed = False

    async def describe(self) -> ModelDescription:
        if self.fault:
            raise self.fault
        return ModelDescription(self.name, 256, 5)

    async def generate(
        self,
        generation: Generation,  # noqa: ARG002
        *,
        timeout: float | None = None,  # noqa: ARG002
    ) -> AsyncGenerator[Chunk, None]:
        self.calls += 1
        if self.fault:
            raise self.fault
        yield Chunk((Token(self.name, 0.0),), Usage(1, 1))
        if self.fault_after:
            raise self.fault_after
        await self.goes_on.wait()
        yield Chunk((), Usage(1, 1), FinishReason.STOP)

    async def close(self) -> None:
        self.closed = True


class Tier:
    """A pool, and the replicas it has dialled by their addresses."""

    def __init__(self, *addresses: str) -> None:
        self.replicas: dict[str, Replica] = {}
        self.unconnected = False
        self.pool = RemotePool(self._dial)
        if addresses:
            self.are_now(*addresses)

    def __getitem__(self, address: str) -> Replica:
        return self.replicas[address]

    def are_now(self, *addresses: str) -> None:
        self.pool.are_now(frozenset(addresses))

    def _dial(self, address: str) -> Replica:
        self.replicas[address] = Replica(address)
        self.replicas[address].ready = not self.unconnected
        return self.replicas[address]

    async def begin(self, *, timeout: float | None = 5.0) -> "Stream":
        stream = Stream(self.pool.generate(ASKED, timeout=timeout))
        stream.by = (await anext(stream.chunks)).tokens[0].text
        return stream


class Stream:
    """A stream under way, and who answers it."""

    def __init__(self, chunks: AsyncGenerator[Chunk, None]) -> None:
        self.chunks = chunks
        self.by = ""

    async def end(self) -> None:
        await self.chunks.aclose()


async def test_a_request_goes_to_the_replica_with_the_fewest_streams() -> None:
    tier = Tier("a", "b")
    first, second, third = [await tier.begin() for _ in range(3)]
    assert {first.by, second.by} == {"a", "b"}
    await second.end()
    assert (await tier.begin()).by == second.by
    assert sorted(tier.pool.under_way().values()) == [1, 2]
    await third.end()


async def test_among_equals_the_one_that_was_asked_last_waits_longest() -> None:
    tier, asked = Tier("a", "b", "c"), []
    for _ in range(6):
        stream = await tier.begin()
        asked.append(stream.by)
        await stream.end()
    assert asked[:3] == asked[3:]
    assert set(asked) == {"a", "b", "c"}


async def test_a_replica_that_is_not_ready_gets_nothing_while_another_is() -> None:
    tier = Tier("a", "b")
    tier["a"].ready = False
    assert {(await tier.begin()).by for _ in range(4)} == {"b"}
    tier["b"].ready = False
    assert (await tier.begin()).by == "a"


@pytest.mark.parametrize("fault", [TierUnavailable("gone"), Overloaded("full")])
async def test_one_that_fails_before_its_first_token_is_passed_over(fault: MarginalError) -> None:
    tier = Tier("a", "b")
    tier["a"].fault = fault
    assert [(await tier.begin()).by for _ in range(4)] == ["b"] * 4
    assert tier["a"].calls >= 1


async def test_one_that_was_unreachable_is_left_alone_for_a_moment() -> None:
    tier = Tier("a", "b")
    tier["a"].fault = TierUnavailable("gone")
    for _ in range(8):
        await tier.begin()
    assert tier["a"].calls == 1


async def test_after_the_first_token_nobody_else_is_asked() -> None:
    tier = Tier("a", "b")
    for replica in tier.replicas.values():
        replica.fault_after = TierUnavailable("died")
    stream = await tier.begin()
    with pytest.raises(TierUnavailable, match="died"):
        await anext(stream.chunks)
    assert sum(replica.calls for replica in tier.replicas.values()) == 1
    assert set(tier.pool.under_way().values()) == {0}


async def test_when_all_fail_the_last_fault_is_told_after_three_tries() -> None:
    tier = Tier("a", "b", "c", "d")
    for replica in tier.replicas.values():
        replica.fault = Overloaded("full")
    with pytest.raises(Overloaded, match="full"):
        await tier.begin()
    assert sum(replica.calls for replica in tier.replicas.values()) == 3


async def test_one_that_leaves_keeps_its_streams_and_gets_no_new_ones() -> None:
    tier = Tier("a", "b")
    streams = [await tier.begin() for _ in range(2)]
    tier.are_now("b")
    assert {(await tier.begin()).by for _ in range(3)} == {"b"}
    assert not tier["a"].closed
    on_a = next(stream for stream in streams if stream.by == "a")
    tier["a"].goes_on.set()
    assert (await anext(on_a.chunks)).finish is FinishReason.STOP
    await on_a.end()
    await asyncio.sleep(0)
    assert tier["a"].closed
    assert set(tier.pool.under_way()) == {"b"}


async def test_one_that_comes_back_before_its_last_stream_ended_is_not_dialled_again() -> None:
    tier = Tier("a")
    stream, before = await tier.begin(), tier["a"]
    tier.are_now()
    tier.are_now("a")
    assert (await tier.begin()).by == "a"
    assert tier["a"] is before
    await stream.end()
    assert not before.closed


async def test_a_tier_at_zero_is_unavailable_and_says_so() -> None:
    tier = Tier("a")
    tier.are_now()
    assert not tier.pool.presence.anyone
    with pytest.raises(TierUnavailable, match="no replica of it is there"):
        await tier.begin()
    with pytest.raises(TierUnavailable):
        await tier.pool.describe()
    tier.are_now("b")
    await tier.pool.presence.come(1.0)
    assert tier.pool.presence.anyone
    assert (await tier.begin()).by == "b"


async def test_those_who_wait_for_a_tier_at_zero_go_on_when_they_can_be_heard_and_not_before() -> None:
    tier = Tier("a")
    tier.are_now()
    waiting = asyncio.create_task(tier.pool.presence.come(2.0))
    await asyncio.sleep(0)
    tier.unconnected = True
    tier.are_now("b")
    await asyncio.sleep(5 * LOOK_SECONDS)
    assert not tier.pool.presence.anyone
    tier.are_now("b", "c")
    tier["c"].ready = True
    await waiting
    assert tier.pool.presence.anyone
    assert (await tier.begin()).by == "c"


async def test_replicas_that_come_together_share_those_who_waited_for_the_first() -> None:
    tier = Tier("a")
    tier.are_now()

    async def waited() -> str:
        await tier.pool.presence.come(2.0)
        return (await tier.begin()).by

    waiting = [asyncio.create_task(waited()) for _ in range(10)]
    await asyncio.sleep(0)
    tier.unconnected = True
    tier.are_now("b", "c")
    tier["b"].ready = True
    await asyncio.sleep(3 * LOOK_SECONDS)
    tier["c"].ready = True
    answered = await asyncio.gather(*waiting)
    assert (answered.count("b"), answered.count("c")) == (5, 5)


async def test_one_that_cannot_be_connected_keeps_nobody_long_from_another() -> None:
    tier = Tier("a")
    tier.are_now()
    tier.unconnected = True
    now = asyncio.get_running_loop().time
    tier.are_now("b", "c")
    tier["b"].ready = True
    began = now()
    await tier.pool.presence.come(CONNECT_SECONDS)
    assert TOGETHER_SECONDS / 2 < now() - began < CONNECT_SECONDS / 2
    assert (await tier.begin()).by == "b"


async def test_a_replica_that_leaves_before_it_was_connected_leaves_nobody() -> None:
    tier = Tier("a")
    tier.are_now()
    tier.unconnected = True
    tier.are_now("b")
    tier.are_now()
    tier["b"].ready = True
    await asyncio.sleep(5 * LOOK_SECONDS)
    assert not tier.pool.presence.anyone


async def test_a_replica_that_cannot_be_connected_is_asked_all_the_same_in_the_end() -> None:
    tier = Tier("a")
    tier.are_now()
    tier.unconnected = True
    tier.are_now("b")
    await tier.pool.presence.come(CONNECT_SECONDS + 2.0)
    assert tier.pool.presence.anyone


async def test_the_first_word_on_where_it_is_is_waited_for_within_the_deadline() -> None:
    tier = Tier()
    with pytest.raises(TierUnavailable, match="not been found out yet"):
        await tier.begin(timeout=0.01)
    beginning = asyncio.create_task(tier.begin())
    await asyncio.sleep(0)
    tier.are_now("a")
    assert (await beginning).by == "a"


async def test_whoever_can_says_what_the_model_is() -> None:
    tier = Tier("a", "b")
    tier["a"].fault = TierUnavailable("gone")
    assert (await tier.pool.describe()).name == "b"


async def test_closing_a_stream_closes_the_one_below() -> None:
    tier = Tier("a")
    async with aclosing(tier.pool.generate(ASKED)) as chunks:
        await anext(chunks)
        assert tier.pool.under_way() == {"a": 1}
    assert tier.pool.under_way() == {"a": 0}
    await tier.pool.close()
    assert tier["a"].closed
