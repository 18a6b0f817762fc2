from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marginal.errors import ConfigurationError
from marginal.pricing import TOKENS_PER_PRICE, Price, nanos
from marginal.tokens import Usage

COUNTS = st.integers(0, 10**9)
PRICE = Price(input_nanos=150, output_nanos=600, cached_input_nanos=15, call_nanos=1000)


def test_an_attempt_costs_its_call_and_its_tokens() -> None:
    assert PRICE.cost(Usage(input_tokens=10, output_tokens=2)) == 1000 + 10 * 150 + 2 * 600


def test_cached_tokens_are_charged_at_their_own_rate_only() -> None:
    assert PRICE.cost(Usage(input_tokens=10, cached_input_tokens=4)) == 1000 + 6 * 150 + 4 * 15


@given(COUNTS, COUNTS)
def test_costs_are_exact_integers_whatever_the_size(tokens_in: int, tokens_out: int) -> None:
    cost = PRICE.cost(Usage(tokens_in, tokens_out))
    assert isinstance(cost, int)
    assert cost == 1000 + tokens_in * 150 + tokens_out * 600


def test_a_price_per_million_tokens_becomes_nano_units_per_token() -> None:
    assert nanos(Decimal("0.15"), per=TOKENS_PER_PRICE, field="input") == 150


@pytest.mark.parametrize("amount", ["-1", "NaN", "Infinity", "0.0001"])
def test_an_amount_that_cannot_be_counted_exactly_is_refused_by_name(amount: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^prices\.small\.input"):
        nanos(Decimal(amount), per=TOKENS_PER_PRICE, field="prices.small.input")
