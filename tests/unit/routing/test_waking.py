"""A tier at zero: it is not down, whoever wants it wakes it, and nobody waits for ever."""

import asyncio
from contextlib import suppress

import pytest

from evidence import sure
from marginal.errors import TierUnavailable
from marginal.routing.demand import Demand, RecentDemand, demand
from marginal.routing.policies import DegradeRules
from marginal.routing.presence import MOST_WAITING, Presence
from marginal.routing.records import CostRecord, DegradedReason
from marginal.routing.requests import Mode, OnDegrade
from marginal.tokens import Tier
from unit.routing.cascade import UNSURE, Cascade, script

PATIENT = DegradeRules(wake_seconds=5.0)


def asleep(cascade: Cascade, tier: Tier = Tier.LARGE) -> Presence:
    """Puts a tier at zero."""
    presence = cascade.tiers[tier].presence
    presence.is_now(anyone=False)
    return presence


async def begun(cascade: Cascade, presence: Presence) -> "asyncio.Task[CostRecord]":
    """A request that waits for the tier by now."""
    waits = asyncio.Event()
    presence.tell(waits.set)
    asking = asyncio.create_task(cascade.ask())
    async with asyncio.timeout(2):
        await waits.wait()
    return asking


async def test_a_deferral_waits_for_the_large_tier_and_gets_its_answer() -> None:
    cascade = Cascade(small=script(UNSURE), degrade=PATIENT)
    presence = asleep(cascade)
    asking = await begun(cascade, presence)
    assert demand(cascade.tiers[Tier.LARGE]) == Demand(waiting=1)
    presence.is_now(anyone=True)
    record = await asking
    assert (record.tier, record.degraded) == (Tier.LARGE, None)
    assert demand(cascade.tiers[Tier.LARGE]) == Demand()


async def test_when_nobody_comes_in_time_it_degrades_and_the_tier_is_not_held_for_down() -> None:
    cascade = Cascade(small=script(UNSURE), degrade=DegradeRules(wake_seconds=0.02))
    asleep(cascade)
    cascade.large = script((), TierUnavailable("no replica of it is there"))
    for _ in range(4):
        record = await cascade.ask()
        assert (record.tier, record.degraded) == (Tier.SMALL, DegradedReason.LARGE_UNAVAILABLE)
    cascade.tiers[Tier.LARGE].presence.is_now(anyone=True)
    cascade.large = script((sure(0.9, text="large"),))
    assert (await cascade.ask()).tier is Tier.LARGE


async def test_without_patience_it_degrades_at_once_and_keeps_the_small_answer() -> None:
    cascade = Cascade(small=script(UNSURE))
    presence, told = asleep(cascade), list[str]()
    presence.tell(lambda: told.append("wanted"))
    record = await cascade.ask()
    assert record.degraded is DegradedReason.LARGE_UNAVAILABLE
    assert [attempt.tier for attempt in record.attempts] == [Tier.SMALL]
    assert told == ["wanted"]


async def test_a_deferral_that_there_is_no_money_for_wakes_nobody() -> None:
    cascade = Cascade(small=script(UNSURE), degrade=PATIENT)
    presence, told = asleep(cascade), list[str]()
    presence.tell(lambda: told.append("wanted"))
    cascade.ledger.blocked = DegradedReason.BUDGET
    assert (await cascade.ask()).degraded is DegradedReason.BUDGET
    assert told == []


async def test_it_waits_for_half_of_its_deadline_at_most_so_that_the_small_tier_still_can() -> None:
    cascade = Cascade(small=script(UNSURE), degrade=PATIENT)
    asleep(cascade)
    cascade.large = script((), TierUnavailable("no replica of it is there"))
    async with asyncio.timeout(2):
        record = await cascade.ask(seconds=0.2)
    assert record.tier is Tier.SMALL


