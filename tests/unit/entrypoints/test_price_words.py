from marginal.entrypoints.price_words import prices_as_json, prices_in_words
from marginal.settings import parse_policies

FILE = """
default = "one"
currency = "USD"
[prices.small]
per_accelerator_hour = 2.5
accelerators = 2
per_call = 0
[prices.large]
catalogue = "openai/gpt-4o-mini"
[policies.one]
version = "1"
score = "min_margin"
threshold = { rule = "fixed", value = 0.25 }
"""


def test_prices_are_told_with_their_source_and_version() -> None:
    policy = parse_policies(FILE).by_name["one"]
    small, large, version = prices_in_words(policy)
    assert small == "small tier: $5.00 a busy hour; policy file"
    assert large.startswith("large tier: $0.150 in, $0.075 cached, $0.600 out per million tokens; genai-prices ")
    assert large.endswith(" openai/gpt-4o-mini")
    assert version == f"prices {policy.price_version}"


def test_what_costs_nothing_is_said_to_be_free() -> None:
    [small, *_] = prices_in_words(parse_policies(FILE.replace("2.5", "0")).by_name["one"])
    assert small == "small tier: free; policy file"


def test_prices_for_programs_are_in_nano_units() -> None:
    policy = parse_policies(FILE).by_name["one"]
    told = prices_as_json(policy)
    assert (told["currency"], told["version"]) == ("USD", policy.price_version)
    assert told["tiers"]["small"]["busy_hour_nanos"] == 5_000_000_000
    assert told["tiers"]["large"]["cached_input_nanos_per_million_tokens"] == 75_000_000
