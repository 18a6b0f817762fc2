"""A router that starts again goes on where its last life ended: budgets continue, the dead are charged once."""

import random
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from engines.valkey import ValkeyProcess
from marginal.ledger.accounts import Accounts
from marginal.ledger.conservation import differences, not_once
from marginal.ledger.journal import Journal
from marginal.ledger.memory import MemoryStore
from marginal.ledger.ports import Settled, Store
from marginal.ledger.recovery import Recovery
from marginal.routing.holds import HoldState
from marginal.routing.records import CostRecord, Settlement
from unit.ledger.made_records import FIELDS, NOW, ask, final_in, journal_in, lines_in, record
from unit.ledger.stored import SetClock, open_store
from unit.ledger.stores import Crash, DeafStore, FlakyStore, Steps

DAY = 86_400.0
TESTS = Path(__file__).parents[2]


class Life:
    """One life of a router, over the journal that its lives share; its memory store dies with it, a shared one not."""

    def __init__(
        self,
        directory: Path,
        shared: Store | None = None,
        *,
        clock: SetClock | None = None,
        journal: Journal | None = None,
    ) -> None:
        self.clock = clock or SetClock()
        own = FlakyStore(self.clock)
        self.store = shared or own
        self.journal = journal or journal_in(directory)
        self.told: list[CostRecord] = []

        def at_once(settled: Settled) -> None:
            own.book.settle(settled, self.clock())

        self.accounts = Accounts(
            self.store,
            self.journal,
            fields=FIELDS,
            currency="USD",
            clock=self.clock,
            at_once=None if shared else at_once,
            told=self.told.append,
        )

    async def dies_of_three(self) -> None:
        """Settles one request, and dies while another has a mark, a third none and a fourth only its shadow left."""
        for request_id in ("done", "marked", "bare", "shadowed"):
            await self.accounts.reserve(ask(request_id))
        self.accounts.settle(record("done", nanos=70))
        await self.accounts.keep()
        self.accounts.settle(record("shadowed", nanos=20, open=True))
        self.accounts.progress("marked", 30)
        await self.accounts.keep()
        await self.accounts.settled(5)
        self.journal.close()


DEATHS = {"done": 70, "marked": 30, "bare": 1_000, "shadowed": 1_000}
"""What each of them is charged: as counted, the last mark, or all that was held."""


def nanos_of(directory: Path) -> Mapping[str, int]:
    return {request_id: one.nanos for request_id, one in final_in(directory).items()}


async def bury(directory: Path, store: Store, clock: SetClock) -> None:
    """Another router's keeper looks after the dead, once."""
    life = Life(directory, store, clock=clock)
    await life.accounts.keep()
    life.journal.close()


async def committed(store: Any) -> int:
    return max((each.committed_nanos for each in await store.balances()), default=0)


async def test_budgets_of_a_memory_store_continue_and_the_dead_are_charged(tmp_path: Path) -> None:
    await Life(tmp_path).dies_of_three()
    life = Life(tmp_path)
    recovery = await life.accounts.recover()
    assert recovery == Recovery(7, 0, settled=1, recovered=["marked", "bare", "shadowed"], recovered_nanos=2_030)
    assert nanos_of(tmp_path) == DEATHS
    assert [(one.request_id, one.settlement) for one in life.told] == [
        ("marked", Settlement.RECOVERED),
        ("bare", Settlement.RECOVERED),
    ]
    assert not differences(final_in(tmp_path).values(), [], await life.store.balances())
    assert await committed(life.store) == sum(DEATHS.values())
    life.journal.close()


async def test_the_record_of_a_dead_request_says_how_it_was_reckoned(tmp_path: Path) -> None:
    await Life(tmp_path).dies_of_three()
    life = Life(tmp_path)
    await life.accounts.recover()
    life.journal.close()
    by_id = {line["request_id"]: line for line in lines_in(tmp_path) if line["event"] == "cost_record"}
    bare, shadowed = by_id["bare"], by_id["shadowed"]
    assert (bare["settlement"], bare["error"], bare["policy"]) == ("recovered", "RouterLost", "default")
    assert (bare["total_nanos"], bare["wasted_nanos"], bare["admitted_at"]) == (1_000, 1_000, NOW)
    assert (shadowed["settlement"], shadowed["error"], len(shadowed["attempts"])) == ("recovered", None, 1)
    assert (shadowed["total_nanos"], shadowed["wasted_nanos"], shadowed["open"]) == (1_000, 980, False)


