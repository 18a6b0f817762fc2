"""The policy file as tables, and the policies they become."""

import hashlib
import tomllib
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError

from marginal.errors import ConfigurationError
from marginal.policy.scores import QUANTILE, SCORES
from marginal.pricing import Price, nanos, price_version
from marginal.routing.policies import BypassRules, Criterion, DegradeRules, Policies, Policy, ShadowRules
from marginal.routing.requests import TASK, Mode
from marginal.settings.complaints import complained, placed
from marginal.settings.numbers import Amount, Count, Number, Seconds, Share, Table
from marginal.settings.prices import PricesTable
from marginal.settings.rules import RULES, CalibratedAtTable, CalibrationTable, RuleTable
from marginal.settings.text_files import SettingsFile
from marginal.tokens import Tier

DEGRADE = DegradeRules()
BYPASS = BypassRules()
SHADOW = ShadowRules()


def _registered(name: str) -> str:
    if name not in SCORES:
        raise ValueError(f"must be one of {', '.join(SCORES)}")
    return name


BUNDLED = Path(__file__).parents[1] / "policies.toml"
MOST_BYTES = 1_000_000

ScoreName = Annotated[str, AfterValidator(_registered)]
Window = Annotated[Count, Field(ge=0, le=4096)]


class _Degrade(Table):
    small_floor_seconds: Seconds = DEGRADE.small_floor_seconds
    large_floor_seconds: Seconds = DEGRADE.large_floor_seconds
    silence_seconds: Seconds = DEGRADE.silence_seconds
    retry_seconds: Seconds = DEGRADE.retry_seconds
    wake_seconds: Seconds = DEGRADE.wake_seconds


class _Bypass(Table):
    concurrency: Annotated[Count, Field(ge=0)] = BYPASS.concurrency
    per_second: Annotated[Number, Field(ge=0.0, le=1e6)] = BYPASS.per_second


class _Shadow(Table):
    share: Annotated[Number, Field(ge=0.0, le=1.0)] = SHADOW.share
    concurrency: Annotated[Count, Field(ge=1, le=1024)] = SHADOW.concurrency
    per_hour: Amount = Decimal(1)
    timeout_seconds: Annotated[Seconds, Field(gt=0.0)] = SHADOW.timeout_seconds
    texts: bool = SHADOW.texts

    def build(self, field: str) -> ShadowRules:
        hourly = nanos(self.per_hour, field=f"{field}.per_hour")
        return ShadowRules(self.share, self.concurrency, hourly, self.timeout_seconds, self.texts)


class _Criterion(Table):
    score: ScoreName
    window: Window = 0
    quantile: Share = QUANTILE
    threshold: RuleTable
    calibration: CalibrationTable | None = None
    calibrated_at: CalibratedAtTable | None = None

    def build(self, field: str, currency: str) -> Criterion:
        scale = SCORES[self.score].scale
        calibration = self.calibration.build(scale, f"{field}.calibration") if self.calibration else None
        return Criterion(
            score=self.score,
            window=self.window,
            quantile=self.quantile,
            rule=self.threshold.build(scale, f"{field}.threshold", calibration, currency),
            fingerprint=hashlib.sha256(f"{currency} {self._learnt_by()}".encode()).hexdigest()[:16],
            calibrated_at=self.calibrated_at.build() if self.calibrated_at else None,
        )

    def _learnt_by(self) -> str:
        """All that decides what a rule learns; with or without `calibrated_at` it learns the same."""
        return self.model_dump_json(exclude={"calibrated_at"})


class _Task(Table):
    """What a task has of its own; everything else is the policy's."""

    score: ScoreName | None = None
    window: Window | None = None
    quantile: Share | None = None
    threshold: RuleTable | None = None
    calibration: CalibrationTable | None = None
    calibrated_at: CalibratedAtTable | None = None


