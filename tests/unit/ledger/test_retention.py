"""A journal is kept as long and as large as its rules say, and whatever is deleted, budgets stay exact."""

import asyncio
import errno
import math
import os
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marginal.errors import ConfigurationError
from marginal.ledger.accounts import Accounts
from marginal.ledger.journal import Journal, JournalRules
from marginal.ledger.journal_files import bytes_of, journal_files, journal_number
from marginal.ledger.journal_lines import Admitted, admitted_line, record_line
from marginal.ledger.memory import MemoryStore
from marginal.ledger.ports import Settled
from marginal.ledger.reading import Reading, kept_since, read_journals
from marginal.ledger.retention import DELETED, DUE, KEPT, KeepRules, Retention
from marginal.ledger.sums import (
    BESIDE_FILE,
    LEAST_ROOM_BYTES,
    SUMS_FILE,
    Sums,
    is_over,
    put_in_force,
    read_sums,
    take_room,
    written_beside,
)
from marginal.routing.holds import Window
from marginal.routing.records import Settlement
from unit.ledger.made_records import FIELDS, ask, final_in, lines_in, record
from unit.ledger.stored import EVENING, HOUR, SetClock

FILE_BYTES = 2_000
TENANTS = ("acme", "other")
HELD = 1_000


class Heard:
    """A log that remembers."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, Mapping[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    warning = info


class BreakingJournal(Journal):
    """A journal whose disk may be full, or may lose a file under it, so that its next sync fails and lines are written
    again.
    """

    disk_full = False

    def _write(self, line: bytes) -> None:
        if self.disk_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        super()._write(line)

    async def find_room(self) -> None:
        self.disk_full = False
        await self._writable()

    async def lose_trust(self) -> None:
        self.append({"event": "lost"})
        read, write = os.pipe()
        os.close(read)
        os.dup2(write, self._file)
        os.close(write)
        await self.durable()
        await self._writable()

    async def _writable(self) -> None:
        async with asyncio.timeout(5):
            while not self.writable:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.001)


class Life:
    """One life of a router with a store of its own, over a journal that is kept by rules."""

    def __init__(self, directory: Path, clock: SetClock, *, shared: MemoryStore | None = None, **rules: Any) -> None:
        self.clock, self.log, self.sizes = clock, Heard(), list[int]()
        self.told_until: Any = math.inf
        self.store = shared or MemoryStore(clock)
        self.journal = BreakingJournal(
            directory, tell=[].append, rules=JournalRules(file_bytes=FILE_BYTES, retry_seconds=0.001)
        )
        self.accounts = Accounts(
            self.store,
            self.journal,
            fields=FIELDS,
            currency="USD",
            clock=clock,
            at_once=None if shared else lambda settled: self.store.book.settle(settled, clock()),
        )
        self.rules: dict[str, Any] = {"days": 35, "file_bytes": FILE_BYTES, **rules}

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Life"]:
        async with self.journal.running():
            await self.accounts.recover()
            yield self

    async def keep(self, **rules: Any) -> None:
        await self.retention(**rules).keep()

    def retention(self, **rules: Any) -> Retention:
        return Retention(
            self.journal.directory,
            KeepRules(**(self.rules | rules)),
            needed_from=lambda: self.accounts.needed_from,
            told_until=lambda: min(self.accounts.told_until, self.told_until),
            log=self.log,
            clock=self.clock,
            sized=self.sizes.append,
        )

    async def request(self, name: str, nanos: int, *, tenant: str = "acme") -> None:
        await self.accounts.reserve(ask(name, tenant=tenant))
        self.accounts.settle(record(name, nanos=nanos, tenant=tenant, admitted_at=self.clock()))

    async def requests(self, count: int, name: str = "r") -> None:
        for number in range(count):
            await self.request(f"{name}{number}", number + 1)
        await self.journal.durable()

    async def spent(self, store: MemoryStore | None = None) -> Mapping[tuple[str, Window], int]:
        told = await (store or self.store).balances(TENANTS)
        return {(one.tenant, one.window): one.committed_nanos for one in told}


async def spent_after_a_start(directory: Path, clock: SetClock) -> Mapping[tuple[str, Window], int]:
    async with Life(directory, clock).running() as life:
        return await life.spent()


def all_files(directory: Path) -> list[Path]:
    return list(directory.iterdir())


def numbers(directory: Path) -> list[int]:
    return [journal_number(path) for path in journal_files(directory)]


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("request"), st.sampled_from(TENANTS), st.integers(0, 999), st.sampled_from([0, 1, 9, 30])),
        st.tuples(st.just("leave open"), st.sampled_from(TENANTS)),
        st.tuples(st.just("answer"), st.sampled_from(TENANTS), st.integers(0, 999)),
        st.tuples(st.just("finish")),
        st.tuples(st.just("keep"), st.integers(1, 6)),
        st.tuples(st.just("sync")),
        st.tuples(st.just("lose trust")),
        st.tuples(st.just("disk full")),
        st.tuples(st.just("find room")),
        st.tuples(st.just("restart")),
    ),
    max_size=40,
)


class History:
    """What happened to a router, and what its requests came to by hand."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.clock = directory, SetClock(EVENING - 4 * 24 * HOUR)
        self.came_to: dict[str, Settled] = {}
        self.open: dict[str, str] = {}
        self.held: dict[str, int] = {}
        self.admitted_in_memory: set[str] = set()
        self.ended_in_memory: set[str] = set()

    async def happen(self, actions: list[tuple[Any, ...]]) -> None:
        for life_of in self._lives(actions):
            async with Life(self.directory, self.clock).running() as life:
                self._forget_what_was_in_memory()
                for number, (what, *how) in life_of:
                    await self._act(life, f"r{number}", what, *how)
                self.settled_in_life = await life.spent()

    def _forget_what_was_in_memory(self) -> None:
        """A life that ends while the disk is full ends as in a crash."""
        for request_id in {*self.open, *self.ended_in_memory}:
            one = self.came_to[request_id]
            self.came_to[request_id] = Settled(request_id, one.tenant, self.held[request_id], one.admitted_at)
        for request_id in self.admitted_in_memory:
            del self.came_to[request_id]
        for known in (self.open, self.ended_in_memory, self.admitted_in_memory):
            known.clear()

    @staticmethod
    def _lives(actions: list[tuple[Any, ...]]) -> list[list[tuple[int, tuple[Any, ...]]]]:
        lives: list[list[tuple[int, tuple[Any, ...]]]] = [[]]
        for number, action in enumerate(actions):
            if action[0] == "restart":
                lives.append([])
            else:
                lives[-1].append((number, action))
        return lives

    async def _act(self, life: Life, name: str, what: str, *how: Any) -> None:
        if what == "request":
            tenant, nanos, hours = how
            self.clock.now += hours * HOUR / 10
            await self._reserve(life, name, tenant)
            self._settle(life, name, tenant, nanos)
        elif what in ("leave open", "answer"):
            tenant, nanos = how[0], how[1] if len(how) > 1 else HELD
            await self._reserve(life, name, tenant)
            if what == "answer":
                life.accounts.settle(record(name, nanos=nanos, tenant=tenant, open=True))
            self.came_to[name] = Settled(name, tenant, nanos, self.clock())
            self.open[name] = tenant
        elif what == "finish":
            for request_id, tenant in self.open.items():
                self._settle(life, request_id, tenant, 7, self.came_to[request_id].admitted_at)
            self.open.clear()
        elif what == "keep":
            await life.keep(size_bytes=how[0] * FILE_BYTES)
        elif what == "disk full":
            life.journal.disk_full = True
        elif what in ("find room", "lose trust"):
            await life.journal.find_room()
            self.admitted_in_memory.clear()
            self.ended_in_memory.clear()
            if what == "lose trust":
                await life.journal.lose_trust()
        elif what == "sync":
            await life.journal.durable()

    async def _reserve(self, life: Life, name: str, tenant: str) -> None:
        self.held[name] = (await life.accounts.reserve(ask(name, tenant=tenant))).held_nanos
        if life.journal.disk_full:
            self.admitted_in_memory.add(name)

    def _settle(self, life: Life, name: str, tenant: str, nanos: int, at: float | None = None) -> None:
        at = self.clock() if at is None else at
        life.accounts.settle(record(name, nanos=nanos, tenant=tenant, admitted_at=at))
        self.came_to[name] = Settled(name, tenant, nanos, at)
        if life.journal.disk_full:
            self.ended_in_memory.add(name)

    def expected(self) -> Mapping[tuple[str, Window], int]:
        now, sums = self.clock(), Counter[tuple[str, Window]]()
        for one in self.came_to.values():
            for window in Window:
                if window.period(one.admitted_at) == window.period(now):
                    sums[one.tenant, window] += one.nanos
        return {(tenant, window): sums[tenant, window] for tenant in TENANTS for window in Window}


