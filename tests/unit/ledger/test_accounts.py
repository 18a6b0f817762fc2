"""Accounts keep a store and a journal in step, and no request waits or fails for it."""

import asyncio
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from marginal.errors import BudgetExceeded, JournalFull
from marginal.ledger.accounts import AccountRules, Accounts
from marginal.ledger.conservation import differences, not_once
from marginal.ledger.journal import Journal
from marginal.ledger.memory import MemoryStore
from marginal.ledger.ports import Settled
from marginal.routing.holds import Grant, HoldState, Scope, Window
from marginal.routing.records import CostRecord, DegradedReason, Settlement
from unit.ledger.made_records import FIELDS, NOW, ask, final_in, journal_in, lines_in, record
from unit.ledger.stored import SetClock
from unit.ledger.stores import FlakyStore

QUICK = AccountRules(retry_seconds=0.01)


class Desk:
    """One router's accounts with its own journal; `shared` ones tell their store in the background."""

    def __init__(
        self, directory: Path, store: MemoryStore | None = None, *, shared: bool = False, **rules: Any
    ) -> None:
        self.clock = SetClock()
        self.store = store or FlakyStore(self.clock)
        self.directory = directory
        self.journal: Journal = journal_in(directory, **rules)
        self.told: list[CostRecord] = []
        self.accounts = Accounts(
            self.store,
            self.journal,
            fields=FIELDS,
            currency="USD",
            clock=self.clock,
            at_once=None if shared else lambda one: self.store.book.settle(one, self.clock()),
            told=self.told.append,
            rules=QUICK,
        )

    def events(self) -> list[str]:
        return [line["event"] for line in lines_in(self.directory)]

    async def held(self) -> int:
        return max((each.held_nanos for each in await self.store.balances()), default=0)

    async def committed(self) -> int:
        return max((each.committed_nanos for each in await self.store.balances()), default=0)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    opened = Desk(tmp_path)
    yield opened
    opened.journal.close()


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Desk]:
    opened = Desk(tmp_path, shared=True)
    yield opened
    opened.journal.close()


@contextmanager
def full_disk() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_request_is_written_down_before_it_spends_and_when_it_has(desk: Desk) -> None:
    grant = await desk.accounts.reserve(ask("1"))
    assert grant == Grant(1_000, Scope.FULL, NOW)
    assert desk.accounts.open_holds == 1
    assert lines_in(desk.directory) == [
        {
            "event": "admitted",
            "request_id": "1",
            "tenant": "acme",
            "at": NOW,
            "held_nanos": 1_000,
            "scope": "full",
            "policy": "default",
        }
    ]
    desk.accounts.settle(record("1", nanos=70))
    await desk.accounts.durable()
    assert desk.events() == ["admitted", "cost_record"]
    assert (desk.accounts.open_holds, await desk.held(), await desk.committed()) == (0, 0, 70)


async def test_a_request_that_is_refused_leaves_no_trace(desk: Desk) -> None:
    with pytest.raises(BudgetExceeded):
        await desk.accounts.reserve(ask("1", limit={Window.DAY: 5}))
    assert (desk.accounts.open_holds, desk.events()) == (0, [])


async def test_what_was_given_back_may_be_spent_at_once(desk: Desk) -> None:
    for number in range(5):
        await desk.accounts.reserve(ask(str(number), small=1_000, limit={Window.DAY: 1_400}))
        desk.accounts.settle(record(str(number), nanos=100))
    assert await desk.committed() == 500


async def test_a_record_counts_in_the_windows_its_hold_is_in(desk: Desk) -> None:
    await desk.accounts.reserve(ask("1"))
    desk.accounts.settle(record("1", admitted_at=NOW + 3_600))
    assert final_in(desk.directory)["1"].admitted_at == NOW
    assert not differences(final_in(desk.directory).values(), [], await desk.store.balances())


async def test_the_record_after_a_shadow_attempt_replaces_the_first(desk: Desk) -> None:
    await desk.accounts.reserve(ask("1"))
    desk.accounts.settle(record("1", nanos=70, open=True))
    assert desk.accounts.open_holds == 1
    desk.accounts.settle(record("1", nanos=500))
    assert (desk.accounts.open_holds, await desk.committed()) == (0, 500)
    assert final_in(desk.directory)["1"].nanos == 500


async def test_a_shared_store_hears_of_a_record_once_it_is_on_the_disk(shared: Desk) -> None:
    await shared.accounts.reserve(ask("1"))
    shared.accounts.settle(record("1", nanos=70))
    assert (shared.accounts.unsettled, await shared.committed()) == (1, 0)
    assert await shared.accounts.settled(5)
    assert (shared.accounts.unsettled, await shared.committed()) == (0, 70)


async def test_a_store_that_is_away_hears_of_records_when_it_is_back(shared: Desk) -> None:
    assert isinstance(shared.store, FlakyStore)
    await shared.accounts.reserve(ask("1"))
    shared.store.away = True
    shared.accounts.settle(record("1", nanos=70, open=True))
    shared.accounts.settle(record("1", nanos=80))
    assert not await shared.accounts.settled(0.05)
    shared.store.away = False
    assert await shared.accounts.settled(5)
    assert await shared.committed() == 80


async def test_the_end_waits_for_settlements(shared: Desk) -> None:
    async with shared.accounts.running():
        await shared.accounts.reserve(ask("1"))
        shared.accounts.settle(record("1", nanos=70))
    assert await shared.committed() == 70


