"""A tier's places and the line in front of them."""

import asyncio
import time
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marginal.errors import Overloaded
from marginal.routing.concurrency import AdaptiveLimit, LimitRules
from marginal.routing.requests import Criticality
from marginal.routing.waiting import Line, Place, Places, WaitingRules

CRITICAL, SHEDDABLE = Criticality.CRITICAL, Criticality.SHEDDABLE
PATIENT = WaitingRules(seconds=30.0, deadline_share=1.0, per_place=4.0)


class SetLimit:
    """A limit that is what it is told to be, and remembers what it heard."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.heard: list[object] = []

    def begun(self, under_way: int) -> int:
        self.heard.append(under_way)
        return len(self.heard)

    def answered(self, era: int, seconds: float) -> None:
        self.heard.append((era, seconds))

    def dropped(self, era: int) -> None:
        self.heard.append((era, "dropped"))


class Caller:
    """Takes a place and keeps it until told to leave."""

    def __init__(self, places: Places, name: str, order: list[str], criticality: Criticality = CRITICAL) -> None:
        self.place: Place | None = None
        self.left = asyncio.Event()
        self.task = asyncio.create_task(self._call(places, name, order, criticality))

    async def _call(self, places: Places, name: str, order: list[str], criticality: Criticality) -> None:
        async with places.place(criticality, 60.0) as self.place:
            order.append(name)
            await self.left.wait()

    async def leave(self) -> None:
        self.left.set()
        await self.task
        await settled()


async def settled() -> None:
    """Lets everything that can go on do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def calling(places: Places, order: list[str], *names: str, criticality: Criticality = CRITICAL) -> list[Caller]:
    callers = [Caller(places, name, order, criticality) for name in names]
    await settled()
    return callers


async def refused(places: Places, criticality: Criticality = CRITICAL, timeout: float = 60.0) -> float:
    """How long it took to be sent away."""
    loop = asyncio.get_running_loop()
    came = loop.time()
    with pytest.raises(Overloaded):
        async with places.place(criticality, timeout):
            pass
    return loop.time() - came


async def test_up_to_the_limit_nobody_waits() -> None:
    places, order = Places(SetLimit(3), PATIENT), list[str]()
    callers = await calling(places, order, "a", "b", "c", "d")
    assert (order, places.under_way, places.waiting) == (["a", "b", "c"], 3, 1)
    await callers[1].leave()
    assert (order[-1], places.under_way, places.waiting) == ("d", 3, 0)
    for caller in (callers[0], callers[2], callers[3]):
        await caller.leave()
    assert places.under_way == 0


@pytest.mark.parametrize(("newest_first", "expected"), [(False, "abc"), (True, "cba")])
async def test_the_order_of_the_line(newest_first: bool, expected: str) -> None:
    rules = WaitingRules(seconds=30.0, deadline_share=1.0, per_place=4.0, newest_first=newest_first)
    places, order = Places(SetLimit(1), rules), list[str]()
    callers = await calling(places, order, "first", *"abc")
    for _ in callers:
        await next(caller for caller in callers if caller.place and not caller.task.done()).leave()
    assert order == ["first", *expected]


async def test_critical_requests_go_before_sheddable_ones() -> None:
    places, order = Places(SetLimit(1), PATIENT), list[str]()
    [holder] = await calling(places, order, "holder")
    [other] = await calling(places, order, "sheddable", criticality=SHEDDABLE)
    [critical] = await calling(places, order, "critical")
    await holder.leave()
    await critical.leave()
    await other.leave()
    assert order == ["holder", "critical", "sheddable"]


async def test_a_full_line_sends_the_newcomer_away_at_once() -> None:
    rules = WaitingRules(seconds=30.0, deadline_share=1.0, per_place=1.0, retry_seconds=2.5)
    places, order = Places(SetLimit(2), rules), list[str]()
    callers = await calling(places, order, *"abcd")
    assert places.full
    with pytest.raises(Overloaded) as caught:
        async with places.place(CRITICAL, 60.0):
            pass
    assert caught.value.retry_seconds == 2.5
    assert (places.waiting, places.under_way) == (2, 2)
    for caller in callers:
        await caller.leave()


