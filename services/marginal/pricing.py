"""Prices and costs: exact integers, counted in nano-units (10^-9) of one currency."""

from dataclasses import dataclass
from decimal import Decimal

from marginal.errors import ConfigurationError
from marginal.tokens import Usage

NANOS_PER_UNIT = 1_000_000_000
TOKENS_PER_PRICE = 1_000_000


MICROS_PER_HOUR = 3_600_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """What a tier charges, in nano-units: per token in, out and cached, per call, and per hour that it is busy."""

    input_nanos: int = 0
    output_nanos: int = 0
    cached_input_nanos: int = 0
    call_nanos: int = 0
    hour_nanos: int = 0

    def cost(self, usage: Usage, busy_micros: int = 0) -> int:
        """Prices one attempt in nano-units; cached input tokens are charged at their own rate only.

        `busy_micros` is the attempt's share of the tier's busy time, in microseconds.
        """
        uncached = usage.input_tokens - usage.cached_input_tokens
        return (
            self.call_nanos
            + self.hour_nanos * busy_micros // MICROS_PER_HOUR
            + uncached * self.input_nanos
            + usage.cached_input_tokens * self.cached_input_nanos
            + usage.output_tokens * self.output_nanos
        )


def nanos(amount: Decimal, *, per: int, field: str) -> int:
    """Turns `amount` currency units per `per` items into whole nano-units per item.

    Raises ConfigurationError naming `field` when the amount is negative, not finite, or no whole number of nano-units.
    """
    if not amount.is_finite() or amount < 0:
        raise ConfigurationError(f"{field}: {amount} is not an amount of money, give a number that is 0 or more")
    each = amount * NANOS_PER_UNIT / per
    if each != each.to_integral_value():
        raise ConfigurationError(
            f"{field}: {amount} per {per} is {each} nano-units each, prices must be whole nano-units:"
            f" use a multiple of {Decimal(per) / NANOS_PER_UNIT}"
        )
    return int(each)