@settings(deadline=None, max_examples=60)
@given(ACTIONS)
def test_whatever_is_appended_rolled_and_deleted_budgets_are_what_requests_came_to(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[Any, ...]]
) -> None:
    history = History(tmp_path_factory.mktemp("journal"))
    asyncio.run(history.happen([*actions, ("find room",), ("finish",)]))
    assert history.settled_in_life == history.expected()
    assert asyncio.run(spent_after_a_start(history.directory, history.clock)) == history.expected()
    kept = final_in(history.directory) if journal_files(history.directory) else {}
    assert {one: kept[one].nanos for one in kept} == {one: history.came_to[one].nanos for one in kept}


async def test_the_oldest_files_go_when_there_are_too_many_bytes_and_budgets_stay(tmp_path: Path) -> None:
    clock = SetClock()
    async with Life(tmp_path, clock).running() as life:
        await life.requests(60)
        before, files = await life.spent(), numbers(tmp_path)
        await life.keep(size_bytes=10 * FILE_BYTES)
        kept = numbers(tmp_path)
        assert kept == files[-len(kept) :]
        assert 5 < len(kept) < len(files)
        (event, fields), *more = life.log.lines
        assert (event, fields["files"], more) == (DELETED, len(files) - len(kept), [])
        assert fields["bytes"] > (len(files) - len(kept)) * FILE_BYTES // 2
        assert life.sizes[-1] == bytes_of(all_files(tmp_path)) <= 10 * FILE_BYTES
    assert await spent_after_a_start(tmp_path, clock) == before
    assert before["acme", Window.MONTH] == sum(range(61))