async def test_one_that_must_not_degrade_fails_when_nobody_comes() -> None:
    cascade = Cascade(small=script(UNSURE), degrade=DegradeRules(wake_seconds=0.02))
    asleep(cascade)
    cascade.large = script((), TierUnavailable("no replica of it is there"))
    with pytest.raises(TierUnavailable):
        await cascade.ask(on_degrade=OnDegrade.FAIL)


async def test_a_request_waits_for_a_small_tier_at_zero_as_well() -> None:
    cascade = Cascade(degrade=PATIENT)
    presence = asleep(cascade, Tier.SMALL)
    asking = await begun(cascade, presence)
    presence.is_now(anyone=True)
    assert (await asking).tier is Tier.SMALL


@pytest.mark.parametrize("mode", [Mode.AUTO, Mode.SMALL_ONLY])
async def test_whoever_does_not_wait_for_a_small_tier_at_zero_wakes_it_for_those_after(mode: Mode) -> None:
    cascade = Cascade(mode=mode)
    presence, told = asleep(cascade, Tier.SMALL), list[str]()
    presence.tell(lambda: told.append("wanted"))
    cascade.small = script((), TierUnavailable("no replica of it is there"))
    with suppress(TierUnavailable):
        await cascade.ask()
    assert told == ["wanted"]


async def test_a_shadow_call_wakes_nobody() -> None:
    cascade = Cascade(mode=Mode.SHADOW, degrade=PATIENT)
    presence, told = asleep(cascade), list[str]()
    presence.tell(lambda: told.append("wanted"))
    assert (await cascade.ask()).tier is Tier.SMALL
    assert told == []


async def test_only_so_many_wait() -> None:
    presence = Presence()
    presence.is_now(anyone=False)
    waiting = [asyncio.create_task(presence.come(5.0)) for _ in range(MOST_WAITING + 10)]
    await asyncio.sleep(0)
    assert presence.waiting == MOST_WAITING
    assert not presence.worth_waiting(5.0)
    presence.is_now(anyone=True)
    await asyncio.gather(*waiting)
    assert presence.waiting == 0


async def test_a_caller_who_leaves_is_not_waited_for() -> None:
    presence = Presence()
    presence.is_now(anyone=False)
    waiting = asyncio.create_task(presence.come(5.0))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert presence.waiting == 0


async def test_an_undecided_small_stream_counts_as_likely_as_its_policy_defers() -> None:
    cascade = Cascade(small=script(UNSURE))
    for _ in range(3):
        await cascade.ask()
    cascade.small = script(delay=0.2)
    asking = asyncio.create_task(cascade.ask())
    await asyncio.sleep(0.05)
    large = demand(cascade.tiers[Tier.LARGE])
    assert large == Demand(expected=pytest.approx(1.0))
    assert demand(cascade.tiers[Tier.SMALL]) == Demand(under_way=1)
    await asking
    assert demand(cascade.tiers[Tier.LARGE]).total == 0.0


def test_a_tier_is_wanted_at_once_and_for_a_while_after_the_last_demand() -> None:
    recent = RecentDemand(linger_seconds=10.0)
    recent.take(0.6, 100.0)
    assert not recent.active(100.0)
    recent.take(1.0, 101.0)
    recent.take(0.0, 102.0)
    assert recent.active(110.9)
    assert not recent.active(111.0)
    recent.wanted(120.0)
    assert recent.active(120.0)


def test_its_mean_weighs_each_demand_by_how_long_it_lasted() -> None:
    recent = RecentDemand(window_seconds=30.0)
    assert recent.mean(100.0) == 0.0
    recent.take(8.0, 100.0)
    assert recent.mean(100.0) == 8.0
    recent.take(2.0, 110.0)
    assert recent.mean(130.0) == pytest.approx((8.0 * 10 + 2.0 * 20) / 30)
    recent.take(2.0, 131.0)
    assert recent.mean(140.0) == pytest.approx(2.0)
