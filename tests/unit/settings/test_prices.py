"""Prices are of tokens, calls and hours in any combination, or what a catalogue lists; what is wrong is named."""

import re
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import version

import pytest

from marginal.errors import ConfigurationError
from marginal.pricing import MICROS_PER_HOUR, Price
from marginal.routing.policies import Policy
from marginal.settings import parse_policies
from marginal.settings.list_prices import list_price
from marginal.tokens import Tier, Usage

TOKENS = "input_per_million_tokens = 0.05\noutput_per_million_tokens = 0.2"
LARGE_LINE = 8


def policy_text(*, small: str = TOKENS, large: str = TOKENS, currency: str = "USD") -> str:
    """A policy file with these prices; those of the large tier begin on line 9, if the small ones have two lines."""
    return f"""
default = "one"
currency = "{currency}"
[prices.small]
{small}
[prices.large]
{large}
[policies.one]
version = "1"
score = "min_margin"
threshold = {{ rule = "fixed", value = 0.25 }}
"""


def policy_of(*, small: str = TOKENS, large: str = TOKENS, currency: str = "USD") -> Policy:
    return parse_policies(policy_text(small=small, large=large, currency=currency)).by_name["one"]


def large_price(large: str, *, currency: str = "USD") -> Price:
    return policy_of(large=large, currency=currency).prices[Tier.LARGE]


def test_prices_are_per_million_tokens_and_cached_ones_cost_the_same_unless_said() -> None:
    assert large_price(f"{TOKENS}\nper_call = 0.000001") == Price(
        50_000_000, 200_000_000, 50_000_000, call_nanos=1000, source="policy file"
    )
    assert large_price(f"{TOKENS}\ncached_input_per_million_tokens = 0.0").cached_input_nanos_per_million == 0


def test_prices_may_be_finer_than_a_nano_unit_per_token() -> None:
    fine = large_price("input_per_million_tokens = 0.0375\noutput_per_million_tokens = 0.15")
    assert fine.cost(Usage(2)) == 75


def test_an_hour_is_that_of_all_accelerators_together() -> None:
    price = large_price("per_accelerator_hour = 2.5\naccelerators = 4")
    assert price.cost(Usage(1_000, 1_000), busy_micros=MICROS_PER_HOUR) == 10 * 10**9
    assert large_price("per_accelerator_hour = 2.5").hour_nanos == 2_500_000_000
    assert large_price("per_accelerator_hour = 2.5\naccelerators = 0.5").hour_nanos == 1_250_000_000


def test_tokens_calls_and_hours_can_be_paid_together() -> None:
    price = large_price(f"{TOKENS}\nper_call = 1\nper_accelerator_hour = 1")
    assert price.cost(Usage(1_000_000), busy_micros=MICROS_PER_HOUR) == 2_050_000_000


def test_a_price_by_the_call_alone_is_a_price_and_so_is_nothing_when_it_is_said() -> None:
    assert large_price("per_call = 0.002").cost(Usage(10, 10)) == 2_000_000
    assert large_price("per_call = 0").cost(Usage(10, 10)) == 0


def test_a_model_of_the_catalogue_has_its_list_price_and_says_so() -> None:
    price = large_price('catalogue = "openai/gpt-4o-mini"')
    assert price == Price(
        150_000_000, 600_000_000, 75_000_000, source=f"genai-prices {version('genai-prices')} openai/gpt-4o-mini"
    )


def test_cached_input_costs_the_same_where_the_catalogue_lists_no_price_for_it() -> None:
    price = list_price("deepseek/deepseek-v3.2")
    assert price.cached_input_nanos_per_million == price.input_nanos_per_million == 228_800_000


def test_a_price_by_the_call_is_taken_from_the_catalogue_too() -> None:
    assert list_price("perplexity/sonar").call_nanos == int(Decimal("0.012") * 10**9)