async def test_holds_open_for_a_while_keep_their_lease_and_their_newest_mark(desk: Desk) -> None:
    await desk.accounts.reserve(ask("1"))
    await desk.accounts.reserve(ask("2"))
    await desk.accounts.keep()
    desk.accounts.progress("1", 30)
    desk.accounts.progress("1", 20)
    desk.accounts.progress("nobody", 20)
    for _ in range(3):
        desk.clock.now += 50
        await desk.accounts.keep()
    assert await desk.store.states(["1", "2"]) == {"1": HoldState.HELD, "2": HoldState.HELD}
    progressed = [line for line in lines_in(desk.directory) if line["event"] == "progress"]
    assert progressed == [{"event": "progress", "at": NOW + 50, "marks": {"1": 30}}]


async def test_an_expired_hold_of_a_dead_router_gets_one_record_and_is_acknowledged(shared: Desk) -> None:
    await shared.store.reserve(ask("dead", full=900), lease_seconds=60)
    await shared.store.reserve(ask("marked", full=900), lease_seconds=60)
    await shared.store.progress({"marked": 30}, lease_seconds=60)
    shared.clock.now += 61
    for _ in range(3):
        await shared.accounts.keep()
    assert [(one.request_id, one.reckoned_nanos, one.settlement) for one in shared.told] == [
        ("dead", 900, Settlement.EXPIRED),
        ("marked", 30, Settlement.EXPIRED),
    ]
    assert shared.events() == ["cost_record", "cost_record"]
    assert await shared.store.expire() == []
    assert not differences(final_in(shared.directory).values(), [], await shared.store.balances())


async def test_of_its_own_holds_a_router_that_was_late_still_tells_the_truth(shared: Desk) -> None:
    await shared.accounts.reserve(ask("1"))
    shared.clock.now += 61
    await shared.accounts.keep()
    assert await shared.store.states(["1"]) == {"1": HoldState.EXPIRED}
    assert shared.told == []
    shared.accounts.settle(record("1", nanos=70))
    assert await shared.accounts.settled(5)
    assert await shared.committed() == 70
    assert final_in(shared.directory)["1"].nanos == 70


async def test_a_late_truth_replaces_what_another_router_reckoned(tmp_path: Path) -> None:
    late = Desk(tmp_path / "late", shared=True)
    other = Desk(tmp_path / "other", late.store, shared=True)
    await late.accounts.reserve(ask("1"))
    late.clock.now += 61
    await other.accounts.keep()
    assert await late.committed() == 1_000
    late.accounts.settle(record("1", nanos=70))
    assert await late.accounts.settled(5)
    final = final_in(late.directory, other.directory)
    assert final["1"].nanos == 70
    assert not differences(final.values(), [], await late.store.balances())
    for each in (late, other):
        each.journal.close()


async def test_f42_while_the_disk_is_full_only_the_small_tier_is_paid_for(tmp_path: Path) -> None:
    desk = Desk(tmp_path, most_waiting=4, retry_seconds=0.01)
    async with desk.journal.running():
        with full_disk():
            first = await desk.accounts.reserve(ask("1"))
            assert first.scope is Scope.FULL
            second = await desk.accounts.reserve(ask("2"))
            assert not desk.accounts.writable
            assert second == Grant(10, Scope.SMALL, NOW, blocked=DegradedReason.LEDGER_WRITE)
            assert await desk.held() == 1_010
            desk.accounts.settle(record("1", nanos=70))
            desk.accounts.settle(record("2", nanos=5))
            await desk.accounts.durable()
            with pytest.raises(JournalFull):
                await desk.accounts.reserve(ask("3"))
        async with asyncio.timeout(5):
            while not desk.journal.writable:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.01)
        assert (await desk.accounts.reserve(ask("4"))).scope is Scope.FULL
        desk.accounts.settle(record("4", nanos=70))
        assert desk.events() == ["admitted", "admitted", "cost_record", "cost_record", "admitted", "cost_record"]
    assert not differences(final_in(tmp_path).values(), [], await desk.store.balances())


async def test_a_shared_store_does_not_know_what_is_not_on_the_disk(tmp_path: Path) -> None:
    desk = Desk(tmp_path, shared=True, retry_seconds=0.01)
    async with desk.journal.running():
        await desk.accounts.reserve(ask("1"))
        with full_disk():
            desk.accounts.settle(record("1", nanos=70))
            assert not await desk.accounts.settled(0.05)
            assert (await desk.held(), await desk.committed()) == (1_000, 0)
        assert await desk.accounts.settled(5)
        assert (await desk.held(), await desk.committed()) == (0, 70)


async def test_an_emptied_store_is_told_the_month_and_what_is_still_held(shared: Desk) -> None:
    for number in range(3):
        await shared.accounts.reserve(ask(str(number)))
        shared.accounts.settle(record(str(number), nanos=70))
    await shared.accounts.reserve(ask("open"))
    await shared.accounts.settled(5)
    emptied = MemoryStore(shared.clock)
    for batch in shared.accounts.replay(0.0):
        await emptied.settle(batch)
    assert max(each.committed_nanos for each in await emptied.balances()) == 3 * 70 + 1_000
    await emptied.settle([Settled("open", "acme", 80, NOW)])
    assert max(each.committed_nanos for each in await emptied.balances()) == 3 * 70 + 80


async def test_money_is_conserved_with_many_requests_at_once(shared: Desk) -> None:
    async def one(number: int) -> None:
        request_id = str(number)
        await shared.accounts.reserve(ask(request_id, tenant=f"tenant{number % 3}"))
        shared.accounts.progress(request_id, number)
        await asyncio.sleep(0)
        shared.accounts.settle(record(request_id, tenant=f"tenant{number % 3}", nanos=number))
        await shared.accounts.durable()

    async with shared.journal.running(), shared.accounts.running():
        await asyncio.gather(*(one(number) for number in range(300)))
    final = final_in(shared.directory)
    assert not differences(final.values(), [], await shared.store.balances())
    assert not not_once(map(str, range(300)), final)