async def test_a_second_start_finds_nothing_to_recover_and_the_same_sums(tmp_path: Path) -> None:
    await Life(tmp_path).dies_of_three()
    for recovered in (3, 0, 0):
        life = Life(tmp_path)
        assert len((await life.accounts.recover()).recovered) == recovered
        assert await committed(life.store) == sum(DEATHS.values())
        life.journal.close()
    assert nanos_of(tmp_path) == DEATHS


async def test_a_shared_store_says_what_the_dead_are_charged(tmp_path: Path) -> None:
    clock = SetClock()
    store = FlakyStore(clock)
    await Life(tmp_path, store, clock=clock).dies_of_three()
    await store.progress({"bare": 40}, lease_seconds=60)
    life = Life(tmp_path, store, clock=clock)
    await life.accounts.recover()
    assert nanos_of(tmp_path) == DEATHS | {"bare": 40}
    assert not differences(final_in(tmp_path).values(), [], await store.balances())
    assert await store.expire() == []
    life.journal.close()


async def test_while_a_shared_store_is_away_the_journal_says_it(tmp_path: Path) -> None:
    clock = SetClock()
    store = FlakyStore(clock)
    await Life(tmp_path, store, clock=clock).dies_of_three()
    life = Life(tmp_path, DeafStore(clock), clock=clock)
    await life.accounts.recover()
    for batch in life.accounts.replay(0.0):
        await store.settle(batch)
    life.journal.close()
    assert nanos_of(tmp_path) == DEATHS
    assert not differences(final_in(tmp_path).values(), [], await store.balances())


async def test_what_another_router_reckoned_of_the_dead_is_replaced_in_the_store_as_well(tmp_path: Path) -> None:
    clock = SetClock()
    store = FlakyStore(clock)
    await Life(tmp_path / "mine", store, clock=clock).dies_of_three()
    clock.now += 61
    other = Life(tmp_path / "other", store, clock=clock)
    await other.accounts.keep()
    assert set(final_in(tmp_path / "other")) == {"marked", "bare"}
    again = Life(tmp_path / "mine", store, clock=clock)
    await again.accounts.recover()
    final = final_in(tmp_path / "mine", tmp_path / "other")
    assert {one.request_id: one.nanos for one in final.values()} == DEATHS
    assert not differences(final.values(), [], await store.balances())
    for life in (other, again):
        life.journal.close()


async def test_only_records_of_the_month_are_told_to_a_memory_store(tmp_path: Path) -> None:
    first = Life(tmp_path)
    for request_id, days in (("old", 30), ("new", 20)):
        first.accounts.settle(record(request_id, admitted_at=NOW - days * DAY))
    first.journal.close()
    life = Life(tmp_path)
    assert (await life.accounts.recover()).settled == 1
    life.journal.close()


async def test_a_shared_store_is_told_again_of_what_it_still_knows_by_its_id(tmp_path: Path) -> None:
    clock = SetClock()
    store = FlakyStore(clock)
    first = Life(tmp_path, store, clock=clock)
    for request_id, hours in (("old", 48), ("new", 46)):
        first.accounts.settle(record(request_id, admitted_at=NOW - hours * 3_600))
    await first.accounts.settled(5)
    first.journal.close()
    life = Life(tmp_path, store, clock=clock)
    assert (await life.accounts.recover()).settled == 1
    life.journal.close()


async def test_a_dead_request_of_long_ago_still_gets_its_record(tmp_path: Path) -> None:
    await Life(tmp_path).dies_of_three()
    clock = SetClock()
    clock.now += 100 * DAY
    life = Life(tmp_path, clock=clock)
    await life.accounts.recover()
    life.journal.close()
    assert nanos_of(tmp_path) == DEATHS