def test_a_list_price_that_changed_is_that_of_the_day() -> None:
    before, after = (list_price("openai/o3", now=datetime(2025, 6, day, tzinfo=UTC)) for day in (9, 11))
    assert (before.input_nanos_per_million, after.input_nanos_per_million) == (10_000_000_000, 2_000_000_000)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("openai/gpt-4o-minni", "is not in genai-prices .*, the nearest are openai/gpt-4o-mini"),
        ("gpt-4o-mini", "is not in genai-prices .*, the nearest are"),
        ("?", 'names are like "openai/gpt-4o-mini"'),
        ("google/gemini-2.5-pro", "has tiers in its input_mtok, by the length of the prompt"),
        ("deepseek/deepseek-chat", "depend on the time of day"),
        ("openai/gpt-5.6-cyber", "charges cache_write_mtok too, which is not counted here"),
        ("perplexity/sonar-deep-research", "charges output_(reasoning|citation)_mtok too"),
        ("openai/text-embedding-3-small", "has no price per token in and out"),
    ],
)
def test_a_model_that_cannot_be_priced_exactly_is_refused_in_a_sentence(name: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^prices\.large\.catalogue \(line {LARGE_LINE}\): .*{problem}"):
        policy_of(large=f'catalogue = "{name}"')


def test_list_prices_are_in_dollars_only() -> None:
    with pytest.raises(ConfigurationError, match="lists prices in USD, this file's currency is EUR"):
        policy_of(large='catalogue = "openai/gpt-4o-mini"', currency="EUR")


@pytest.mark.parametrize(
    ("large", "field", "problem"),
    [
        ("", "prices.large", "has no price, give"),
        ("input_per_million_tokens = 1", "prices.large.output_per_million_tokens", "field required"),
        ("output_per_million_tokens = 1", "prices.large.input_per_million_tokens", "field required"),
        (
            "per_call = 1\ncached_input_per_million_tokens = 1",
            "prices.large.input_per_million_tokens",
            "field required",
        ),
        ("per_call = 1\naccelerators = 2", "prices.large.per_accelerator_hour", "since accelerators is there"),
        ("per_accelerator_hour = 1\naccelerators = 0", "prices.large.accelerators", "greater than 0"),
        ("per_accelerator_hour = 0.000000001\naccelerators = 0.5", "prices.large.accelerators", "no whole number"),
        ("per_accelerator_hour = nan", "prices.large.per_accelerator_hour", ""),
        ("per_accelerator_hour = -1", "prices.large.per_accelerator_hour", ""),
        ("per_accelerator_hour = 1e300", "prices.large.per_accelerator_hour", ""),
        ("per_accelerator_hour = 1\naccelerators = 1e300", "prices.large.accelerators", ""),
        ("per_accelerator_hour = 1\naccelerators = true", "prices.large.accelerators", "must be a number"),
        ("per_call = 1e-10", "prices.large.per_call", "more than the nine decimal places"),
        ("per_call = inf", "prices.large.per_call", ""),
        ('per_call = 1\ncatalogue = "openai/gpt-4o-mini"', "prices.large.per_call", "is set beside a catalogue"),
        ("catalogue = 4", "prices.large.catalogue", "string"),
    ],
)
def test_a_bad_price_is_refused_with_its_field_and_line(large: str, field: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{re.escape(field)} \(line \d+\): .*{problem}"):
        policy_of(large=large)


def test_another_price_is_another_version_of_the_list() -> None:
    first, same = policy_of(), policy_of(small=f"{TOKENS}\nper_call = 0")
    dearer = policy_of(small=f"{TOKENS}\nper_call = 0.000000001")
    assert first.price_version == same.price_version != dearer.price_version
    assert re.fullmatch("[0-9a-f]{12}", first.price_version)


def test_the_catalogue_is_read_by_those_only_who_name_it() -> None:
    script = (
        "import sys; from marginal.settings import read_policies; read_policies();"
        " sys.exit('genai_prices' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0  # noqa: S603
