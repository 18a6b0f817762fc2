"""The threshold rules of a policy file: what each takes, and the rule it becomes."""

from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Annotated, Literal

from pydantic import Field

from marginal.errors import ConfigurationError
from marginal.policy.calibration import Calibration
from marginal.policy.scales import Scale
from marginal.policy.thresholds import Budget, Fixed, SpendRate, TargetRate
from marginal.policy.tracking import LEAST, MOST
from marginal.pricing import NANOS_PER_UNIT
from marginal.routing.policies import CalibratedAt, Rule
from marginal.settings.numbers import Amount, Count, Number, Share, Table

MEMORY = 5_000
"""Scores the paper's rule remembers in a service that runs on and on."""

_COLUMNS = {"scores": "score", "shares": "share"}

Step = Annotated[Number, Field(gt=0.0, le=0.2)]


class CalibrationTable(Table):
    """What `marginal calibrate` found: a column each, a value per block of scores, ascending."""

    score: list[Number]
    share: list[Number]
    small_correct: list[Number]
    large_correct: list[Number]
    kept_cost: list[Number]
    deferred_cost: list[Number]
    labels: Count
    least_threshold: Number | None = None

    def build(self, scale: Scale, field: str) -> Calibration:
        """The calibration on a score's scale. Raises ConfigurationError naming the column."""
        try:
            return Calibration(
                scores=tuple(self.score),
                shares=tuple(self.share),
                small_correct=tuple(self.small_correct),
                large_correct=tuple(self.large_correct),
                kept_cost=tuple(self.kept_cost),
                deferred_cost=tuple(self.deferred_cost),
                labels=self.labels,
                high=scale.high,
                low=scale.low,
                least_threshold=scale.low if self.least_threshold is None else self.least_threshold,
            )
        except ValueError as error:
            column, _, problem = str(error).partition(": ")
            raise ConfigurationError(f"{field}.{_COLUMNS.get(column, column)}: {problem}") from None


class CalibratedAtTable(Table):
    """The sampling of the run that a threshold was found on; of the same scores nobody knows at another."""

    temperature: Annotated[Number, Field(ge=0.0, le=2.0)]
    top_p: Annotated[Number, Field(gt=0.0, le=1.0)] = 1.0

    def build(self) -> CalibratedAt:
        """The value."""
        return CalibratedAt(self.temperature, self.top_p)


class FixedTable(Table):
    """Always the same threshold."""

    rule: Literal["fixed"]
    value: Number

    def build(self, scale: Scale, field: str, _: Calibration | None, __: str) -> Rule:
        value = _on(scale, self.value, f"{field}.value")
        return Rule(self.rule, f"defers below {value:g}", lambda: Fixed(value))


class BudgetTable(Table):
    """The paper's rule without a horizon; the costs are in any one unit."""

    rule: Literal["budget"]
    per_request: Annotated[Number, Field(gt=0.0)]
    small_cost: Annotated[Number, Field(ge=0.0)]
    large_cost: Annotated[Number, Field(gt=0.0)]
    memory: Annotated[Count, Field(ge=100, le=50_000)] = MEMORY

    def build(self, scale: Scale, field: str, _: Calibration | None, __: str) -> Rule:
        if self.per_request < self.small_cost:
            raise ConfigurationError(f"{field}.per_request: is less than small_cost, which every request costs")
        start = partial(
            Budget,
            self.per_request,
            small_cost=self.small_cost,
            large_cost=self.large_cost,
            scale=scale,
            memory=self.memory,
        )
        return Rule(self.rule, f"defers the least sure {start().share:.1%} of all it remembers", start, exact=True)


class TargetRateTable(Table):
    """Holds a deferral share."""

    rule: Literal["target_rate"]
    rate: Share
    start: Number | None = None
    step: Step = 0.02

    def build(self, scale: Scale, field: str, _: Calibration | None, __: str) -> Rule:
        start = None if self.start is None else _inside(scale, self.start, f"{field}.start")
        make = partial(TargetRate, self.rate, start=start, step=self.step, scale=scale)
        return Rule(self.rule, f"holds a deferral share of {self.rate:.1%}", make)


