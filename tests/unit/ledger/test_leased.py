"""A router goes on while its store of budgets is away, within a slice, and the store knows all of it afterwards."""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from marginal.errors import BudgetExceeded, LedgerUnavailable
from marginal.ledger.leased import AWAY, JOINED, LeasedStore
from marginal.ledger.outbox import RECALL_SECONDS, Outbox
from marginal.ledger.ports import Settled, StoreAway
from marginal.ledger.retelling import EpochFile
from marginal.ledger.slices import FailureMode, Slices
from marginal.routing.holds import Ask, Budget, Grant, Scope, Window
from unit.ledger.fragile import NOW, Connection, FragileStore

BUDGET = Budget({Window.DAY: 10_000})  # its slice is 100


class Lines:
    """A log whose events can be looked at."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def info(self, event: str, **fields: Any) -> None:  # noqa: ARG002
        self.events.append(event)

    def warning(self, event: str, **fields: Any) -> None:  # noqa: ARG002
        self.events.append(event)


class ARouter:
    """What of a router matters here: a leased store, and a journal of every record."""

    def __init__(
        self,
        store: FragileStore,
        *,
        mode: FailureMode = FailureMode.LEASE,
        epoch_file: Path | None = None,
        most_records: int = 1_000,
    ) -> None:
        self.journal: dict[str, Settled] = {}
        self.later = 0.0
        self.log = Lines()
        self.leased = LeasedStore(
            Connection(store),
            self.replay,
            EpochFile(epoch_file),
            slices=Slices(mode),
            log=self.log,
            clock=lambda: NOW,
            ticks=lambda: time.monotonic() + self.later,
            outbox=Outbox(most_records=most_records),
            others_seconds=0.05,
            look_seconds=0.05,
        )

    def replay(self, since: float) -> Iterator[Sequence[Settled]]:
        yield [one for one in self.journal.values() if one.admitted_at >= since]

    async def reserve(self, name: str, *, full: int = 40, small: int = 5, budget: Budget = BUDGET) -> Grant:
        return await self.leased.reserve(Ask(name, "acme", small, full, budget), lease_seconds=60.0)

    async def settle(self, name: str, nanos: int) -> None:
        self.journal[name] = Settled(name, "acme", nanos, NOW)
        await self.leased.settle([self.journal[name]])

    async def request(self, name: str, nanos: int = 10, *, full: int = 40) -> Scope:
        grant = await self.reserve(name, full=full)
        await self.settle(name, nanos)
        return grant.scope

    @property
    def spent(self) -> int:
        return sum(one.nanos for one in self.journal.values())

    async def goes(self, *, joined: bool) -> None:
        await until(lambda: self.leased.joined is joined)


async def until(seen: Callable[[], object]) -> None:
    for _ in range(1_000):
        if seen():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not happen within 5 s")


@pytest.fixture
def store() -> FragileStore:
    return FragileStore()


async def test_while_the_store_is_there_it_decides(store: FragileStore) -> None:
    router = ARouter(store)
    async with router.leased.running():
        assert await router.request("a", full=10_000) is Scope.FULL
        assert await router.leased.drained(1.0)
        assert await store.money() == (10, 0)
        with pytest.raises(BudgetExceeded):
            await router.reserve("b", small=9_991, full=9_991)


async def test_settling_waits_for_no_store(store: FragileStore) -> None:
    router = ARouter(store)
    async with router.leased.running():
        store.seconds = 0.2
        begun = time.monotonic()
        for number in range(100):
            await router.settle(str(number), 1)
        assert time.monotonic() - begun < 0.1
        calls = store.calls
        assert await router.leased.drained(2.0)
        assert store.calls - calls < 10
    assert await store.money() == (100, 0)


async def test_a_record_is_told_for_good_when_the_store_has_it_and_a_failover_would_not_lose_it(
    store: FragileStore,
) -> None:
    router = ARouter(store, most_records=3)
    assert router.leased.told_until == 0.0
    async with router.leased.running():
        assert router.leased.told_until == 0.0  # it was told all of the journal just now
        router.later += RECALL_SECONDS + 2
        assert router.leased.told_until == NOW - RECALL_SECONDS
        await router.leased.settle([Settled("long", "acme", 1, NOW - 3_600.0)])
        assert router.leased.told_until == NOW - 3_600.0
        assert await router.leased.drained(1.0)
        assert router.leased.told_until == NOW - 3_600.0
        router.later += RECALL_SECONDS - 2
        assert router.leased.told_until == NOW - 3_600.0
        router.later += 4
        assert router.leased.told_until == NOW - RECALL_SECONDS
        store.away = True
        await router.goes(joined=False)
        assert router.leased.told_until == 0.0
        for number in range(9):
            await router.settle(str(number), 1)
        store.away = False
        await router.goes(joined=True)
        assert await router.leased.drained(1.0)
        assert router.leased.told_until == NOW - RECALL_SECONDS


async def test_the_first_who_meets_the_fault_waits_and_the_others_do_not(store: FragileStore) -> None:
    router = ARouter(store)
    async with router.leased.running():
        store.away, store.seconds = True, 0.1
        begun = time.monotonic()
        assert await router.request("first") is Scope.FULL
        first = time.monotonic() - begun
        calls = store.calls
        for number in range(50):
            await router.request(str(number), 0)
        assert 0.1 <= first < 0.2
        assert time.monotonic() - begun - first < 0.05
        assert store.calls - calls <= 1  # the probe


async def test_the_slice_is_spent_from_the_large_tier_down(store: FragileStore) -> None:
    store.away = True
    router = ARouter(store)
    async with router.leased.running():
        scopes = [(await router.reserve(str(number))).scope for number in range(6)]
        assert scopes == [Scope.FULL] * 2 + [Scope.SMALL] * 4
        with pytest.raises(LedgerUnavailable):
            await router.reserve("one more")
        assert (await router.reserve("unlimited", budget=Budget())).scope is Scope.FULL


@pytest.mark.parametrize("mode", [FailureMode.OPEN, FailureMode.CLOSED])
async def test_a_mode_may_grant_everything_or_nothing(store: FragileStore, mode: FailureMode) -> None:
    store.away = True
    router = ARouter(store, mode=mode)
    async with router.leased.running():
        if mode is FailureMode.OPEN:
            assert (await router.reserve("a", full=10**9)).scope is Scope.FULL
        else:
            with pytest.raises(LedgerUnavailable):
                await router.reserve("a", budget=Budget())


async def test_everything_of_an_outage_is_counted_once_when_it_is_over(store: FragileStore) -> None:
    router = ARouter(store)
    async with router.leased.running():
        await router.reserve("open before")
        store.away, store.does_it_all_the_same = True, True
        for number in range(8):
            await router.request(str(number))
        await router.settle("open before", 7)
        await router.leased.progress({"x": 1}, lease_seconds=60.0)
        await router.leased.acknowledge(["x"])
        store.away = False
        assert await router.leased.drained(5.0)
    assert await store.money() == (router.spent, 0)
    assert router.spent == 87


async def test_a_store_that_is_back_is_joined_even_though_more_comes_than_it_can_be_told(store: FragileStore) -> None:
    router = ARouter(store)
    async with router.leased.running():
        store.away = True
        await router.request("first", 0)

        async def flood() -> None:
            for number in itertools.count():
                await router.leased.settle([Settled(str(number), "acme", 0, NOW)])
                await asyncio.sleep(0.001)

        flooding = asyncio.create_task(flood())
        store.away, store.seconds = False, 0.02
        await router.goes(joined=True)
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)


async def test_a_request_that_was_refused_after_all_holds_nothing_at_the_store(store: FragileStore) -> None:
    router = ARouter(store)
    async with router.leased.running():
        store.away, store.does_it_all_the_same = True, True
        with pytest.raises(LedgerUnavailable):
            await router.reserve("big", small=101, full=101)
        assert await store.money() == (0, 101)
        store.away = False
        assert await router.leased.drained(5.0)
    assert await store.money() == (0, 0)


async def test_a_caller_that_gives_up_while_the_store_is_asked_holds_nothing(store: FragileStore) -> None:
    router = ARouter(store)
    async with router.leased.running():
        store.seconds = 0.1
        asking = asyncio.create_task(router.reserve("a"))
        await asyncio.sleep(0.02)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert await store.money() == (0, 40)
        assert await router.leased.drained(5.0)
    assert await store.money() == (0, 0)


async def test_one_line_when_it_goes_and_one_when_it_is_back(store: FragileStore) -> None:
    router = ARouter(store)
    async with router.leased.running():
        store.away = True
        for number in range(200):
            await router.request(str(number), 0)
        await asyncio.sleep(0.5)  # several probes
        store.away = False
        await router.goes(joined=True)
    assert router.log.events == [JOINED, AWAY, JOINED]


async def test_a_router_starts_without_the_store_and_joins_when_it_comes(store: FragileStore) -> None:
    store.away = True
    router = ARouter(store)
    async with router.leased.running():
        assert await router.request("a") is Scope.FULL
        assert router.log.events == [AWAY]
        store.away = False
        await router.goes(joined=True)
        assert await router.leased.drained(1.0)
    assert await store.money() == (10, 0)


async def test_an_idle_router_finds_out_as_well(store: FragileStore) -> None:
    router = ARouter(store)
    async with router.leased.running():
        store.away = True
        await router.goes(joined=False)


async def test_a_store_that_only_reads_is_away(store: FragileStore) -> None:
    router = ARouter(store)
    async with router.leased.running():
        store.refuses_writes = True
        await router.reserve("a")
        await asyncio.sleep(0.35)  # probes, with nothing to tell
        assert router.log.events == [JOINED, AWAY]
        await router.settle("a", 10)
        store.refuses_writes = False
        await router.goes(joined=True)
        assert await router.leased.drained(1.0)
    assert router.log.events == [JOINED, AWAY, JOINED]
    assert await store.money() == (10, 0)


async def test_questions_to_a_store_that_is_away_are_not_waited_for(store: FragileStore) -> None:
    store.away = True
    router = ARouter(store)
    async with router.leased.running():
        calls = store.calls
        for question in (router.leased.balances, router.leased.expire):
            with pytest.raises(StoreAway):
                await question()
        assert store.calls == calls


async def test_an_emptied_store_is_told_before_anything_is_reserved_there(store: FragileStore) -> None:
    router = ARouter(store)
    async with router.leased.running():
        router.journal["told long ago"] = Settled("told long ago", "acme", 1_990, NOW)
        for number in range(4):
            await router.request(str(number), 1_990)
        await router.leased.drained(1.0)
        store.restart_empty()
        assert (await router.reserve("in between")).scope is Scope.FULL  # from the slice
        await router.settle("in between", 20)
        await router.goes(joined=False)
        await router.goes(joined=True)
        assert await router.leased.drained(1.0)
        assert await store.money() == (5 * 1_990 + 20, 0)
        with pytest.raises(BudgetExceeded):
            await router.reserve("more than is left", small=31, full=31)


async def test_every_router_tells_its_own_and_one_of_them_founds(store: FragileStore) -> None:
    routers = [ARouter(store) for _ in range(3)]
    async with routers[0].leased.running(), routers[1].leased.running(), routers[2].leased.running():
        for place, router in enumerate(routers):
            for number in range(4):
                await router.request(f"{place}.{number}", 100)
            await router.leased.drained(1.0)
        store.restart_empty()
        for router in routers:
            await router.goes(joined=False)
        for router in routers:
            await router.goes(joined=True)
            assert await router.leased.drained(1.0)
    assert await store.money() == (1_200, 0)


async def test_a_restarted_router_does_not_tell_all_of_it_to_a_store_that_knows(
    store: FragileStore, tmp_path: Path
) -> None:
    first = ARouter(store, epoch_file=tmp_path / "epoch")
    async with first.leased.running():
        await first.request("a")
        await first.leased.drained(1.0)
    second = ARouter(store, epoch_file=tmp_path / "epoch")
    second.journal = {"long forgotten by the store": Settled("long forgotten by the store", "acme", 5, NOW)}
    async with second.leased.running():
        await second.goes(joined=True)
    assert await store.money() == (10, 0)


async def test_what_is_too_much_to_be_kept_is_told_from_the_journal(store: FragileStore) -> None:
    router = ARouter(store, most_records=3)
    async with router.leased.running():
        store.away = True
        await router.request("first")
        for number in range(9):
            await router.settle(str(number), 1)
        store.away = False
        await router.goes(joined=True)
        assert await router.leased.drained(1.0)
    assert await store.money() == (19, 0)


async def test_a_journal_that_cannot_be_read_leaves_the_store_away(store: FragileStore) -> None:
    class Unreadable(ARouter):
        broken = True

        def replay(self, since: float) -> Iterator[Sequence[Settled]]:
            if self.broken:
                raise OSError("gone")
            return super().replay(since)

    router = Unreadable(store)
    async with router.leased.running():
        await router.request("a")
        assert router.log.events == [AWAY]
        router.broken = False
        await router.goes(joined=True)
        assert await router.leased.drained(1.0)
    assert await store.money() == (10, 0)


async def test_a_failover_that_lost_the_last_writes_is_told_of_them(store: FragileStore) -> None:
    router = ARouter(store)
    async with router.leased.running():
        await router.request("a")
        await router.leased.drained(1.0)
        epoch = store.epoch
        store.away = True
        await router.request("b")
        store.restart_empty()  # the replica had none of it, but the epoch
        store.epoch, store.away = epoch, False
        await router.goes(joined=True)
    assert await store.money() == (20, 0)


async def test_a_drain_gives_up_after_its_time(store: FragileStore) -> None:
    store.away = True
    router = ARouter(store)
    async with router.leased.running():
        await router.settle("a", 1)
        begun = time.monotonic()
        assert not await router.leased.drained(0.1)
        assert time.monotonic() - begun < 0.3