async def test_files_are_kept_for_so_many_days_after_they_were_last_written(tmp_path: Path) -> None:
    async with Life(tmp_path, SetClock()).running() as life:
        await life.requests(20)
        for number, path in enumerate(journal_files(tmp_path)):
            written = life.clock() - (36 if number < 3 else 34) * 24 * HOUR
            os.utime(path, (written, written))
        await life.keep()
        assert numbers(tmp_path)[0] == 4
        await life.keep()
        assert numbers(tmp_path)[0] == 4


async def test_files_are_kept_for_ever_when_they_are_of_any_age_and_size(tmp_path: Path) -> None:
    async with Life(tmp_path, SetClock()).running() as life:
        await life.requests(20)
        before = numbers(tmp_path)
        for path in journal_files(tmp_path):
            os.utime(path, (0, 0))
        await life.keep(days=0)
        assert (numbers(tmp_path), life.log.lines) == (before, [])


@pytest.mark.parametrize(("old", "rules"), [(3, {}), (0, {"size_bytes": 6 * FILE_BYTES})])
async def test_a_start_says_how_many_files_are_going_to_be_deleted(
    tmp_path: Path, old: int, rules: dict[str, int]
) -> None:
    async with Life(tmp_path, SetClock()).running() as life:
        await life.requests(20)
        before = journal_files(tmp_path)
        for path in before:
            written = life.clock() - (36 if path in before[:old] else 1) * 24 * HOUR
            os.utime(path, (written, written))
        async with life.retention(**rules, look_seconds=60).running():
            assert list(journal_files(tmp_path)) == list(before)
        ((event, fields),) = life.log.lines
        size = bytes_of(before)
        await life.keep(**rules)
        deleted = size - bytes_of(journal_files(tmp_path))
        count = len(before) - len(numbers(tmp_path))
        assert (event, fields["days"]) == (DUE, 35)
        assert (
            0 <= count - fields["files"] <= (0 if old else 3)
        )  # sums need room too, that of some of these small files
        assert 0 < fields["bytes"] <= deleted
        async with life.retention(**rules, look_seconds=60).running():
            assert [event for event, _ in life.log.lines] == [DUE, DELETED]


