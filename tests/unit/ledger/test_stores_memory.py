"""What is the store in memory's own: how much it remembers, and for how long."""

import pytest

from marginal.errors import AlreadyAnswered
from marginal.ledger.hold_book import HoldBook
from marginal.ledger.ports import REMEMBERED_SECONDS, Settled
from marginal.routing.holds import HoldState
from unit.ledger.stored import DAY, EVENING, LEASE, ask


def closed(book: HoldBook, name: str, at: float = EVENING, key: str = "") -> None:
    """A request that began and ended in a moment."""
    book.reserve(ask(name, key=key), at, lease_seconds=LEASE)
    book.settle(Settled(name, "acme", 3, at, key=key), at)


def test_closed_requests_and_their_keys_are_forgotten_after_two_days() -> None:
    book = HoldBook()
    closed(book, "a", key="k")
    closed(book, "b", EVENING + REMEMBERED_SECONDS - 1)
    with pytest.raises(AlreadyAnswered):
        book.reserve(ask("again", key="k"), EVENING + REMEMBERED_SECONDS - 1, lease_seconds=LEASE)
    closed(book, "c", EVENING + REMEMBERED_SECONDS)
    assert set(book.states("abc")) == {"b", "c"}
    assert book.reserve(ask("again", key="k"), EVENING + REMEMBERED_SECONDS, lease_seconds=LEASE)


def test_no_more_closed_requests_are_remembered_than_there_is_room_for() -> None:
    book = HoldBook(remembered=2)
    for name in "abcd":
        closed(book, name)
    assert set(book.states("abcd")) == {"c", "d"}


def test_an_expired_hold_that_nobody_acknowledged_is_not_forgotten() -> None:
    book = HoldBook(remembered=2)
    book.reserve(ask("lost"), EVENING, lease_seconds=LEASE)
    book.expire(["lost"], EVENING)
    for name in "abcd":
        closed(book, name)
    assert book.states(["lost"]) == {"lost": HoldState.EXPIRED}
    assert [one.request_id for one in book.expire((), EVENING)] == ["lost"]
    book.acknowledge(["lost"])
    for name in "efg":
        closed(book, name)
    assert book.states(["lost"]) == {}


def test_an_open_hold_is_not_forgotten() -> None:
    book = HoldBook(remembered=2)
    book.reserve(ask("open"), EVENING, lease_seconds=100 * DAY)
    for number in range(5):
        closed(book, f"{number}", EVENING + 10 * DAY)
    assert book.states(["open"]) == {"open": HoldState.HELD}


def test_periods_that_are_over_are_forgotten_and_do_not_come_back() -> None:
    book = HoldBook()
    closed(book, "a")
    closed(book, "b", EVENING + 40 * DAY)
    before = book.balances(["acme"], EVENING)
    book.settle(Settled("late", "acme", 500, EVENING), EVENING + 40 * DAY)
    assert book.balances(["acme"], EVENING) == before
    assert {one.committed_nanos for one in before} == {0}


def test_a_clock_that_goes_back_an_hour_finds_the_window_as_it_was() -> None:
    book = HoldBook()
    closed(book, "a")
    closed(book, "b", EVENING + 3600)
    assert [one.committed_nanos for one in book.balances(["acme"], EVENING)] == [3, 6, 6]