async def test_in_a_full_line_a_critical_newcomer_takes_the_stand_of_a_sheddable_one() -> None:
    places, order = Places(SetLimit(1), WaitingRules(seconds=30.0, deadline_share=1.0, per_place=1.0)), list[str]()
    [holder] = await calling(places, order, "holder")
    [sheddable] = await calling(places, order, "sheddable", criticality=SHEDDABLE)
    assert places.full_for(SHEDDABLE)
    assert not places.full_for(CRITICAL)
    [critical] = await calling(places, order, "critical")
    assert places.full_for(CRITICAL)
    with pytest.raises(Overloaded):
        await sheddable.task
    await holder.leave()
    await critical.leave()
    assert order == ["holder", "critical"]


@pytest.mark.parametrize(("deadline", "seconds"), [(60.0, 0.05), (0.2, 0.02)], ids=["the rules", "the deadline"])
async def test_nobody_waits_longer_than_the_rules_and_its_deadline_say(deadline: float, seconds: float) -> None:
    places = Places(SetLimit(1), WaitingRules(seconds=0.05, deadline_share=0.1, per_place=4.0))
    [holder] = await calling(places, [], "holder")
    assert seconds <= await refused(places, timeout=deadline) + 0.002 < seconds + 0.04
    await holder.leave()
    assert places.under_way == 0


async def test_once_somebody_was_sent_away_the_next_hear_it_soon() -> None:
    rules = WaitingRules(seconds=0.1, hasty_seconds=0.01, deadline_share=1.0, per_place=4.0)
    places = Places(SetLimit(1), rules)
    [holder] = await calling(places, [], "holder")
    assert await refused(places) >= 0.09
    assert await refused(places) < 0.06
    await holder.leave()


async def test_that_sheddable_ones_are_sent_away_does_not_hurry_critical_ones() -> None:
    rules = WaitingRules(seconds=0.1, hasty_seconds=0.0, deadline_share=1.0, per_place=4.0)
    places = Places(SetLimit(1), rules)
    [holder] = await calling(places, [], "holder")
    await refused(places, SHEDDABLE)
    assert await refused(places, SHEDDABLE) < 0.06
    assert await refused(places, CRITICAL) >= 0.09
    await holder.leave()


async def test_a_waiter_that_is_cancelled_leaves_no_place_taken_and_no_stand_in_the_line() -> None:
    places, order = Places(SetLimit(1), PATIENT), list[str]()
    [holder, waiter] = await calling(places, order, "holder", "waiter")
    waiter.task.cancel()
    await settled()
    assert places.waiting == 0
    await holder.leave()
    assert (order, places.under_way) == (["holder"], 0)


@pytest.mark.parametrize("before", [True, False], ids=["just before", "just after"])
async def test_a_waiter_that_is_cancelled_as_it_is_handed_a_place_hands_it_on(before: bool) -> None:
    places, order = Places(SetLimit(1), PATIENT), list[str]()
    async with places.place(CRITICAL, 60.0):
        [unlucky, lucky] = await calling(places, order, "unlucky", "lucky")
        if before:
            unlucky.task.cancel()
    if not before:
        unlucky.task.cancel()
    await settled()
    assert order == ["lucky"]
    await lucky.leave()
    assert places.under_way == 0


async def test_a_limit_that_grows_lets_waiters_in_when_an_answer_shows_it() -> None:
    limit = SetLimit(1)
    places, order = Places(limit, PATIENT), list[str]()
    [holder, waiter] = await calling(places, order, "holder", "waiter")
    limit.limit = 2
    assert holder.place is not None
    holder.place.answered(0.1)
    await settled()
    assert order == ["holder", "waiter"]
    for caller in (holder, waiter):
        await caller.leave()


async def test_a_limit_that_shrank_lets_nobody_in_until_enough_have_left() -> None:
    limit = SetLimit(3)
    places, order = Places(limit, PATIENT), list[str]()
    callers = await calling(places, order, *"abcd")
    limit.limit = 2
    await callers[0].leave()
    assert order == ["a", "b", "c"]
    await callers[1].leave()
    assert order == ["a", "b", "c", "d"]
    for caller in callers[2:]:
        await caller.leave()


