"""The kinds of number that policy and tenants files hold."""

from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from marginal.pricing import NANOS_PER_UNIT
from marginal.routing.holds import MOST_NANOS


def _not_a_bool_or_text(value: object) -> object:
    """Keeps pydantic from reading true as 1 and "4" as 4."""
    if isinstance(value, bool | str):
        raise ValueError("must be a number")
    return value


Number = Annotated[float, BeforeValidator(_not_a_bool_or_text), Field(allow_inf_nan=False)]
Count = Annotated[int, BeforeValidator(_not_a_bool_or_text)]
Amount = Annotated[Decimal, BeforeValidator(_not_a_bool_or_text), Field(ge=0, le=1_000_000)]
BudgetAmount = Annotated[Decimal, BeforeValidator(_not_a_bool_or_text), Field(ge=0, le=MOST_NANOS // NANOS_PER_UNIT)]
Share = Annotated[Number, Field(gt=0.0, lt=1.0)]
Seconds = Annotated[Number, Field(ge=0.0, le=3600.0)]


class Table(BaseModel):
    """A table of the file: no unknown keys, nothing changes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
