"""A tier that is paid by the hour: each attempt is charged its share of the time in which the tier was busy."""

import asyncio
from dataclasses import dataclass, replace

from marginal.backends.scripted import Script
from marginal.errors import TierUnavailable
from marginal.pricing import MICROS_PER_HOUR, Price
from marginal.routing.records import CostRecord
from marginal.routing.requests import Delta, Mode
from marginal.tokens import Tier
from unit.routing.cascade import INPUT_TOKENS, LARGE, PRICES, UNSURE, Cascade, script

MICRO = MICROS_PER_HOUR
"""A price by the hour of one nano-unit a microsecond."""

HOURLY = {Tier.SMALL: Price(hour_nanos=MICRO), Tier.LARGE: Price(hour_nanos=3 * MICRO, source="policy file")}


@dataclass
class Slow(Cascade):
    """A second passes with every delta."""

    async def send(self, delta: Delta) -> None:
        await super().send(delta)
        self.clock.now += 1.0


def one_token_at_a_time(tokens: tuple) -> Script:
    return replace(script(tokens), tokens_per_chunk=1)


async def ask_together(cascade: Cascade, times: int) -> list[CostRecord]:
    return await asyncio.gather(*(cascade.ask(mode=Mode.LARGE_ONLY) for _ in range(times)))


async def test_an_attempt_alone_pays_for_all_the_time_it_takes() -> None:
    cascade = Slow(large=one_token_at_a_time(LARGE), prices=HOURLY)
    record = await cascade.ask(mode=Mode.LARGE_ONLY)
    [attempt] = record.attempts
    assert attempt.busy_micros == round(attempt.seconds * 1e6) == 2_000_000
    assert record.total_nanos == record.always_large_nanos == 3 * attempt.busy_micros


async def test_attempts_at_the_same_time_pay_for_it_once() -> None:
    cascade = Slow(large=one_token_at_a_time(LARGE), prices=HOURLY)
    started = cascade.clock.now
    records = await ask_together(cascade, 4)
    shares = [attempt.busy_micros for record in records for attempt in record.attempts]
    assert abs(sum(shares) - (cascade.clock.now - started) * 1e6) <= len(shares)
    assert sum(attempt.seconds for record in records for attempt in record.attempts) > sum(shares) / 1e6


async def test_a_kept_answer_is_compared_with_the_usual_time_of_the_large_tier() -> None:
    cascade = Slow(large=one_token_at_a_time(LARGE), prices=HOURLY)
    await cascade.ask(mode=Mode.LARGE_ONLY)
    record = await cascade.ask()
    assert record.tier is Tier.SMALL
    assert record.always_large_nanos == 3 * 2_000_000


async def test_a_tier_that_never_answered_is_not_paid_for_its_time() -> None:
    cascade = Slow(small=script(UNSURE), large=script(LARGE, TierUnavailable("it is down")), prices=HOURLY)
    record = await cascade.ask()
    assert [attempt.busy_micros for attempt in record.attempts if attempt.tier is Tier.LARGE] == [0]


async def test_tokens_do_not_pay_for_time_unless_the_tier_is_paid_by_the_hour() -> None:
    cascade = Slow(prices=PRICES)
    [attempt] = (await cascade.ask()).attempts
    assert attempt.busy_micros > 0
    assert attempt.cost_nanos == 100 + INPUT_TOKENS + 3 * 10


async def test_a_record_says_which_prices_and_where_they_are_from() -> None:
    records = [await Cascade(prices=prices).ask() for prices in (HOURLY, PRICES)]
    assert records[0].price_version != records[1].price_version
    assert records[0].price_sources == {Tier.SMALL: "", Tier.LARGE: "policy file"}