async def test_the_limit_hears_what_became_of_each_place() -> None:
    limit = SetLimit(2)
    places = Places(limit, PATIENT)
    async with places.place(CRITICAL, 1.0) as first, places.place(CRITICAL, 1.0) as second:
        first.answered(0.25)
        second.dropped()
    assert limit.heard == [1, 2, (1, 0.25), (2, "dropped")]


async def test_a_failing_attempt_gives_its_place_back() -> None:
    places = Places(SetLimit(1), PATIENT)
    for _ in range(3):
        with pytest.raises(ValueError, match="whatever"):
            async with places.place(CRITICAL, 1.0):
                raise ValueError("whatever")
    assert places.under_way == 0


async def test_a_request_that_is_sent_away_costs_little() -> None:
    """Less than 100 us of processor each: a served one costs the router milliseconds."""
    places = Places(SetLimit(1), WaitingRules(per_place=0.0))
    async with places.place(CRITICAL, 1.0):
        began = time.process_time()
        for _ in range(1000):
            with suppress(Overloaded):
                async with places.place(CRITICAL, 1.0):
                    pass
        assert time.process_time() - began < 0.1


@given(
    calls=st.lists(
        st.tuples(
            st.sampled_from((CRITICAL, SHEDDABLE)),
            st.sampled_from((0.0, 0.0001, 0.001)),  # seconds its attempt takes
            st.sampled_from((None, 0.0, 0.0005)),  # seconds until it is cancelled
            st.sampled_from(("answered", "dropped", "silent")),
        ),
        max_size=30,
    ),
    initial=st.integers(1, 5),
    newest_first=st.booleans(),
)
@settings(max_examples=50, deadline=None)
def test_there_are_never_more_places_than_the_limit_and_every_waiter_ends(
    calls: list[tuple[Criticality, float, float | None, str]], initial: int, newest_first: bool
) -> None:
    rules = WaitingRules(seconds=0.002, deadline_share=1.0, per_place=1.0, newest_first=newest_first)
    limit = AdaptiveLimit(LimitRules(initial=initial, maximum=8, round_answers=2))
    places, inside, ended = Places(limit, rules), 0, 0

    async def call(criticality: Criticality, seconds: float, shows: str) -> None:
        nonlocal inside, ended
        try:
            async with places.place(criticality, 60.0) as place:
                inside += 1
                assert inside == places.under_way <= 8
                try:
                    if shows == "dropped":
                        place.dropped()
                    await asyncio.sleep(seconds)
                    if shows == "answered":
                        place.answered(seconds)
                finally:
                    inside -= 1
        except Overloaded:
            pass
        finally:
            ended += 1

    async def all_calls() -> None:
        loop, tasks = asyncio.get_running_loop(), []
        for criticality, seconds, cancelled_after, shows in calls:
            task = loop.create_task(call(criticality, seconds, shows))
            tasks.append(task)
            await asyncio.sleep(0)
            if cancelled_after is not None:
                loop.call_later(cancelled_after, task.cancel)
        async with asyncio.timeout(5.0):
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(all_calls())
    assert (ended, places.under_way, places.waiting) == (len(calls), 0, 0)


class TestTheLine:
    """Against a list that does the same in the plainest way."""

    @given(st.lists(st.sampled_from(("critical", "sheddable", "first", "last")), max_size=60), st.booleans())
    def test_it_orders_as_a_sorted_list_would(self, steps: list[str], newest_first: bool) -> None:
        async def compare() -> None:
            loop, line = asyncio.get_running_loop(), Line(newest_first=newest_first)
            plain: list[tuple[int, int, asyncio.Future[bool]]] = []
            for number, step in enumerate(steps):
                if step in {"critical", "sheddable"}:
                    waiter, criticality = loop.create_future(), Criticality(step)
                    line.join(waiter, criticality)
                    plain.append((step == "sheddable", -number if newest_first else number, waiter))
                    plain.sort(key=lambda one: one[:2])
                elif plain:
                    assert (line.first() if step == "first" else line.last()[0]) is plain.pop(
                        0 if step == "first" else -1
                    )[2]
                assert len(line) == len(plain)

        asyncio.run(compare())
