"""List prices of hosted models, from the data that `genai-prices` brings along: nothing is fetched."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from difflib import get_close_matches
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from marginal.errors import ConfigurationError
from marginal.pricing import Price, nanos

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo

CATALOGUE = "genai-prices"
CURRENCY = "USD"

_NEVER_ASKED = ("audio", "image", "video", "document", "searches")
"""Parts of the names of what Marginal asks no model for."""

_COUNTED = ("input_mtok", "output_mtok", "cache_read_mtok", "requests_kcount")


def list_price(name: str, *, now: datetime | None = None) -> Price:
    """The price of "provider/model", as it is `now`, by default today.

    Raises ConfigurationError for a name that is not listed, with the nearest that are, and for a price that is not the
    same for every token of a kind.
    """
    model = _model(name)
    rates = _rates(name, model, now or datetime.now(UTC))
    counted = {rate: _plain(name, rate, amount) for rate, amount in rates.items() if rate in _COUNTED}
    for rate in rates.keys() - counted.keys():
        if not any(part in rate for part in _NEVER_ASKED):
            raise ConfigurationError(f"{name} charges {rate} too, which is not counted here; write its prices out")
    if "input_mtok" not in counted or "output_mtok" not in counted:
        raise ConfigurationError(f"{name} has no price per token in and out; write its prices out")
    read = nanos(counted["input_mtok"], field=name)
    return Price(
        input_nanos_per_million=read,
        output_nanos_per_million=nanos(counted["output_mtok"], field=name),
        cached_input_nanos_per_million=(
            nanos(counted["cache_read_mtok"], field=name) if "cache_read_mtok" in counted else read
        ),
        call_nanos=nanos(counted.get("requests_kcount", Decimal(0)) / 1000, field=name),
        source=f"{CATALOGUE} {version(CATALOGUE)} {name}",
    )


def _model(name: str) -> "ModelInfo":
    from genai_prices.data import providers  # more than a second of every command's start

    listed = {f"{provider.id}/{model.id}": model for provider in providers for model in provider.models}
    if name in listed:
        return listed[name]
    near = get_close_matches(name, listed, n=3)
    advice = f"the nearest are {', '.join(near)}" if near else 'names are like "openai/gpt-4o-mini"'
    raise ConfigurationError(f"{name} is not in {CATALOGUE} {version(CATALOGUE)}, {advice}")


def _rates(name: str, model: "ModelInfo", now: datetime) -> Mapping[str, Any]:
    """What the model charges, by the catalogue's names."""
    from genai_prices.types import ModelPrice, TimeOfDateConstraint

    prices = model.prices
    if not isinstance(prices, ModelPrice) and any(isinstance(one.constraint, TimeOfDateConstraint) for one in prices):
        raise ConfigurationError(f"{name} has prices that depend on the time of day; write its prices out")
    return {rate: amount for rate, amount in vars(model.get_prices(now)).items() if amount is not None}


def _plain(name: str, rate: str, amount: object) -> Decimal:
    if not isinstance(amount, Decimal):
        raise ConfigurationError(f"{name} has tiers in its {rate}, by the length of the prompt; write its prices out")
    return amount
