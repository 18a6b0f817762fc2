"""What one router reckoned of another's request is watched until the truth is there, and no longer."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from marginal.ledger.burials import AT_A_TIME, WATCHED_SECONDS, Burials
from marginal.ledger.journal import Journal
from marginal.ledger.memory import MemoryStore
from marginal.ledger.ports import Settled
from unit.ledger.made_records import FIELDS, ask, journal_in, lines_in
from unit.ledger.stored import SetClock


class Router:
    """Burials over a store that its requests are told to behind its back."""

    def __init__(self, directory: Path) -> None:
        self.clock = SetClock()
        self.directory = directory
        self.store = MemoryStore(self.clock)
        self.journal: Journal = journal_in(directory)
        self.burials = Burials(
            self.store, self.journal, fields=FIELDS, currency="USD", clock=self.clock, told=[].append
        )

    async def expired(self, *names: str) -> None:
        for name in names:
            await self.store.reserve(ask(name), lease_seconds=60.0)
        await self.store.expire(names)

    async def settle(self, name: str, *, final: bool = True) -> None:
        await self.store.settle([Settled(name, "acme", 7, self.clock(), final=final)])

    def superseded(self) -> list[list[str]]:
        return [sorted(line["request_ids"]) for line in lines_in(self.directory) if line["event"] == "superseded"]


@pytest.fixture
def router(tmp_path: Path) -> Iterator[Router]:
    router = Router(tmp_path)
    yield router
    router.journal.close()


async def test_only_a_truth_that_nothing_replaces_is_written_down_and_once(router: Router) -> None:
    await router.expired("known", "open", "silent", "true")
    await router.burials.bury(lambda request_id: request_id == "known")
    await router.settle("open", final=False)
    await router.settle("true")
    await router.settle("known")
    for _ in range(2):
        await router.burials.supersede()
    assert router.superseded() == [["true"]]
    await router.settle("open")
    await router.burials.supersede()
    assert router.superseded() == [["true"], ["open"]]


async def test_what_earlier_lives_reckoned_is_watched_too_all_of_it_in_turn(router: Router) -> None:
    names = [f"dead-{number:04d}" for number in range(2 * AT_A_TIME + 1)]
    router.burials.watch(dict.fromkeys(names, router.clock()))
    for name in names[::2]:
        await router.settle(name)
    for _ in range(3):
        await router.burials.supersede()
    assert sorted(name for line in router.superseded() for name in line) == names[::2]


async def test_a_store_that_does_not_know_a_request_is_asked_again_until_it_must_have_forgotten(router: Router) -> None:
    router.burials.watch({"lost": router.clock(), "forgotten": router.clock() - WATCHED_SECONDS})
    await router.burials.supersede()
    for name in ("lost", "forgotten"):
        await router.settle(name)
    await router.burials.supersede()
    assert router.superseded() == [["lost"]]


async def test_nothing_is_superseded_while_it_cannot_be_written_down(router: Router) -> None:
    await router.expired("dead")
    await router.burials.bury(lambda _: False)
    await router.settle("dead")
    router.journal.writable = False
    await router.burials.supersede()
    assert router.superseded() == []
    router.journal.writable = True
    await router.burials.supersede()
    assert router.superseded() == [["dead"]]
