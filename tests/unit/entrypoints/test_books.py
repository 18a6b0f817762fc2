"""What a router's books tell its operator, over a real journal and a store in memory."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from marginal.entrypoints.books import RouterBooks
from marginal.errors import LedgerUnavailable
from marginal.ledger.accounts import Accounts
from marginal.ledger.memory import MemoryStore
from marginal.ledger.ports import Balance, Settled, StoreAway
from marginal.routing.holds import Budget, Window
from marginal.routing.spending import CostQuery
from marginal.routing.tenants import TenantRules, Tenants
from unit.ledger.made_records import FIELDS, NOW, ask, journal_in, record
from unit.ledger.stored import SetClock

TENANTS = Tenants(
    {
        "acme": TenantRules(Budget({Window.HOUR: 2_000})),
        "idle": TenantRules(Budget({Window.DAY: 5_000})),
        "free": TenantRules(),
    }
)


class Away(MemoryStore):
    """A store that does not answer."""

    async def balances(self, _: Sequence[str] = ()) -> Sequence[Balance]:
        raise StoreAway("redis://:password@store")


@contextmanager
def books_over(directory: Path, store: MemoryStore) -> Iterator[tuple[RouterBooks, Accounts]]:
    clock, journal = SetClock(), journal_in(directory)

    def settle(one: Settled) -> None:
        store.book.settle(one, clock())

    ledger = Accounts(store, journal, fields=FIELDS, currency="USD", clock=clock, at_once=settle)
    yield RouterBooks(ledger, lambda: TENANTS, lambda: "USD", clock=clock), ledger
    journal.close()


async def test_costs_and_records_are_those_of_the_routers_own_journal(tmp_path: Path) -> None:
    with books_over(tmp_path, MemoryStore(SetClock())) as (books, ledger):
        await ledger.reserve(ask("1"))
        ledger.settle(record("1", nanos=300))
        assert [(row.key, row.figures.total_nanos) for row in books.costs(CostQuery()).rows] == [("acme", 300)]
        found = books.record("1")
        assert found is not None
        assert found["total_nanos"] == 300
        assert books.record("2") is None


async def test_budgets_are_of_who_has_spent_and_of_who_has_a_limit(tmp_path: Path) -> None:
    with books_over(tmp_path, MemoryStore(SetClock())) as (books, ledger):
        await ledger.reserve(ask("1"))
        ledger.settle(record("1", nanos=300))
        await ledger.reserve(ask("2", full=1_000))
        found = await books.budgets("")
        idle = await books.budgets("idle")
    told = {(one.tenant, one.window): (one.spent_nanos, one.held_nanos, one.limit_nanos) for one in found.states}
    assert told == {
        ("acme", Window.HOUR): (300, 1_000, 2_000),
        ("acme", Window.DAY): (300, 1_000, None),
        ("acme", Window.MONTH): (300, 1_000, None),
        ("idle", Window.DAY): (0, 0, 5_000),
    }
    hour = next(one for one in found.states if one.window is Window.HOUR)
    assert hour.used_share == 0.65
    assert hour.resets_seconds == Window.HOUR.ends(NOW) - NOW
    assert {one.tenant for one in idle.states} == {"idle"}


async def test_a_store_that_is_away_is_told_without_its_address(tmp_path: Path) -> None:
    with books_over(tmp_path, Away(SetClock())) as (books, _), pytest.raises(LedgerUnavailable) as caught:
        await books.budgets("")
    assert "password" not in str(caught.value)


def test_closed_books_end_what_is_being_read(tmp_path: Path) -> None:
    with books_over(tmp_path, MemoryStore(SetClock())) as (books, ledger):
        ledger.settle(record("1"))
        books.close()
        with pytest.raises(Exception, match="the router ends"):
            books.costs(CostQuery())