async def test_a_file_that_no_window_reaches_back_to_is_not_read(tmp_path: Path) -> None:
    """Its lines say that they are of today, by which a reading would be seen."""
    async with Life(tmp_path, SetClock()).running() as life:
        await life.requests(20)
        before, old = journal_files(tmp_path), life.clock() - 36 * 24 * HOUR
        for path in before[:3]:
            os.utime(path, (old, old))
        await life.keep()
        assert numbers(tmp_path) == [journal_number(path) for path in before[3:]]
        assert read_sums(tmp_path) == Sums(journal_number(before[2]), read_sums(tmp_path).name)


@given(st.floats(0, 40 * 24), st.floats(0, 40 * 24))
def test_what_is_over_is_over_with_all_before_it(ago: float, further: float) -> None:
    at = EVENING - ago * HOUR
    assert is_over(at - further * HOUR, EVENING) or not is_over(at, EVENING)


async def test_a_file_that_is_deleted_while_records_are_read_is_passed_over(tmp_path: Path) -> None:
    async with Life(tmp_path, SetClock()).running() as life:
        await life.requests(20)
        reading, begun = read_journals([tmp_path]), read_journals([tmp_path]).final_records()
        first = next(begun)
        before = journal_files(tmp_path)
        await life.keep(size_bytes=3 * FILE_BYTES)
        kept = [line for line in lines_in(tmp_path) if line["event"] == "cost_record"]
        assert 0 < len(kept) < 19
        assert list(reading.final_records()) == kept
        assert [line["request_id"] for line in (first, *begun)][-len(kept) :] == [line["request_id"] for line in kept]
        again = Reading()
        for path in before:
            again.take(path)
        assert list(again.final_records()) == kept


async def test_records_are_kept_since_the_first_request_in_the_first_file_that_is_left(tmp_path: Path) -> None:
    clock, whole = SetClock(), tmp_path / "whole"
    async with Life(tmp_path / "cut", clock).running() as life, Life(whole, clock).running() as other:
        await other.request("other", 1)
        for number in range(20):
            clock.now += 1
            await life.request(f"r{number}", 1)
        await life.journal.durable()
        assert kept_since([tmp_path / "cut", whole]) is None
        await life.keep(size_bytes=6 * FILE_BYTES)
        first = next(line["at"] for line in lines_in(tmp_path / "cut") if line["event"] == "admitted")
        assert EVENING + 2 < first < EVENING + 20
        assert kept_since([tmp_path / "cut", whole]) == first
        journal_files(tmp_path / "cut")[0].unlink()
        assert kept_since([tmp_path / "cut"]) > first


async def test_sums_are_written_into_room_that_was_taken_before(tmp_path: Path) -> None:
    """A full disk, on which no byte more can be had, can so be made emptier."""
    async with Life(tmp_path, SetClock()).running() as life:
        await life.keep()
        for number in range(3):
            taken = (tmp_path / BESIDE_FILE).stat()
            assert taken.st_blocks * 512 >= taken.st_size >= LEAST_ROOM_BYTES
            await life.requests(20, f"r{number}-")
            await life.keep(size_bytes=1)
            found = (tmp_path / SUMS_FILE).stat()
            assert found.st_size < taken.st_size
            assert read_sums(tmp_path).upto == life.journal.number - 1
        spent = await life.spent()
    assert await spent_after_a_start(tmp_path, life.clock) == spent


def test_sums_are_written_where_the_room_is_and_nothing_is_left_behind_them(tmp_path: Path) -> None:
    take_room(tmp_path)
    taken = (tmp_path / BESIDE_FILE).stat().st_ino
    sums = Sums(5, spent={"acme": {int(EVENING): 1}})
    put_in_force(written_beside(tmp_path, sums))
    assert (tmp_path / SUMS_FILE).stat().st_ino == taken
    assert read_sums(tmp_path) == sums


async def test_the_file_that_is_written_is_kept_however_old_or_large_it_is(tmp_path: Path) -> None:
    async with Life(tmp_path, SetClock()).running() as life:
        await life.requests(20)
        yesterday = life.clock() - 25 * HOUR
        for path in journal_files(tmp_path):
            os.utime(path, (yesterday, yesterday))
        await life.keep(days=1, size_bytes=1)
        assert numbers(tmp_path) == [life.journal.number]
        await life.request("next", 5)
    assert await spent_after_a_start(tmp_path, life.clock) == {
        **{("acme", window): sum(range(21)) + 5 for window in Window},
        **{("other", window): 0 for window in Window},
    }