async def test_a_shared_store_that_has_charged_a_dead_request_and_forgotten_it_is_not_told_again(
    tmp_path: Path,
) -> None:
    clock = SetClock()
    first = Life(tmp_path, FlakyStore(clock), clock=clock)
    await first.accounts.reserve(ask("dead"))
    first.journal.close()
    clock.now += 3 * DAY
    forgetful = MemoryStore(clock)
    life = Life(tmp_path, forgetful, clock=clock)
    assert (await life.accounts.recover()).recovered == ["dead"]
    assert await committed(forgetful) == 0
    life.journal.close()


@pytest.mark.parametrize("kind", ["memory", "valkey"])
async def test_two_routers_die_in_turn_over_one_store_and_money_is_conserved(
    tmp_path: Path, kind: str, valkey_server: ValkeyProcess
) -> None:
    clock = SetClock()
    async with AsyncExitStack() as closing:
        store = await open_store(kind, clock, valkey_server, closing)
        for name in ("left", "right", "left", "right", "left"):
            life = Life(tmp_path / name, store, clock=clock)
            await life.accounts.recover()
            for number in range(20):
                request_id = f"{name}-{clock.now:.0f}-{number}"
                await life.accounts.reserve(ask(request_id))
                life.accounts.progress(request_id, number)
                if number % 3:
                    life.accounts.settle(record(request_id, nanos=10 * number, open=number % 3 == 1))
            await life.accounts.keep()
            await life.accounts.keep()
            await life.accounts.settled(5)
            life.journal.close()
            clock.now += 61
            await bury(tmp_path / "idle", store, clock)
        for name in ("left", "right"):
            life = Life(tmp_path / name, store, clock=clock)
            await life.accounts.recover()
            life.journal.close()
        directories = [tmp_path / name for name in ("left", "right", "idle")]
        final = final_in(*directories)
        admitted = [
            line["request_id"] for each in directories for line in lines_in(each) if line["event"] == "admitted"
        ]
        assert len(admitted) == 100
        assert not not_once(admitted, iter(final))
        assert not differences(final.values(), [], await store.balances())
        assert await store.expire() == []


class MortalJournal(Journal):
    """A journal in which a process dies at a chosen step: before a line, or after it."""

    steps = Steps()

    def append(self, line: Mapping[str, Any]) -> None:
        self.steps.step()
        super().append(line)
        self.steps.step()

    async def durable(self) -> None:
        self.steps.step()
        await super().durable()


@pytest.mark.parametrize("is_shared", [False, True])
@pytest.mark.parametrize("at", range(17))
async def test_a_crash_at_any_step_of_recovery_changes_nothing(tmp_path: Path, at: int, is_shared: bool) -> None:
    clock = SetClock()
    store = FlakyStore(clock) if is_shared else None
    await Life(tmp_path, store, clock=clock).dies_of_three()
    steps = Steps(at)
    journal = MortalJournal(tmp_path, tell=[].append)
    journal.steps = steps
    dying = Life(tmp_path, store, clock=clock, journal=journal)
    dying.store.steps = steps
    with suppress(Crash):
        await dying.accounts.recover()
    journal.close()
    dying.store.steps = Steps()
    life = Life(tmp_path, store, clock=clock)
    await life.accounts.recover()
    life.journal.close()
    assert nanos_of(tmp_path) == DEATHS
    admitted = [line["request_id"] for line in lines_in(tmp_path) if line["event"] == "admitted"]
    closing = [x["request_id"] for x in lines_in(tmp_path) if x["event"] == "cost_record" and not x["open"]]
    assert not not_once(admitted, closing)
    assert not differences(final_in(tmp_path).values(), [], await life.store.balances())
    assert await committed(life.store) == sum(DEATHS.values())
    assert await life.store.expire() == []


