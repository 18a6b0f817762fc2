"""Prices and costs: exact integers, counted in nano-units (10^-9) of one currency."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Context, Decimal, Inexact

from marginal.errors import ConfigurationError
from marginal.tokens import Tier, Usage

NANOS_PER_UNIT = 1_000_000_000
TOKENS_PER_PRICE = 1_000_000
MICROS_PER_HOUR = 3_600_000_000

_PARTS = MICROS_PER_HOUR
"""Costs are summed up in so many parts of a nano-unit, of which tokens and microseconds are whole numbers."""

_TOKEN_PARTS = _PARTS // TOKENS_PER_PRICE
_EXACT = Context(prec=64, traps=[Inexact])


@dataclass(frozen=True, slots=True)
class Price:
    """What a tier charges, in nano-units: per million tokens in, out and cached, per call, and per hour it is busy.

    An hour is that of all its accelerators together. `source` says in words where the price is from.
    """

    input_nanos_per_million: int = 0
    output_nanos_per_million: int = 0
    cached_input_nanos_per_million: int = 0
    call_nanos: int = 0
    hour_nanos: int = 0
    source: str = ""

    def cost(self, usage: Usage, busy_micros: int = 0) -> int:
        """Prices one attempt: the exact sum of everything, rounded once, half up, to a whole nano-unit.

        Cached input tokens are charged at their own rate only. `busy_micros` is the attempt's share of the tier's busy
        time, in microseconds.
        """
        tokens = (
            (usage.input_tokens - usage.cached_input_tokens) * self.input_nanos_per_million
            + usage.cached_input_tokens * self.cached_input_nanos_per_million
            + usage.output_tokens * self.output_nanos_per_million
        )
        parts = self.call_nanos * _PARTS + tokens * _TOKEN_PARTS + busy_micros * self.hour_nanos
        return (2 * parts + _PARTS) // (2 * _PARTS)

    @property
    def rates(self) -> tuple[int, ...]:
        """Every rate, which is all that a cost depends on."""
        return (
            self.input_nanos_per_million,
            self.output_nanos_per_million,
            self.cached_input_nanos_per_million,
            self.call_nanos,
            self.hour_nanos,
        )


def price_version(currency: str, prices: Mapping[Tier, Price]) -> str:
    """Names a list of prices in 12 hexadecimal digits, others as soon as any price or the currency is another."""
    listed = [currency, *(f"{tier.value} {prices[tier].rates}" for tier in sorted(prices, key=lambda tier: tier.value))]
    return hashlib.sha256("\n".join(listed).encode()).hexdigest()[:12]


def nanos(amount: Decimal, *, field: str) -> int:
    """Turns currency units into nano-units.

    Raises ConfigurationError naming `field` when the amount is negative, not finite, or no whole number of nano-units.
    """
    if not amount.is_finite() or amount < 0:
        raise ConfigurationError(f"{field}: {amount} is not an amount of money, give a number that is 0 or more")
    try:
        each = _EXACT.multiply(amount, Decimal(NANOS_PER_UNIT))
    except Inexact:
        raise ConfigurationError(f"{field}: has more digits than an amount of money") from None
    if each != each.to_integral_value():
        raise ConfigurationError(f"{field}: {amount} has more than the nine decimal places that are counted")
    return int(each)
