from dataclasses import replace
from decimal import ROUND_HALF_UP, Context, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marginal.errors import ConfigurationError
from marginal.pricing import MICROS_PER_HOUR, TOKENS_PER_PRICE, Price, nanos, price_version
from marginal.tokens import Tier, Usage

HOUR = MICROS_PER_HOUR
RATES = st.integers(0, 10**15)
PRICES = st.builds(Price, RATES, RATES, RATES, RATES, RATES)
COUNTS = st.integers(0, 10**9)
USAGES = st.builds(lambda uncached, cached, output: Usage(uncached + cached, output, cached), COUNTS, COUNTS, COUNTS)
BUSY = st.integers(0, 10**12)
PRICE = Price(150_000_000, 600_000_000, 15_000_000, call_nanos=1000)


def test_an_attempt_costs_its_call_and_its_tokens() -> None:
    assert PRICE.cost(Usage(input_tokens=10, output_tokens=2)) == 1000 + 10 * 150 + 2 * 600


def test_cached_tokens_are_charged_at_their_own_rate_only() -> None:
    assert PRICE.cost(Usage(input_tokens=10, cached_input_tokens=4)) == 1000 + 6 * 150 + 4 * 15


def test_an_attempt_pays_for_its_share_of_the_tiers_hour() -> None:
    hourly = Price(hour_nanos=nanos(Decimal("4.50"), field="hour"))
    assert hourly.cost(Usage(10, 10), busy_micros=HOUR // 1000) == 4_500_000
    assert hourly.cost(Usage(10, 10)) == 0


def test_prices_finer_than_a_nano_unit_per_token_are_summed_up_before_they_are_rounded() -> None:
    fine = Price(input_nanos_per_million=nanos(Decimal("0.0375"), field="input"))
    assert [fine.cost(Usage(tokens)) for tokens in (0, 1, 2, 4, 1000)] == [0, 38, 75, 150, 37_500]


@pytest.mark.parametrize(("tokens", "cost"), [(499_999, 0), (500_000, 1), (1_499_999, 1), (1_500_000, 2)])
def test_a_half_of_a_nano_unit_is_rounded_up(tokens: int, cost: int) -> None:
    assert Price(input_nanos_per_million=1).cost(Usage(tokens)) == cost


@given(PRICES, USAGES, BUSY)
def test_a_cost_is_what_decimal_arithmetic_says_rounded_once(price: Price, usage: Usage, busy: int) -> None:
    exact = Context(prec=200, rounding=ROUND_HALF_UP)
    uncached = usage.input_tokens - usage.cached_input_tokens
    tokens = exact.divide(
        Decimal(
            uncached * price.input_nanos_per_million
            + usage.cached_input_tokens * price.cached_input_nanos_per_million
            + usage.output_tokens * price.output_nanos_per_million
        ),
        Decimal(TOKENS_PER_PRICE),
    )
    time = exact.divide(Decimal(price.hour_nanos * busy), Decimal(MICROS_PER_HOUR))
    total = exact.add(exact.add(Decimal(price.call_nanos), tokens), time)
    assert price.cost(usage, busy) == int(total.quantize(Decimal(1), context=exact))


@given(PRICES, USAGES, BUSY)
def test_a_cost_is_a_whole_number_and_never_negative(price: Price, usage: Usage, busy: int) -> None:
    cost = price.cost(usage, busy)
    assert isinstance(cost, int)
    assert cost >= 0


@given(PRICES, USAGES, BUSY, COUNTS)
def test_more_of_anything_never_costs_less(price: Price, usage: Usage, busy: int, more: int) -> None:
    cost = price.cost(usage, busy)
    cached = replace(
        usage,
        input_tokens=usage.input_tokens + more,
        cached_input_tokens=usage.cached_input_tokens + more,
    )
    for greater in (
        replace(usage, input_tokens=usage.input_tokens + more),
        replace(usage, output_tokens=usage.output_tokens + more),
        cached,
    ):
        assert price.cost(greater, busy) >= cost
    assert price.cost(usage, busy + more) >= cost


def test_currency_units_become_nano_units() -> None:
    assert nanos(Decimal("0.15"), field="input") == 150_000_000
    assert nanos(Decimal("0.0375"), field="input") == 37_500_000


@pytest.mark.parametrize(
    "amount",
    ["-1", "NaN", "sNaN", "Infinity", "0.0000000001", f"1.{'0' * 99}1", "1E-999999"],
)
def test_an_amount_that_cannot_be_counted_exactly_is_refused_by_name(amount: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^prices\.small\.input"):
        nanos(Decimal(amount), field="prices.small.input")


@given(PRICES, st.sampled_from(list(Tier)), st.integers(0, 4))
def test_the_version_of_a_price_list_changes_when_any_price_does(price: Price, tier: Tier, rate: int) -> None:
    field = (
        "input_nanos_per_million",
        "output_nanos_per_million",
        "cached_input_nanos_per_million",
        "call_nanos",
        "hour_nanos",
    )[rate]
    prices = {Tier.SMALL: price, Tier.LARGE: price}
    dearer = prices | {tier: replace(price, **{field: getattr(price, field) + 1})}
    assert price_version("USD", prices) == price_version("USD", dict(reversed(prices.items())))
    assert price_version("USD", prices) != price_version("USD", dearer)
    assert price_version("USD", prices) != price_version("EUR", prices)
    assert len(price_version("USD", prices)) == 12
