"""The prices of a policy file: what a table of them takes, and the price it becomes."""

from decimal import Decimal
from typing import Annotated

from pydantic import Field

from marginal.errors import ConfigurationError
from marginal.pricing import Price, nanos
from marginal.settings.list_prices import CURRENCY, list_price
from marginal.settings.numbers import Amount, Table
from marginal.tokens import Tier

FROM_THE_FILE = "policy file"


class PriceTable(Table):
    """What one tier charges: tokens, calls and hours in any combination, or what a catalogue lists for a model."""

    input_per_million_tokens: Amount | None = None
    output_per_million_tokens: Amount | None = None
    cached_input_per_million_tokens: Amount | None = None
    per_call: Amount | None = None
    per_accelerator_hour: Amount | None = None
    accelerators: Annotated[Amount, Field(gt=0)] | None = None
    catalogue: Annotated[str, Field(min_length=1, max_length=200)] | None = None

    def build(self, field: str, currency: str) -> Price:
        """The price. Raises ConfigurationError naming a field that is missing, or in the way of another."""
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if self.catalogue is not None:
            if len(given) > 1:
                raise ConfigurationError(f"{field}.{given[0]}: is set beside a catalogue, which has the whole price")
            return _listed(self.catalogue, f"{field}.catalogue", currency)
        if not given:
            raise ConfigurationError(
                f"{field}: has no price, give input_per_million_tokens and output_per_million_tokens, per_call,"
                " per_accelerator_hour or a catalogue"
            )
        for name, needed in _NEEDS:
            if name in given and needed not in given:
                raise ConfigurationError(f"{field}.{needed}: field required, since {name} is there")
        read = self._nanos("input_per_million_tokens", field)
        cached = self.cached_input_per_million_tokens is not None
        return Price(
            input_nanos_per_million=read,
            output_nanos_per_million=self._nanos("output_per_million_tokens", field),
            cached_input_nanos_per_million=self._nanos("cached_input_per_million_tokens", field) if cached else read,
            call_nanos=self._nanos("per_call", field),
            hour_nanos=self._hour(field),
            source=FROM_THE_FILE,
        )

    def _nanos(self, name: str, field: str) -> int:
        return nanos(getattr(self, name) or Decimal(0), field=f"{field}.{name}")

    def _hour(self, field: str) -> int:
        each = self._nanos("per_accelerator_hour", field)
        hour = each * (1 if self.accelerators is None else self.accelerators)
        if hour != int(hour):
            raise ConfigurationError(f"{field}.accelerators: make an hour cost {hour} nano-units, no whole number")
        return int(hour)


class PricesTable(Table):
    """The prices of both tiers."""

    small: PriceTable
    large: PriceTable

    def build(self, currency: str) -> dict[Tier, Price]:
        """The price of each tier. Raises ConfigurationError naming the field."""
        return {
            Tier.SMALL: self.small.build("prices.small", currency),
            Tier.LARGE: self.large.build("prices.large", currency),
        }


_NEEDS = (
    ("input_per_million_tokens", "output_per_million_tokens"),
    ("output_per_million_tokens", "input_per_million_tokens"),
    ("cached_input_per_million_tokens", "input_per_million_tokens"),
    ("accelerators", "per_accelerator_hour"),
)


def _listed(name: str, field: str, currency: str) -> Price:
    if currency != CURRENCY:
        raise ConfigurationError(f"{field}: lists prices in {CURRENCY}, this file's currency is {currency}")
    try:
        return list_price(name)
    except ConfigurationError as error:
        raise ConfigurationError(f"{field}: {error}") from None
