"""The tenants file as tables, and the rules they become; budgets are in the currency of the policy file."""

import math
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from marginal.errors import ConfigurationError
from marginal.pricing import nanos
from marginal.routing.holds import Budget, Window
from marginal.routing.tenants import TENANT, TenantRules, Tenants
from marginal.settings.complaints import complained, placed
from marginal.settings.numbers import BudgetAmount, Count, Number, Table
from marginal.settings.text_files import SettingsFile

MOST_BYTES = 4_000_000

PolicyName = Annotated[str, Field(min_length=1, max_length=64)]


class _Budget(Table):
    per_hour: BudgetAmount | None = None
    per_day: BudgetAmount | None = None
    per_month: BudgetAmount | None = None

    def build(self, field: str) -> Budget:
        amounts = {window: getattr(self, f"per_{window.value}") for window in Window}
        return Budget(
            {
                window: nanos(amount, field=f"{field}.per_{window.value}")
                for window, amount in amounts.items()
                if amount is not None
            }
        )


class _Rules(Table):
    budget: _Budget = _Budget()
    per_second: Annotated[Number, Field(gt=0.0, le=1e6)] | None = None
    burst: Annotated[Count, Field(ge=1, le=1_000_000)] | None = None
    concurrency: Annotated[Count, Field(ge=1, le=1_000_000)] | None = None
    deferral_share: Annotated[Number, Field(ge=0.0, le=1.0)] | None = None
    policies: Annotated[list[PolicyName], Field(min_length=1)] | None = None

    def build(self, field: str) -> TenantRules:
        return TenantRules(
            budget=self.budget.build(f"{field}.budget"),
            per_second=self.per_second,
            burst=self.burst or math.ceil(self.per_second or 1),
            concurrency=self.concurrency,
            deferral_share=self.deferral_share,
            policies=frozenset(self.policies or ()),
        )


class _File(Table):
    others: _Rules = _Rules()
    tenants: dict[Annotated[str, Field(pattern=f"^{TENANT.pattern}$")], _Rules] = Field(default_factory=dict)


def tenants_file(path: Path) -> SettingsFile[Tenants]:
    """A tenants file, by its path."""
    return SettingsFile("tenants file", path, parse_tenants, MOST_BYTES)


def parse_tenants(text: str) -> Tenants:
    """Builds the rules of a TOML text; a rate without a burst allows that of one second at once.

    Raises ConfigurationError naming the field and its line.
    """
    try:
        file = _File.model_validate(tomllib.loads(text, parse_float=Decimal))
        return Tenants(
            {name: rules.build(f"tenants.{name}") for name, rules in file.tenants.items()}, file.others.build("others")
        )
    except ValidationError as error:
        raise complained(error, text) from None
    except ConfigurationError as error:
        raise placed(error, text) from None
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise ConfigurationError(f"is not TOML: {error or type(error).__name__}") from None
