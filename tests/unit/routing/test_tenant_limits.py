"""What one tenant may have: so many requests per second, so many at a time, a share of deferrals."""

import random
from collections import Counter
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marginal.errors import RateLimited
from marginal.routing.tenant_limits import CONCURRENCY_RETRY_SECONDS, DEFERRAL_BURST, MOST_RETRY_SECONDS, TenantLimits
from marginal.routing.tenants import TenantRules, Tenants

ACME = "acme"


class Rulebook:
    """Rules that can be changed between two calls."""

    def __init__(self, **rules: object) -> None:
        self.change(**rules)

    def change(self, **rules: object) -> None:
        self._tenants = Tenants(others=TenantRules(**rules))  # type: ignore[arg-type]

    def __call__(self, tenant: str) -> TenantRules:
        return self._tenants.rules(tenant)


def ask(limits: TenantLimits, now: float, *, tenant: str = ACME, times: int = 1) -> None:
    for _ in range(times):
        with limits.admitted(tenant, now):
            pass


def defer(limits: TenantLimits, now: float = 0.0) -> bool:
    with limits.admitted(ACME, now) as place:
        return place.deferred()


class TestRate:
    def test_a_burst_is_admitted_and_the_next_one_told_when_to_come_back(self) -> None:
        limits = TenantLimits(Rulebook(per_second=4.0, burst=3))
        ask(limits, 10.0, times=3)
        with pytest.raises(RateLimited) as caught:
            ask(limits, 10.1)
        assert caught.value.retry_seconds == pytest.approx(0.15)
        ask(limits, 10.0 + 0.25)

    def test_a_bucket_never_holds_more_than_the_burst(self) -> None:
        limits = TenantLimits(Rulebook(per_second=1.0, burst=2))
        ask(limits, 0.0)
        ask(limits, 1000.0, times=2)
        with pytest.raises(RateLimited):
            ask(limits, 1000.0)

    def test_a_refused_request_takes_nothing(self) -> None:
        limits = TenantLimits(Rulebook(per_second=1.0, burst=1, deferral_share=0.0))
        ask(limits, 0.0)
        for _ in range(5):
            with pytest.raises(RateLimited):
                ask(limits, 0.5)
        ask(limits, 1.0)

    def test_tenants_do_not_share(self) -> None:
        limits = TenantLimits(Rulebook(per_second=1.0))
        ask(limits, 0.0)
        ask(limits, 0.0, tenant="other")

    def test_new_rules_are_in_force_at_once(self) -> None:
        rules = Rulebook(per_second=0.001, burst=1)
        limits = TenantLimits(rules)
        ask(limits, 0.0)
        rules.change(per_second=10.0, burst=1)
        ask(limits, 0.1)
        rules.change()
        ask(limits, 0.1, times=100)

    def test_a_rate_of_nothing_says_to_come_back_much_later(self) -> None:
        limits = TenantLimits(Rulebook(per_second=0.0))
        ask(limits, 0.0)
        with pytest.raises(RateLimited) as caught:
            ask(limits, 0.0)
        assert caught.value.retry_seconds == MOST_RETRY_SECONDS

    def test_a_clock_that_steps_back_takes_nothing_away(self) -> None:
        limits = TenantLimits(Rulebook(per_second=1.0, burst=2))
        ask(limits, 100.0)
        ask(limits, 50.0)
        ask(limits, 101.0)


class TestRequestsUnderWay:
    def test_only_so_many_at_a_time(self) -> None:
        limits = TenantLimits(Rulebook(concurrency=2))
        with limits.admitted(ACME, 0.0):
            with limits.admitted(ACME, 0.0), pytest.raises(RateLimited) as caught:
                ask(limits, 0.0)
            assert caught.value.retry_seconds == CONCURRENCY_RETRY_SECONDS
            ask(limits, 0.0)

    def test_a_request_that_fails_gives_its_place_back(self) -> None:
        limits = TenantLimits(Rulebook(concurrency=1))
        for _ in range(3):
            with pytest.raises(ValueError, match="whatever"), limits.admitted(ACME, 0.0):
                raise ValueError("whatever")