class _Policy(Table):
    version: Annotated[str, Field(min_length=1, max_length=64)]
    score: ScoreName
    window: Window = 0
    quantile: Share = QUANTILE
    threshold: RuleTable
    calibration: CalibrationTable | None = None
    calibrated_at: CalibratedAtTable | None = None
    on_missing_score: Literal["defer", "keep"] = "defer"
    mode: Literal["auto", "small_only", "large_only", "shadow"] = "auto"
    shadow: _Shadow = _Shadow()
    degrade: _Degrade = _Degrade()
    tasks: dict[Annotated[str, Field(pattern=f"^{TASK.pattern}$")], _Task] = Field(default_factory=dict)

    def criterion(self) -> _Criterion:
        """The policy's own criterion."""
        return _Criterion.model_construct(**{name: getattr(self, name) for name in _Criterion.model_fields})

    def task_criterion(self, task: _Task, field: str) -> _Criterion:
        """A task's own on top of it. Raises ConfigurationError for another score under the same threshold."""
        changed = {name: getattr(task, name) for name in _Task.model_fields if getattr(task, name) is not None}
        if changed.keys() & {"score", "window", "quantile"} and "threshold" not in changed:
            raise ConfigurationError(
                f"{field}: judges by another score than its policy, give it a threshold of its own"
            )
        if "threshold" in changed:
            changed = {"calibration": None, "calibrated_at": None} | changed
        return self.criterion().model_copy(update=changed)

    def build(self, name: str, currency: str, prices: dict[Tier, Price]) -> Policy:
        field = f"policies.{name}"
        return Policy(
            name=name,
            version=self.version,
            criterion=self.criterion().build(field, currency),
            tasks={
                label: self.task_criterion(task, place).build(place, currency)
                for label, task in self.tasks.items()
                if (place := f"{field}.tasks.{label}")
            },
            mode=Mode(self.mode),
            shadow=self.shadow.build(f"{field}.shadow"),
            defer_without_score=self.on_missing_score == "defer",
            currency=currency,
            prices=prices,
            price_version=price_version(currency, prices),
            degrade=DegradeRules(**self.degrade.model_dump()),
        )


class _File(Table):
    default: str
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")]
    prices: PricesTable
    bypass: _Bypass = _Bypass()
    policies: Annotated[dict[Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]{0,62}$")], _Policy], Field(min_length=1)]


def policies_file(path: Path | None = None) -> SettingsFile[Policies]:
    """A policy file, by its path; by default the bundled one."""
    return SettingsFile("policy file", path or BUNDLED, parse_policies, MOST_BYTES)


def read_policies(path: Path | None = None) -> Policies:
    """Reads a policy file, by default the bundled one. Raises ConfigurationError naming the file, field and line."""
    return policies_file(path).read()


def parse_policies(text: str) -> Policies:
    """Builds the policies of a TOML text. Raises ConfigurationError naming the field and its line."""
    try:
        file = _File.model_validate(tomllib.loads(text, parse_float=Decimal))
        if file.default not in file.policies:
            raise ConfigurationError(f"default: {file.default!r} is none of the policies {', '.join(file.policies)}")
        prices = file.prices.build(file.currency)
        by_name = {name: policy.build(name, file.currency, prices) for name, policy in file.policies.items()}
    except ValidationError as error:
        raise complained(error, text, named=_without_rules) from None
    except ConfigurationError as error:
        raise placed(error, text) from None
    except (ValueError, ArithmeticError, RecursionError) as error:
        # a number that is none, or nesting without end: tomllib lets through what int, Decimal and the stack raise
        raise ConfigurationError(f"is not TOML: {error or type(error).__name__}") from None
    return Policies(by_name, file.default, BypassRules(**file.bypass.model_dump()))


def _without_rules(where: Sequence[str]) -> Sequence[str]:
    """A threshold's rule tells its table apart for pydantic, and is no table in the file."""
    return [
        part for before, part in zip(["", *where], where, strict=False) if before != "threshold" or part not in RULES
    ]
