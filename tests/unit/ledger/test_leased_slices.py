"""While the store is away a tenant may spend its slice, and never more than one slice beyond its budget."""

import pytest

from marginal.ledger.slices import FailureMode, Slices, overspend
from marginal.routing.holds import NO_BUDGET, Ask, Budget, Scope, Window
from marginal.routing.records import DegradedReason

NOON = 1_785_585_600.0  # 2026-08-01T12:00:00Z
DAILY = Budget({Window.DAY: 10_000})


def ask(number: int, *, small: int = 5, full: int = 40, tenant: str = "acme", budget: Budget = DAILY) -> Ask:
    return Ask(f"r{number}", tenant, small, full, budget)


def scopes(slices: Slices, count: int, now: float = NOON, first: int = 0, **asked: int) -> list[Scope | None]:
    lent = [slices.lend(ask(first + number, **asked), now) for number in range(count)]
    return [None if grant is None else grant.scope for grant in lent]


def test_the_large_tier_as_long_as_it_fits_then_the_small_one_then_nothing() -> None:
    slices = Slices(FailureMode.LEASE)
    assert scopes(slices, 8) == [Scope.FULL] * 2 + [Scope.SMALL] * 4 + [None] * 2


def test_a_small_grant_says_that_the_budget_is_not_known() -> None:
    grant = Slices(FailureMode.LEASE).lend(ask(1, full=101), NOON)
    assert grant is not None
    assert (grant.held_nanos, grant.blocked) == (5, DegradedReason.BUDGET_UNKNOWN)


def test_the_same_request_again_holds_nothing_more() -> None:
    slices = Slices(FailureMode.LEASE)
    assert slices.lend(ask(1), NOON) == slices.lend(ask(1), NOON + 1)
    assert scopes(slices, 1, first=2) == [Scope.FULL]


def test_the_tightest_window_counts() -> None:
    budget = Budget({Window.HOUR: 1_000, Window.MONTH: 1_000_000})
    slices = Slices(FailureMode.LEASE)
    assert slices.lend(ask(1, full=10, budget=budget), NOON) is not None
    assert slices.lend(ask(2, small=1, full=1, budget=budget), NOON) is None
    assert slices.lend(ask(3, full=10, budget=budget), NOON + 3600) is not None


def test_a_tenant_without_a_budget_has_no_limit() -> None:
    grant = Slices(FailureMode.LEASE).lend(ask(1, full=10**15, budget=NO_BUDGET), NOON)
    assert grant is not None
    assert grant.scope is Scope.FULL


def test_one_tenant_does_not_take_from_another() -> None:
    slices = Slices(FailureMode.LEASE)
    scopes(slices, 10)
    lent = slices.lend(ask(99, tenant="other"), NOON)
    assert lent is not None
    assert lent.scope is Scope.FULL


def test_what_a_request_did_not_spend_may_be_lent_again() -> None:
    slices = Slices(FailureMode.LEASE)
    for number in range(10):
        assert scopes(slices, 1, first=number, full=50) == [Scope.FULL]
        slices.settled(f"r{number}", 5)
    assert scopes(slices, 1, first=10, full=51) == [Scope.SMALL]


def test_outage_after_outage_is_one_slice_until_the_store_has_shown_that_it_covered_it() -> None:
    slices = Slices(FailureMode.LEASE)
    scopes(slices, 1, full=100)
    slices.settled("r0", 100)
    slices.covered("acme", slices.tellings)  # a grant of a store that has not been told yet shows nothing
    assert scopes(slices, 1, first=1) == [None]
    asked_before = slices.tellings
    slices.told(["r0"])
    assert scopes(slices, 1, first=2) == [None]
    slices.covered("acme", asked_before)  # an answer that was on its way shows nothing either
    assert scopes(slices, 1, first=2) == [None]
    slices.covered("acme", slices.tellings)
    assert scopes(slices, 1, first=3, full=100) == [Scope.FULL]


def test_modes_for_those_who_would_rather_serve_or_rather_not() -> None:
    assert Slices(FailureMode.CLOSED).lend(ask(1, budget=NO_BUDGET), NOON) is None
    grant = Slices(FailureMode.OPEN).lend(ask(1, full=10**9), NOON)
    assert grant is not None
    assert grant.held_nanos == 10**9


@pytest.mark.parametrize(
    ("mode", "most"), [(FailureMode.LEASE, 330), (FailureMode.OPEN, None), (FailureMode.CLOSED, 0)]
)
def test_the_worst_overspend_is_a_number(mode: FailureMode, most: int | None) -> None:
    budgets = [DAILY, Budget({Window.HOUR: 1_000, Window.DAY: 5_000}), NO_BUDGET]
    assert overspend(budgets, mode, routers=3) == most
