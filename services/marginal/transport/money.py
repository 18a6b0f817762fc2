"""Amounts of money on the wire and as nano-units, both directions."""

from google.type.money_pb2 import Money

from marginal.pricing import NANOS_PER_UNIT


def money(nanos: int, currency: str) -> Money:
    """Nano-units of a currency as `google.type.Money`."""
    units, rest = divmod(nanos, NANOS_PER_UNIT)
    return Money(currency_code=currency, units=units, nanos=rest)


def nanos_of(amount: Money) -> int:
    """`google.type.Money` as nano-units."""
    return int(amount.units) * NANOS_PER_UNIT + int(amount.nanos)
