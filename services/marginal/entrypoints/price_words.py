"""Prices for people and for programs, as `marginal policy check` shows them."""

from collections.abc import Iterator

from marginal.entrypoints.wording import amounts
from marginal.pricing import Price
from marginal.routing.policies import Policy


def prices_in_words(policy: Policy) -> Iterator[str]:
    """A line for each tier, and the version of them all."""
    for tier, price in policy.prices.items():
        yield f"{tier.value} tier: {_in_words(price, policy.currency)}; {price.source}"
    yield f"prices {policy.price_version}"


def prices_as_json(policy: Policy) -> dict[str, object]:
    """The same as values, in nano-units."""
    return {
        "currency": policy.currency,
        "version": policy.price_version,
        "tiers": {
            tier.value: {
                "input_nanos_per_million_tokens": price.input_nanos_per_million,
                "cached_input_nanos_per_million_tokens": price.cached_input_nanos_per_million,
                "output_nanos_per_million_tokens": price.output_nanos_per_million,
                "call_nanos": price.call_nanos,
                "busy_hour_nanos": price.hour_nanos,
                "source": price.source,
            }
            for tier, price in policy.prices.items()
        },
    }


def _in_words(price: Price, currency: str) -> str:
    tokens = (price.input_nanos_per_million, price.cached_input_nanos_per_million, price.output_nanos_per_million)
    parts = []
    if any(tokens):
        read, cached, written = amounts(tokens, currency)
        parts.append(f"{read} in, {cached} cached, {written} out per million tokens")
    for nanos, what in ((price.call_nanos, "a call"), (price.hour_nanos, "a busy hour")):
        if nanos:
            parts.append(f"{amounts([nanos], currency)[0]} {what}")
    return ", ".join(parts) or "free"