class SpendRateTable(Table):
    """Holds money per request, in the currency of the file; the expected costs are where it starts."""

    rule: Literal["spend_rate"]
    per_request: Annotated[Amount, Field(gt=0)]
    kept_cost: Amount | None = None
    deferred_cost: Amount | None = None
    start: Number | None = None
    step: Step = 0.02

    def build(self, scale: Scale, field: str, _: Calibration | None, currency: str) -> Rule:
        budget = self.per_request
        kept = budget / 2 if self.kept_cost is None else self.kept_cost
        deferred = budget * 2 if self.deferred_cost is None else self.deferred_cost
        if not kept <= budget <= deferred:
            raise ConfigurationError(
                f"{field}.per_request: is not between kept_cost {kept} and deferred_cost {deferred},"
                " what a request costs that is never and always deferred"
            )
        make = partial(
            SpendRate,
            _nanos(budget),
            kept_nanos=_nanos(kept),
            deferred_nanos=_nanos(deferred),
            start=None if self.start is None else _inside(scale, self.start, f"{field}.start"),
            step=self.step,
            scale=scale,
        )
        return Rule(self.rule, f"holds a spend of {budget:f} {currency} per request", make)


class CalibratedTable(Table):
    """The threshold that the calibration beside it says is best for one aim."""

    rule: Literal["calibrated"]
    quality: Annotated[Number, Field(gt=0.0, le=2.0)] | None = None
    cost: Annotated[Number, Field(gt=0.0, le=10.0)] | None = None
    share: Annotated[Number, Field(ge=0.0, le=1.0)] | None = None

    def build(self, scale: Scale, field: str, calibration: Calibration | None, _: str) -> Rule:
        if calibration is None:
            raise ConfigurationError(
                f"{field}.rule: calibrated needs a table `calibration` beside it: `marginal calibrate` writes both"
            )
        aims: dict[str, tuple[float | None, Callable[[float], float]]] = {
            "quality": (self.quality, calibration.threshold_for_quality),
            "cost": (self.cost, calibration.threshold_for_cost),
            "share": (self.share, calibration.threshold_for_share),
        }
        given = [(name, value, find) for name, (value, find) in aims.items() if value is not None]
        if len(given) != 1:
            raise ConfigurationError(f"{field}.rule: calibrated takes exactly one of quality, cost and share")
        [(name, aim, find)] = given
        try:
            value = find(aim)
        except ValueError as error:
            raise ConfigurationError(f"{field}.{name}: {error}") from None
        expected = calibration.expected(value)
        return Rule(
            self.rule,
            f"defers below {value:.4g}: expected quality {expected.quality:.1%}, cost {expected.cost:.1%}"
            f" of always-large, {expected.share:.1%} deferred ({calibration.labels:,} labels)",
            lambda: Fixed(scale.clamp(value)),
        )


class GuaranteedTable(Table):
    """A threshold that was certified: at most `epsilon` worse than always-large with probability 1 - `delta`."""

    rule: Literal["guaranteed"]
    value: Number
    epsilon: Share
    delta: Share
    labels: Annotated[Count, Field(ge=1)]

    def build(self, scale: Scale, field: str, _: Calibration | None, __: str) -> Rule:
        value = _on(scale, self.value, f"{field}.value")
        return Rule(
            self.rule,
            f"defers below {value:.4g}: at most {100 * self.epsilon:.2g} points worse than always-large"
            f" with probability {1 - self.delta:.0%} ({self.labels:,} labels)",
            lambda: Fixed(value),
        )


RuleTable = Annotated[
    FixedTable | BudgetTable | TargetRateTable | SpendRateTable | CalibratedTable | GuaranteedTable,
    Field(discriminator="rule"),
]
RULES = ("fixed", "budget", "target_rate", "spend_rate", "calibrated", "guaranteed")
"""Tags of the threshold rules; pydantic puts them into the place of an error."""


def _on(scale: Scale, value: float, field: str) -> float:
    if not scale.keep_all <= value <= scale.defer_all:
        raise ConfigurationError(f"{field}: is {value:g}, the score goes from {scale.low:g} to {scale.high:g}")
    return value


def _inside(scale: Scale, value: float, field: str) -> float:
    low, high = scale.at(LEAST), scale.at(MOST)
    if not low <= value <= high:
        raise ConfigurationError(f"{field}: is {value:g}, a threshold that moves stays within {low:.4g} to {high:.4g}")
    return value


def _nanos(amount: Decimal) -> float:
    return float(amount * NANOS_PER_UNIT)
