"""The check that money is conserved finds what is missing, what is too much, and who has no or two records."""

from marginal.ledger.conservation import Difference, differences, not_once
from marginal.ledger.ports import Balance, Settled
from marginal.routing.holds import Window
from unit.ledger.made_records import NOW

HOUR = 3_600.0


def one(request_id: str, nanos: int, *, at: float = NOW, tenant: str = "acme") -> Settled:
    return Settled(request_id, tenant, nanos, at)


def balances(committed: int, held: int) -> list[Balance]:
    return [Balance("acme", window, window.period(NOW), committed, held) for window in Window]


def test_a_store_that_has_what_the_records_and_the_holds_say_has_no_difference() -> None:
    assert differences([one("1", 100), one("2", 50)], [one("3", 1_000)], balances(150, 1_000)) == []


def test_a_nano_unit_too_much_or_too_little_is_found_in_every_window() -> None:
    assert differences([one("1", 100)], [], balances(101, 0)) == [
        Difference("acme", window, window.period(NOW), 1) for window in Window
    ]
    assert [each.nanos for each in differences([one("1", 100)], [one("2", 10)], balances(100, 9))] == [-1, -1, -1]


def test_a_record_counts_only_in_the_windows_it_was_admitted_in() -> None:
    records = [one("1", 100), one("2", 50, at=NOW - HOUR)]
    found = differences(records, [], balances(100, 0))
    assert [(each.window, each.nanos) for each in found] == [(Window.DAY, -50), (Window.MONTH, -50)]


def test_money_of_another_tenant_is_another_matter() -> None:
    assert differences([one("1", 100), one("2", 7, tenant="other")], [], balances(100, 0)) == []


def test_ids_with_no_or_two_final_records_are_told_with_their_number() -> None:
    assert not_once(["1", "2", "3", "4"], ["1", "2", "2", "stray"], under_way=["4"]) == {"2": 2, "3": 0}
