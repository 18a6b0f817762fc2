"""Amounts of money on the wire and as nano-units, both directions."""

import math

from google.type.money_pb2 import Money

from marginal.errors import InvalidRequest
from marginal.pricing import NANOS_PER_UNIT


def money(nanos: int, currency: str) -> Money:
    """Nano-units of a currency as `google.type.Money`."""
    units, rest = divmod(abs(nanos), NANOS_PER_UNIT)
    sign = int(math.copysign(1, nanos))
    return Money(currency_code=currency, units=sign * units, nanos=sign * rest)


def nanos_of(amount: Money) -> int:
    """`google.type.Money` as nano-units."""
    return int(amount.units) * NANOS_PER_UNIT + int(amount.nanos)


def amount_from(amount: Money, *, field: str) -> int:
    """What a caller gives as an amount, in nano-units. Raises InvalidRequest for a negative or malformed one."""
    if amount.units < 0 or not 0 <= amount.nanos < NANOS_PER_UNIT:
        raise InvalidRequest(field, "must be 0 or more, with nanos from 0 to 999999999")
    return nanos_of(amount)