class TestMemory:
    def test_the_tenant_longest_idle_is_forgotten(self) -> None:
        limits = TenantLimits(Rulebook(per_second=0.001), remembered=2)
        for tenant in ("a", "b", "c"):
            ask(limits, 0.0, tenant=tenant)
        assert len(limits) == 2
        ask(limits, 0.0, tenant="a")
        with pytest.raises(RateLimited):
            ask(limits, 0.0, tenant="c")

    def test_a_tenant_with_requests_under_way_is_not(self) -> None:
        limits = TenantLimits(Rulebook(concurrency=1), remembered=1)
        with limits.admitted(ACME, 0.0):
            for number in range(10):
                ask(limits, 0.0, tenant=f"t{number}")
            with pytest.raises(RateLimited):
                ask(limits, 0.0)


class TestDeferrals:
    def test_without_a_cap_all_may_defer(self) -> None:
        limits = TenantLimits(Rulebook())
        assert all(defer(limits) for _ in range(10 * DEFERRAL_BURST))

    def test_a_share_of_nothing_allows_none_at_all(self) -> None:
        assert not defer(TenantLimits(Rulebook(deferral_share=0.0)))

    def test_past_the_burst_the_share_is_what_is_allowed(self) -> None:
        """A33: prompts made to be always uncertain cost the large tier the tenant's share and no more."""
        limits = TenantLimits(Rulebook(deferral_share=0.1))
        done = Counter(defer(limits) for _ in range(1000))
        assert 100 + DEFERRAL_BURST - 1 <= done[True] <= 100 + DEFERRAL_BURST

    def test_asking_takes_nothing_and_two_at_once_cannot_both_take_the_last_credit(self) -> None:
        limits = TenantLimits(Rulebook(deferral_share=0.001))
        for _ in range(DEFERRAL_BURST - 1):
            assert defer(limits)
        with limits.admitted(ACME, 0.0) as one, limits.admitted(ACME, 0.0) as other:
            assert one.may_defer()
            assert other.may_defer()
            assert one.deferred()
            assert not other.deferred()

    def test_a_tenant_within_its_share_hardly_ever_meets_the_cap(self) -> None:
        limits, lot = TenantLimits(Rulebook(deferral_share=0.3)), random.Random(1)  # noqa: S311
        wanted = [lot.random() < 0.8 * 0.3 for _ in range(20_000)]
        refused = 0
        for want in wanted:
            with limits.admitted(ACME, 0.0) as place:
                refused += want and not place.deferred()
        assert refused <= 0.001 * sum(wanted)


@given(
    calls=st.lists(
        st.tuples(st.floats(0.0, 1.0), st.lists(st.booleans(), min_size=1, max_size=4)), min_size=1, max_size=300
    )
)
def test_deferrals_never_exceed_what_the_shares_of_all_requests_and_the_burst_allow(
    calls: list[tuple[float, list[bool]]],
) -> None:
    """Whatever the shares in force, however requests overlap, and whether or not they asked first."""
    rules = Rulebook()
    limits = TenantLimits(rules)
    earned, deferrals = 0, 0
    for share, wants in calls:
        rules.change(deferral_share=share)
        with ExitStack() as open_requests:
            places = [open_requests.enter_context(limits.admitted(ACME, 0.0)) for _ in wants]
            earned += len(places) * round(share * 1_000_000)
            for place, wanted in zip(places, wants, strict=True):
                allowed = place.may_defer()
                took = wanted and place.deferred()
                assert took == (wanted and allowed)
                deferrals += took
        assert deferrals * 1_000_000 <= earned + DEFERRAL_BURST * 1_000_000


@given(
    per_second=st.floats(0.1, 100.0),
    burst=st.integers(1, 20),
    gaps=st.lists(st.floats(0.0, 2.0), min_size=1, max_size=200),
)
def test_no_more_are_admitted_than_the_rate_and_the_burst_allow_and_the_wait_told_is_true(
    per_second: float, burst: int, gaps: list[float]
) -> None:
    limits = TenantLimits(Rulebook(per_second=per_second, burst=burst))
    now, admitted = 0.0, 0
    for gap in gaps:
        now += gap
        try:
            ask(limits, now)
        except RateLimited as refused:
            now += refused.retry_seconds + 1e-6
            ask(limits, now)
        admitted += 1
    assert admitted <= burst + per_second * now + 1e-6
