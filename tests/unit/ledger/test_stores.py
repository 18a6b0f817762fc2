"""What every store of holds promises, in memory and in Valkey alike."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from engines.valkey import ValkeyProcess
from marginal.errors import AlreadyAnswered, BudgetExceeded, InProgress, KeyReused
from marginal.ledger.ports import Balance, Expired, Settled, Store
from marginal.routing.holds import MOST_NANOS, Grant, HoldState, Scope, Window
from marginal.routing.records import DegradedReason
from unit.ledger.stored import DAY, EVENING, HOUR, LEASE, SetClock, ask, limited, money, open_store


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture(params=["memory", "valkey"])
async def store(request: pytest.FixtureRequest, clock: SetClock, valkey_server: ValkeyProcess) -> AsyncIterator[Store]:
    async with AsyncExitStack() as closing:
        yield await open_store(request.param, clock, valkey_server, closing)


def settled(request_id: str, nanos: int, *, at: float = EVENING, **others: object) -> Settled:
    return Settled(request_id, "acme", nanos, at, **others)  # type: ignore[arg-type]


async def test_the_whole_worst_case_is_held_in_every_window(store: Store) -> None:
    grant = await store.reserve(ask("a"), lease_seconds=LEASE)
    assert grant == Grant(100, Scope.FULL, EVENING)
    assert await store.balances(["acme"]) == [
        Balance("acme", Window.HOUR, "2026-11-24T21", 0, 100),
        Balance("acme", Window.DAY, "2026-11-24", 0, 100),
        Balance("acme", Window.MONTH, "2026-11", 0, 100),
    ]


async def test_settling_gives_back_what_was_held_beyond_the_cost(store: Store) -> None:
    await store.reserve(ask("a"), lease_seconds=LEASE)
    await store.settle([settled("a", 30)])
    assert await money(store) == [(30, 0)] * 3


async def test_only_the_small_tier_is_granted_where_only_that_fits(store: Store) -> None:
    grant = await store.reserve(ask("a", budget=limited(day=99)), lease_seconds=LEASE)
    assert grant == Grant(10, Scope.SMALL, EVENING, DegradedReason.BUDGET)
    assert await money(store) == [(0, 10)] * 3


async def test_a_budget_may_be_spent_to_its_last_nano(store: Store) -> None:
    grant = await store.reserve(ask("a", budget=limited(hour=100, day=100, month=100)), lease_seconds=LEASE)
    assert grant.scope is Scope.FULL
    with pytest.raises(BudgetExceeded):
        await store.reserve(ask("b", full=1, small=1, budget=limited(hour=100)), lease_seconds=LEASE)


@pytest.mark.parametrize(
    ("budget", "window", "seconds"),
    [
        (limited(hour=9), "hour", 60.0),
        (limited(day=9), "day", 60.0 + 2 * HOUR),
        (limited(month=9), "month", 60.0 + 2 * HOUR + 6 * DAY),
        (limited(hour=9, month=9), "month", 60.0 + 2 * HOUR + 6 * DAY),
        (limited(hour=9, day=99), "hour", 60.0),
    ],
)
async def test_a_refusal_names_the_window_that_lacks_the_longest_and_holds_nothing(
    store: Store, budget: object, window: str, seconds: float
) -> None:
    with pytest.raises(BudgetExceeded) as refused:
        await store.reserve(ask("a", budget=budget), lease_seconds=LEASE)  # type: ignore[arg-type]
    assert (refused.value.window, refused.value.reset_seconds) == (window, seconds)
    assert await money(store) == [(0, 0)] * 3
    assert await store.states(["a"]) == {}


async def test_held_and_spent_money_both_count_against_the_budget(store: Store) -> None:
    budget = limited(hour=250)
    await store.reserve(ask("held", budget=budget), lease_seconds=LEASE)
    await store.reserve(ask("spent", budget=budget), lease_seconds=LEASE)
    await store.settle([settled("spent", 60)])
    grant = await store.reserve(ask("a", full=91, budget=budget), lease_seconds=LEASE)
    assert grant.scope is Scope.SMALL


async def test_tenants_do_not_share_a_budget(store: Store) -> None:
    await store.reserve(ask("a", budget=limited(hour=100)), lease_seconds=LEASE)
    grant = await store.reserve(ask("b", tenant="other", budget=limited(hour=100)), lease_seconds=LEASE)
    assert grant.scope is Scope.FULL


async def test_the_same_id_again_gives_the_same_grant_and_holds_nothing_more(store: Store, clock: SetClock) -> None:
    first = await store.reserve(ask("a", budget=limited(hour=100)), lease_seconds=LEASE)
    clock.now += 7
    assert await store.reserve(ask("a", budget=limited(hour=100)), lease_seconds=LEASE) == first
    assert await money(store) == [(0, 100)] * 3


@pytest.mark.parametrize("expires", [False, True])
async def test_an_id_whose_hold_is_closed_is_not_granted_again(store: Store, expires: bool) -> None:
    await store.reserve(ask("a"), lease_seconds=LEASE)
    await (store.expire(["a"]) if expires else store.settle([settled("a", 30)]))
    with pytest.raises(AlreadyAnswered) as refused:
        await store.reserve(ask("a"), lease_seconds=LEASE)
    assert refused.value.request_id == "a"


async def test_a_tenant_cannot_ride_on_another_ones_hold(store: Store) -> None:
    await store.reserve(ask("a"), lease_seconds=LEASE)
    with pytest.raises(AlreadyAnswered):
        await store.reserve(ask("a", tenant="thief"), lease_seconds=LEASE)
    assert await money(store, "thief") == [(0, 0)] * 3


class TestIdempotencyKeys:
    async def test_of_a_request_under_way_it_is_in_progress(self, store: Store) -> None:
        await store.reserve(ask("a", key="k", fingerprint="f"), lease_seconds=LEASE)
        with pytest.raises(InProgress) as refused:
            await store.reserve(ask("b", key="k", fingerprint="f"), lease_seconds=LEASE)
        assert refused.value.request_id == "a"
        assert await money(store) == [(0, 100)] * 3

    async def test_of_an_answered_request_it_is_already_answered(self, store: Store) -> None:
        await store.reserve(ask("a", key="k", fingerprint="f"), lease_seconds=LEASE)
        await store.settle([settled("a", 30, key="k")])
        with pytest.raises(AlreadyAnswered) as refused:
            await store.reserve(ask("b", key="k", fingerprint="f"), lease_seconds=LEASE)
        assert refused.value.request_id == "a"

    @pytest.mark.parametrize("answered", [False, True])
    async def test_with_another_fingerprint_it_is_reused(self, store: Store, answered: bool) -> None:
        await store.reserve(ask("a", key="k", fingerprint="f"), lease_seconds=LEASE)
        if answered:
            await store.settle([settled("a", 30, key="k")])
        with pytest.raises(KeyReused) as refused:
            await store.reserve(ask("b", key="k", fingerprint="g"), lease_seconds=LEASE)
        assert refused.value.field == "idempotency_key"

    @pytest.mark.parametrize("expires", [False, True])
    async def test_of_a_request_that_came_to_nothing_it_is_free_and_taken_anew(
        self, store: Store, expires: bool
    ) -> None:
        await store.reserve(ask("a", key="k", fingerprint="f"), lease_seconds=LEASE)
        await (store.expire(["a"]) if expires else store.settle([settled("a", 30, answered=False, key="k")]))
        await store.reserve(ask("b", key="k", fingerprint="g"), lease_seconds=LEASE)
        with pytest.raises(InProgress) as refused:
            await store.reserve(ask("c", key="k", fingerprint="g"), lease_seconds=LEASE)
        assert refused.value.request_id == "b"

    async def test_a_late_answer_does_not_take_the_key_back(self, store: Store) -> None:
        await store.reserve(ask("a", key="k"), lease_seconds=LEASE)
        await store.expire(["a"])
        await store.reserve(ask("b", key="k"), lease_seconds=LEASE)
        await store.settle([settled("a", 30, key="k")])
        with pytest.raises(InProgress) as refused:
            await store.reserve(ask("c", key="k"), lease_seconds=LEASE)
        assert refused.value.request_id == "b"

    async def test_of_a_request_told_after_the_store_was_emptied_it_is_already_answered(self, store: Store) -> None:
        await store.settle([settled("a", 30, key="k")])
        with pytest.raises(AlreadyAnswered):
            await store.reserve(ask("b", key="k", fingerprint="f"), lease_seconds=LEASE)

    async def test_of_a_refused_request_it_stays_free(self, store: Store) -> None:
        with pytest.raises(BudgetExceeded):
            await store.reserve(ask("a", key="k", budget=limited(hour=1)), lease_seconds=LEASE)
        assert await store.reserve(ask("b", key="k"), lease_seconds=LEASE)

    async def test_are_each_tenants_own(self, store: Store) -> None:
        await store.reserve(ask("a", key="k"), lease_seconds=LEASE)
        assert await store.reserve(ask("b", key="k", tenant="other"), lease_seconds=LEASE)


async def test_a_hold_settles_into_the_periods_it_was_admitted_in(store: Store, clock: SetClock) -> None:
    await store.reserve(ask("a"), lease_seconds=LEASE)
    clock.now += 60
    await store.reserve(ask("b"), lease_seconds=LEASE)
    await store.settle([settled("a", 30)])
    assert await money(store) == [(0, 100), (30, 100), (30, 100)]


async def test_a_window_that_ended_leaves_its_money_behind(store: Store, clock: SetClock) -> None:
    budget = limited(hour=100)
    await store.reserve(ask("a", budget=budget), lease_seconds=LEASE)
    clock.now += 60
    assert (await store.reserve(ask("b", budget=budget), lease_seconds=LEASE)).scope is Scope.FULL


async def test_what_is_not_known_is_committed_when_it_was_admitted_and_once(store: Store, clock: SetClock) -> None:
    clock.now += 60
    for _ in range(2):
        await store.settle([settled("a", 30), settled("b", 5, at=clock.now)])
    assert await money(store) == [(5, 0), (35, 0), (35, 0)]
    assert await store.states(["a"]) == {"a": HoldState.SETTLED}


async def test_the_same_settlement_twice_in_one_batch_counts_once(store: Store) -> None:
    await store.reserve(ask("a"), lease_seconds=LEASE)
    await store.settle([settled("a", 30), settled("a", 30)])
    assert await money(store) == [(30, 0)] * 3


async def test_a_second_final_settlement_changes_nothing(store: Store) -> None:
    await store.reserve(ask("a"), lease_seconds=LEASE)
    await store.settle([settled("a", 30)])
    await store.settle([settled("a", 70), settled("a", 80, final=False)])
    assert await money(store) == [(30, 0)] * 3


async def test_a_settlement_whose_shadow_is_still_to_come_is_replaced_by_the_final_one(store: Store) -> None:
    await store.reserve(ask("a"), lease_seconds=LEASE)
    await store.settle([settled("a", 30, final=False)])
    assert await money(store) == [(30, 0)] * 3
    assert await store.states(["a"]) == {"a": HoldState.UNSURE}
    await store.settle([settled("a", 90)])
    assert await store.states(["a"]) == {"a": HoldState.SETTLED}
    await store.settle([settled("a", 1)])
    assert await money(store) == [(90, 0)] * 3


@pytest.mark.parametrize(("marks", "charged"), [([], 100), ([0], 100), ([20], 20), ([20, 45, 30], 45)])
async def test_an_expired_hold_is_charged_at_its_highest_mark_or_whole(
    store: Store, clock: SetClock, marks: list[int], charged: int
) -> None:
    await store.reserve(ask("a"), lease_seconds=LEASE)
    for mark in marks:
        await store.progress({"a": mark}, lease_seconds=LEASE)
    clock.now += LEASE
    assert await store.expire() == [Expired("a", "acme", charged, EVENING)]
    assert await money(store) == [(charged, 0)] * 3
    assert await store.states(["a"]) == {"a": HoldState.EXPIRED}


async def test_progress_renews_a_lease_and_a_repeated_reserve_does_too(store: Store, clock: SetClock) -> None:
    for name in ("heard", "retried", "silent"):
        await store.reserve(ask(name), lease_seconds=LEASE)
    clock.now += LEASE - 1
    await store.progress({"heard": 5, "unknown": 5}, lease_seconds=LEASE)
    await store.reserve(ask("retried"), lease_seconds=LEASE)
    clock.now += 1
    assert [one.request_id for one in await store.expire()] == ["silent"]


async def test_an_expired_hold_is_given_until_it_is_acknowledged(store: Store, clock: SetClock) -> None:
    await store.reserve(ask("a"), lease_seconds=LEASE)
    clock.now += LEASE
    assert await store.expire() == await store.expire() != []
    await store.acknowledge(["a", "unknown"])
    assert await store.expire() == []
    assert await store.states(["a"]) == {"a": HoldState.EXPIRED}


async def test_a_named_hold_expires_whatever_its_lease_and_others_do_not(store: Store) -> None:
    for name in ("a", "b", "done"):
        await store.reserve(ask(name), lease_seconds=LEASE)
    await store.settle([settled("done", 30)])
    assert [one.request_id for one in await store.expire(["a", "done", "unknown"])] == ["a"]
    assert await money(store) == [(130, 100)] * 3


async def test_a_late_settlement_corrects_an_expired_hold_once(store: Store) -> None:
    await store.reserve(ask("a"), lease_seconds=LEASE)
    await store.expire(["a"])
    for _ in range(2):
        await store.settle([settled("a", 30)])
    assert await money(store) == [(30, 0)] * 3
    assert await store.expire() == []
    assert await store.states(["a"]) == {"a": HoldState.SETTLED}


async def test_progress_of_a_closed_hold_is_passed_by(store: Store, clock: SetClock) -> None:
    await store.reserve(ask("a"), lease_seconds=LEASE)
    await store.expire(["a"])
    await store.progress({"a": 500}, lease_seconds=LEASE)
    clock.now += LEASE
    assert [one.charged_nanos for one in await store.expire()] == [100]


async def test_states_leave_out_what_is_not_known(store: Store) -> None:
    await store.reserve(ask("a"), lease_seconds=LEASE)
    assert await store.states(["a", "unknown"]) == {"a": HoldState.HELD}


async def test_all_balances_are_those_of_tenants_with_money_in_the_month(store: Store) -> None:
    for name in ("zeta", "acme"):
        await store.reserve(ask(name, tenant=name), lease_seconds=LEASE)
    assert [one.tenant for one in await store.balances()] == ["acme"] * 3 + ["zeta"] * 3
    assert await money(store, "never-seen") == [(0, 0)] * 3


async def test_amounts_are_exact_up_to_the_most(store: Store) -> None:
    budget = limited(month=MOST_NANOS)
    await store.reserve(ask("a", full=MOST_NANOS - 2, budget=budget), lease_seconds=LEASE)
    await store.settle([settled("a", MOST_NANOS - 2)])
    await store.reserve(ask("b", full=1, small=1, budget=budget), lease_seconds=LEASE)
    await store.reserve(ask("c", full=1, small=1, budget=budget), lease_seconds=LEASE)
    with pytest.raises(BudgetExceeded):
        await store.reserve(ask("d", full=1, small=1, budget=budget), lease_seconds=LEASE)
    assert await money(store) == [(MOST_NANOS - 2, 2)] * 3


async def test_many_are_told_at_once(store: Store) -> None:
    names = [f"request-{number}" for number in range(450)]
    for name in names:
        await store.reserve(ask(name), lease_seconds=LEASE)
    await store.progress(dict.fromkeys(names, 7), lease_seconds=LEASE)
    assert {one.charged_nanos for one in await store.expire(names)} == {7}
    await store.settle([settled(name, 3) for name in names])
    assert set((await store.states(names)).values()) == {HoldState.SETTLED}
    assert await money(store) == [(450 * 3, 0)] * 3


async def test_leases_that_are_over_expire_however_many_there_are(store: Store, clock: SetClock) -> None:
    names = [f"request-{number}" for number in range(450)]
    for name in names:
        await store.reserve(ask(name), lease_seconds=LEASE)
    clock.now += LEASE
    assert sorted(one.request_id for one in await store.expire()) == sorted(names)
    await store.acknowledge(names)
    assert await store.expire() == []