async def test_a_file_with_a_request_under_way_is_kept_until_that_has_ended(tmp_path: Path) -> None:
    async with Life(tmp_path, SetClock()).running() as life:
        await life.requests(5, "before")
        await life.accounts.reserve(ask("long"))
        needed = life.journal.number
        await life.requests(20, "after")
        await life.keep(size_bytes=1)
        assert numbers(tmp_path)[0] == needed > 1
        assert (KEPT, {"because": "its oldest file has lines of requests under way"}) in life.log.lines
        life.accounts.settle(record("long"))
        await life.journal.durable()
        await life.keep(size_bytes=1)
        assert numbers(tmp_path) == [life.journal.number]


async def test_a_request_whose_last_line_is_in_memory_only_keeps_the_file_that_says_it_was_admitted(
    tmp_path: Path,
) -> None:
    clock, directory, copies = SetClock(), tmp_path / "journal", tmp_path / "copies"
    async with Life(directory, clock).running() as life:
        await life.accounts.reserve(ask("long"))
        await life.requests(20)
        life.journal.disk_full = True
        life.accounts.settle(record("long", nanos=777))
        assert not life.journal.writable
        await life.keep(size_bytes=1)
        shutil.copytree(directory, copies)  # as a crash leaves it
        await life.journal.find_room()
        await life.journal.durable()
        await life.keep(size_bytes=1)
        assert numbers(directory) == [life.journal.number]
    assert (await spent_after_a_start(copies, clock))["acme", Window.MONTH] == HELD + sum(range(21))
    assert (await spent_after_a_start(directory, clock))["acme", Window.MONTH] == 777 + sum(range(21))


async def test_a_recovered_request_whose_record_is_in_memory_only_is_recovered_again(tmp_path: Path) -> None:
    clock, directory, copies = SetClock(), tmp_path / "journal", tmp_path / "copies"
    async with Life(directory, clock).running() as life:
        await life.accounts.reserve(ask("dead"))
        await life.requests(20)
    second = Life(directory, clock)
    second.journal.disk_full = True
    async with second.running():
        assert not second.journal.writable
        await second.keep(size_bytes=1)
        shutil.copytree(directory, copies)
        await second.journal.find_room()
        await second.journal.durable()
        await second.keep(size_bytes=1)
        assert numbers(directory) == [second.journal.number]
    for after in (copies, directory):
        assert (await spent_after_a_start(after, clock))["acme", Window.MONTH] == HELD + sum(range(21))


async def test_a_file_is_kept_until_the_store_was_told_of_all_its_records(tmp_path: Path) -> None:
    async with Life(tmp_path, SetClock()).running() as life:
        await life.requests(20)
        life.told_until = 0.0
        await life.keep(size_bytes=1)
        assert numbers(tmp_path)[0] == 1
        assert life.log.lines == [
            (KEPT, {"because": "its oldest file has records that the store of budgets may not know"})
        ]
        life.told_until = math.inf
        await life.keep(size_bytes=1)
        assert numbers(tmp_path) == [life.journal.number]


async def test_a_store_that_came_back_empty_is_told_of_deleted_files_and_one_that_knows_them_is_not(
    tmp_path: Path,
) -> None:
    clock = SetClock()
    async with Life(tmp_path, clock).running() as life:
        life.accounts.settle(record("reckoned", nanos=9, settlement=Settlement.EXPIRED))
        await life.requests(30)
        before = await life.spent()
        await life.keep(size_bytes=1)
        empty, knowing = MemoryStore(clock), MemoryStore(clock)
        for _ in range(2):
            for batch in life.accounts.replay(0.0):
                await empty.settle(batch)
        for batch in life.accounts.replay(1.0):
            await knowing.settle(batch)
        assert await life.spent(empty) == before
        kept = sum(one.nanos for one in final_in(tmp_path).values())
        assert (await life.spent(knowing))["acme", Window.MONTH] == kept < before["acme", Window.MONTH]
        await empty.settle([Settled("reckoned", "acme", 2, clock())])  # its own router came back
        assert (await life.spent(empty))["acme", Window.MONTH] == before["acme", Window.MONTH] - 7


async def told_of(clock: SetClock, *lives: Life) -> Mapping[tuple[str, Window], int]:
    """What a store that was emptied is told by so many routers."""
    empty = MemoryStore(clock)
    for life in lives:
        for batch in life.accounts.replay(0.0):
            await empty.settle(batch)
    return await lives[0].spent(empty)


