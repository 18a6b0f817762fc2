from pathlib import Path

import pytest

from marginal.errors import ConfigurationError
from marginal.policy.thresholds import Fixed, TargetRate
from marginal.settings import parse_policies, read_policies
from marginal.tokens import EarlyStop, Tier

GOOD = """
default = "one"
currency = "EUR"

[prices.small]
input_per_million_tokens = 0.05
output_per_million_tokens = 0.2

[prices.large]
input_per_million_tokens = 1
output_per_million_tokens = 4
cached_input_per_million_tokens = 0.1
per_call = 0.000001

[bypass]
concurrency = 2

[policies.one]
version = "7"
score = "min_margin"
window = 4
threshold = { rule = "fixed", value = 0.25 }
on_missing_score = "keep"
degrade = { silence_seconds = 2.5 }

[policies.two]
version = "1"
score = "mean_margin"
threshold = { rule = "target_rate", rate = 0.3, start = 0.5 }
"""


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new, 1)


def test_a_policy_file_becomes_policies() -> None:
    policies = parse_policies(GOOD)
    one, two = policies.by_name["one"], policies.by_name["two"]
    assert policies.default == "one"
    assert one.rule() == EarlyStop("min_margin", 4, 0.25, defer_without_score=False)
    assert (one.version, one.currency, one.defer_without_score) == ("7", "EUR", False)
    assert one.degrade.silence_seconds == 2.5
    assert policies.bypass.concurrency == 2
    assert isinstance(one.threshold, Fixed)
    assert isinstance(two.threshold, TargetRate)
    assert two.rule().threshold == 0.5


def test_prices_are_whole_nano_units_and_cached_tokens_cost_the_same_unless_said() -> None:
    prices = parse_policies(GOOD).by_name["one"].prices
    assert (prices[Tier.SMALL].input_nanos, prices[Tier.SMALL].cached_input_nanos) == (50, 50)
    assert (prices[Tier.LARGE].cached_input_nanos, prices[Tier.LARGE].call_nanos) == (100, 1000)


def test_the_bundled_policies_are_good() -> None:
    assert "default" in read_policies().by_name


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (changed('default = "one"', 'default = "three"'), "default"),
        (changed('currency = "EUR"', 'currency = "euro"'), "currency"),
        (changed("value = 0.25", "value = 1.25"), "policies.one.threshold.value"),
        (changed("value = 0.25", "value = nan"), "policies.one.threshold.value"),
        (changed('rule = "fixed"', 'rule = "guess"'), "policies.one.threshold"),
        (changed("rate = 0.3", "rate = 0"), "policies.two.threshold.rate"),
        (changed('score = "min_margin"', 'score = "luck"'), "policies.one.score"),
        (changed("window = 4", "window = -1"), "policies.one.window"),
        (changed("window = 4", "window = true"), "policies.one.window"),
        (changed("value = 0.25", 'value = "0.25"'), "policies.one.threshold.value"),
        (changed("value = 0.25", "value = true"), "policies.one.threshold.value"),
        (changed("= 0.05", "= 1e30"), "prices.small.input_per_million_tokens"),
        (changed("= 0.05", "= 1e999999"), "prices.small.input_per_million_tokens"),
        (changed("concurrency = 2", "concurrency = -2"), "bypass.concurrency"),
        (changed('version = "7"', "version = 7"), "policies.one.version"),
        (changed("window = 4", "windw = 4"), "policies.one.windw"),
        (changed('"keep"', '"guess"'), "policies.one.on_missing_score"),
        (changed("= 0.05", "= -0.05"), "prices.small.input_per_million_tokens"),
        (changed("= 0.05", "= 0.00001"), "prices.small.input_per_million_tokens"),
        (changed("= 0.05", "= inf"), "prices.small.input_per_million_tokens"),
        (changed("[policies.two]", "[policies.Two]"), "policies.Two"),
        (changed("currency", "curency"), "currency"),
    ],
    ids=lambda value: value if "\n" not in value else "",
)
def test_a_bad_field_is_named(text: str, field: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"(^|; ){field}\b"):
        parse_policies(text)


def test_what_is_not_toml_says_where() -> None:
    with pytest.raises(ConfigurationError, match="line 2"):
        parse_policies("default = 'a'\noops\n")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.toml"):
        read_policies(tmp_path / "none.toml")