@pytest.mark.parametrize("is_shared", [False, True])
@pytest.mark.parametrize("at", range(36))
async def test_a_crash_at_any_step_of_a_life_leaves_one_record_of_every_request(
    tmp_path: Path, at: int, is_shared: bool
) -> None:
    """F35 and F36: whatever was reserved is charged once, and what the store holds afterwards is in the journals."""
    clock, steps = SetClock(), Steps(at)
    store = FlakyStore(clock) if is_shared else None
    journal = MortalJournal(tmp_path, tell=[].append)
    journal.steps = steps
    dying = Life(tmp_path, store, clock=clock, journal=journal)
    dying.store.steps = steps
    with suppress(Crash):
        await dying.dies_of_three()
    journal.close()
    dying.store.steps = Steps()
    life = Life(tmp_path, store, clock=clock)
    await life.accounts.recover()
    clock.now += 61
    await life.accounts.keep()
    life.journal.close()
    final = final_in(tmp_path)
    admitted = [line["request_id"] for line in lines_in(tmp_path) if line["event"] == "admitted"]
    assert set(admitted) <= set(final)
    assert not differences(final.values(), [], await life.store.balances())
    assert await life.store.expire() == []
    assert set((await life.store.states(list(DEATHS))).values()) <= {HoldState.SETTLED, HoldState.EXPIRED}


LIVING = """
    import asyncio, random, sys, time
    from pathlib import Path
    from marginal.ledger.accounts import AccountRules, Accounts
    from marginal.ledger.memory import MemoryStore
    from unit.ledger.made_records import FIELDS, ask, journal_in, record

    async def request(accounts, request_id, draw):
        grant = await accounts.reserve(ask(request_id))
        nanos = draw.randrange(1, 1_000)
        for mark in range(0, nanos, 100):
            accounts.progress(request_id, mark)
            await asyncio.sleep(0.001 * draw.random())
        accounts.settle(record(request_id, nanos=nanos))
        print(request_id, nanos, flush=True)

    async def main(directory, draw):
        journal, store = journal_in(directory, file_bytes=20_000), MemoryStore(time.time)
        accounts = Accounts(
            store, journal, fields=FIELDS, currency="USD", clock=time.time, rules=AccountRules(progress_seconds=0.01),
            at_once=lambda one: store.book.settle(one, time.time()),
        )
        async with journal.running(), accounts.running():
            for turn in range(1_000_000):
                await asyncio.gather(*(request(accounts, f"{turn}-{number}", draw) for number in range(16)))

    asyncio.run(main(Path(sys.argv[1]), random.Random(int(sys.argv[2]))))
"""


def settled_until_killed(directory: Path, seed: int, kill_at: int) -> dict[str, int]:
    """What a router says that it has settled, before and while it is killed."""
    settled: dict[str, int] = {}
    with subprocess.Popen(  # noqa: S603 (our own interpreter)
        [sys.executable, "-c", textwrap.dedent(LIVING), str(directory), str(seed)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=TESTS,
        env={"PYTHONPATH": f"{TESTS}:{TESTS.parent / 'services'}"},
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            request_id, nanos = line.split()
            settled[request_id] = int(nanos)
            if len(settled) == kill_at:
                process.kill()
    return settled


@pytest.mark.parametrize("seed", range(4))
async def test_a_router_killed_at_any_moment_has_charged_every_request_once(tmp_path: Path, seed: int) -> None:
    """F35 and F36 by SIGKILL: what was settled is as it was told, and what was under way is reckoned."""
    kill_at = random.Random(seed).randrange(1, 600)  # noqa: S311
    settled = settled_until_killed(tmp_path, seed, kill_at)
    assert len(settled) >= kill_at
    clock = SetClock(time.time())
    life = Life(tmp_path, clock=clock)
    recovery = await life.accounts.recover()
    life.journal.close()
    final = final_in(tmp_path)
    assert {request_id: final[request_id].nanos for request_id in settled} == settled
    admitted = [line["request_id"] for line in lines_in(tmp_path) if line["event"] == "admitted"]
    closing = [line["request_id"] for line in lines_in(tmp_path) if line["event"] == "cost_record"]
    assert not not_once(admitted, closing)
    assert 0 < len(recovery.recovered) <= 16
    assert not differences(final.values(), [], await life.store.balances())