async def test_a_request_that_two_journals_know_counts_once_when_its_own_has_summed_it_up(tmp_path: Path) -> None:
    clock = SetClock()
    other, own = Life(tmp_path / "other", clock), Life(tmp_path / "own", clock)
    async with own.running():
        await own.accounts.reserve(ask("dead"))
    own = Life(tmp_path / "own", clock)
    async with other.running(), own.running():
        other.accounts.settle(record("dead", nanos=HELD // 2, settlement=Settlement.EXPIRED))
        await own.requests(30)
        before = await told_of(clock, other, own)
        assert before["acme", Window.MONTH] == HELD + sum(range(31))
        for number in range(3):
            await own.keep(size_bytes=1)
            await own.requests(20, f"more{number}-")
        assert len(read_sums(tmp_path / "own").named) == 1
        expected = HELD + sum(range(31)) + 3 * sum(range(21))
        assert await told_of(clock, other, own) == await told_of(clock, own, other)
        assert (await told_of(clock, other, own))["acme", Window.MONTH] == expected


@pytest.mark.parametrize("deletes_first", [False, True])
async def test_a_router_that_was_late_counts_once_however_soon_the_others_file_goes(
    tmp_path: Path, deletes_first: bool
) -> None:
    """One router reckons a hold of another that lives, and has told nothing for a lease."""
    clock, store = SetClock(), MemoryStore(SetClock())
    late, other = (Life(tmp_path / name, clock, shared=store) for name in ("late", "other"))
    async with late.running(), other.running():
        await late.accounts.reserve(ask("late"))
        store.book.expire(["late"], clock())
        await other.accounts.keep()
        await other.requests(20, "other")
        if deletes_first:
            await other.keep(size_bytes=1)
        late.accounts.settle(record("late", nanos=70))
        await late.requests(20, "late")
        assert await late.accounts.settled(5)
        assert await other.accounts.settled(5)
        await other.accounts.keep()
        await other.requests(20, "again")
        await late.keep(size_bytes=1)
        assert numbers(tmp_path / "late") == [late.journal.number]
        expected = 70 + 3 * sum(range(21))
        assert (await told_of(clock, late, other))["acme", Window.MONTH] == expected
        await other.keep(size_bytes=1)
        assert (await told_of(clock, other, late))["acme", Window.MONTH] == expected
        assert read_sums(tmp_path / "other").named == ()
        assert await late.spent(store) == await told_of(clock, other, late)


async def test_the_truth_in_a_later_file_replaces_what_is_among_the_sums(tmp_path: Path) -> None:
    clock = SetClock()
    async with Life(tmp_path, clock).running() as life:
        life.accounts.settle(record("late", nanos=9, settlement=Settlement.EXPIRED))
        await life.requests(20)
        await life.keep(size_bytes=1)
        life.accounts.settle(record("late", nanos=5))
        await life.requests(20, "more")
        before = await life.spent()
        assert await told_of(clock, life) == before
        await life.keep(size_bytes=1)
        assert await told_of(clock, life) == before
        assert before["acme", Window.MONTH] == 5 + 2 * sum(range(21))


async def test_a_crash_between_the_sums_and_the_deletion_counts_nothing_twice(tmp_path: Path) -> None:
    clock, directory, copies = SetClock(), tmp_path / "journal", tmp_path / "copies"
    async with Life(directory, clock).running() as life:
        await life.requests(30)
        before = await life.spent()
        shutil.copytree(directory, copies)
        await life.keep(size_bytes=1)
    deleted = [path for path in journal_files(copies) if not (directory / path.name).exists()]
    for path in deleted:
        shutil.copy2(path, directory / path.name)
    assert len(deleted) > 5
    assert await spent_after_a_start(directory, clock) == before
    async with Life(directory, clock).running() as life:
        await life.keep()
        assert len(numbers(directory)) == 1
        assert await life.spent() == before


async def test_lines_that_were_written_again_are_summed_up_once(tmp_path: Path) -> None:
    """F43, with a request in the old file, a second in the new one, and one that is in both."""
    clock = SetClock()
    async with Life(tmp_path, clock).running() as life:
        await life.request("first", 1)
        await life.journal.durable()
        await life.request("twice", 20)
        await life.journal.lose_trust()
        assert [one["request_id"] for one in lines_in(tmp_path) if one["event"] == "cost_record"].count("twice") == 2
        await life.requests(20)
        before = await life.spent()
        assert before["acme", Window.MONTH] == 21 + sum(range(21))
        await life.keep(size_bytes=1)
        assert len(numbers(tmp_path)) == 1
    assert await spent_after_a_start(tmp_path, clock) == before


async def test_a_crash_before_the_sums_are_in_force_changes_nothing(tmp_path: Path) -> None:
    clock = SetClock()
    async with Life(tmp_path, clock).running() as life:
        await life.requests(30)
        before = await life.spent()
        written_beside(tmp_path, Sums(5, spent={"acme": {int(clock()): 1_000_000}}))
    assert await spent_after_a_start(tmp_path, clock) == before


async def test_a_record_of_a_moment_that_no_calendar_has_ends_neither_deletion_nor_the_next_start(
    tmp_path: Path,
) -> None:
    async with Life(tmp_path, SetClock()).running() as life:
        life.journal.append({**record_line(record("never"), FIELDS), "admitted_at": 1e20})
        life.journal.append({**admitted_line(Admitted("nor", "acme", 0.0, HELD, "full")), "at": 1e20})
        await life.requests(20)
        before = await life.spent()
        await life.keep(size_bytes=1)
        assert numbers(tmp_path) == [life.journal.number]
    assert await spent_after_a_start(tmp_path, life.clock) == before


async def test_whatever_keeps_files_from_being_deleted_is_said_once_and_tried_again(tmp_path: Path) -> None:
    async with Life(tmp_path, SetClock()).running() as life:
        await life.requests(20)
        life.told_until = "no moment"
        async with life.retention(size_bytes=1, look_seconds=0.001).running():
            async with asyncio.timeout(5):
                while len(life.sizes) < 5:  # noqa: ASYNC110 - nothing tells
                    await asyncio.sleep(0.001)
            life.told_until = math.inf
            async with asyncio.timeout(5):
                while len(numbers(tmp_path)) > 1:  # noqa: ASYNC110 - nothing tells
                    await asyncio.sleep(0.001)
    said = [fields["because"] for event, fields in life.log.lines if event == KEPT]
    assert len(said) == 1
    assert said[0].startswith("it cannot be shortened: ")


async def test_a_journal_whose_files_were_taken_away_goes_on_behind_its_sums(tmp_path: Path) -> None:
    clock = SetClock()
    async with Life(tmp_path, clock).running() as life:
        await life.requests(30)
        await life.keep(size_bytes=1)
    for path in journal_files(tmp_path):
        path.unlink()
    async with Life(tmp_path, clock).running() as life:
        assert life.journal.number == read_sums(tmp_path).upto + 1
        await life.request("more", 5)
        await life.keep()
        spent = await life.spent()
    assert await spent_after_a_start(tmp_path, clock) == spent


async def test_sums_that_cannot_be_understood_are_said_before_anything_is_spent(tmp_path: Path) -> None:
    (tmp_path / SUMS_FILE).write_text("{")
    with pytest.raises(ConfigurationError, match=r"journal: .*sums\.json: cannot be understood"):
        Life(tmp_path, SetClock())
    (tmp_path / SUMS_FILE).unlink()
    Life(tmp_path, SetClock()).journal.close()


@given(st.lists(st.tuples(st.sampled_from(TENANTS), st.floats(0, 1_500), st.integers(0, 99)), max_size=60))
def test_sums_of_months_stay_small_and_exact_in_every_window_that_may_be_asked_for(
    spent: list[tuple[str, float, int]],
) -> None:
    now = EVENING
    records = [Settled(str(n), tenant, nanos, now - ago * HOUR) for n, (tenant, ago, nanos) in enumerate(spent)]
    sums = Sums()
    for upto, one in enumerate(records, 1):
        sums = sums.plus(upto, [one], now)
    told, by_hand = MemoryStore(SetClock(now)), MemoryStore(SetClock(now))
    for one in sums.settled():
        told.book.settle(one, now)
    for one in records:
        by_hand.book.settle(one, now)
    assert told.book.balances(TENANTS, now) == by_hand.book.balances(TENANTS, now)
    assert all(len(rows) <= 49 + 4 + 2 for rows in sums.spent.values())
    assert Sums(sums.upto, sums.name, sums.spent, sums.named) == sums
