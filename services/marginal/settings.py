"""Reads the policy file into values; every complaint names the field and what it takes."""

import tomllib
from decimal import Decimal
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from marginal.errors import ConfigurationError
from marginal.policy.scores import SCORES
from marginal.policy.thresholds import Fixed, TargetRate, Threshold
from marginal.pricing import TOKENS_PER_PRICE, Price, nanos
from marginal.routing.policies import BypassRules, DegradeRules, Policies, Policy
from marginal.tokens import Tier

RULES = ("fixed", "target_rate")
"""Tags of the threshold rules; pydantic puts them into the place of an error."""

DEGRADE = DegradeRules()
BYPASS = BypassRules()


def _not_a_bool_or_text(value: object) -> object:
    """Keeps pydantic from reading true as 1 and "4" as 4."""
    if isinstance(value, bool | str):
        raise ValueError("must be a number")
    return value


Number = Annotated[float, BeforeValidator(_not_a_bool_or_text), Field(allow_inf_nan=False)]
Count = Annotated[int, BeforeValidator(_not_a_bool_or_text)]
Amount = Annotated[Decimal, BeforeValidator(_not_a_bool_or_text), Field(ge=0, le=1_000_000)]
Share = Annotated[Number, Field(gt=0.0, lt=1.0)]
Seconds = Annotated[Number, Field(ge=0.0, le=3600.0)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Fixed(_Table):
    rule: Literal["fixed"]
    value: Annotated[Number, Field(ge=0.0, le=1.0)]

    def build(self) -> Threshold:
        return Fixed(self.value)


class _TargetRate(_Table):
    rule: Literal["target_rate"]
    rate: Share
    start: Share
    step: Annotated[Number, Field(gt=0.0, le=0.2)] = 0.02

    def build(self) -> Threshold:
        return TargetRate(self.rate, start=self.start, step=self.step)


class _Degrade(_Table):
    large_floor_seconds: Seconds = DEGRADE.large_floor_seconds
    silence_seconds: Seconds = DEGRADE.silence_seconds
    retry_seconds: Seconds = DEGRADE.retry_seconds


class _Bypass(_Table):
    concurrency: Annotated[Count, Field(ge=0)] = BYPASS.concurrency
    per_second: Annotated[Number, Field(ge=0.0, le=1e6)] = BYPASS.per_second


class _Policy(_Table):
    version: Annotated[str, Field(min_length=1, max_length=64)]
    score: Literal[tuple(SCORES)]  # type: ignore[valid-type]  # the registry is the list
    window: Annotated[Count, Field(ge=0, le=4096)] = 0
    threshold: Annotated[_Fixed | _TargetRate, Field(discriminator="rule")]
    on_missing_score: Literal["defer", "keep"] = "defer"
    degrade: _Degrade = _Degrade()


class _Price(_Table):
    input_per_million_tokens: Amount
    output_per_million_tokens: Amount
    cached_input_per_million_tokens: Amount | None = None
    per_call: Amount = Decimal(0)

    def build(self, field: str) -> Price:
        cached = self.cached_input_per_million_tokens
        return Price(
            input_nanos=_per_token(self.input_per_million_tokens, f"{field}.input_per_million_tokens"),
            output_nanos=_per_token(self.output_per_million_tokens, f"{field}.output_per_million_tokens"),
            cached_input_nanos=_per_token(
                self.input_per_million_tokens if cached is None else cached, f"{field}.cached_input_per_million_tokens"
            ),
            call_nanos=nanos(self.per_call, per=1, field=f"{field}.per_call"),
        )


class _Prices(_Table):
    small: _Price
    large: _Price


class _File(_Table):
    default: str
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")]
    prices: _Prices
    bypass: _Bypass = _Bypass()
    policies: Annotated[dict[Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]{0,62}$")], _Policy], Field(min_length=1)]


def read_policies(path: Path | None = None) -> Policies:
    """Reads a policy file, by default the bundled one. Raises ConfigurationError naming the file and the field."""
    name = str(path) if path else "policies.toml"
    try:
        text = (
            path.read_text("utf-8")
            if path
            else resources.files("marginal").joinpath("policies.toml").read_text("utf-8")
        )
        return parse_policies(text)
    except UnicodeDecodeError:
        raise ConfigurationError(f"policy file {name}: is not UTF-8 text") from None
    except OSError as error:
        raise ConfigurationError(
            f"policy file {name}: cannot be read, {(error.strerror or 'no reason').lower()}"
        ) from None
    except ConfigurationError as error:
        raise ConfigurationError(f"policy file {name}: {error}") from None


def parse_policies(text: str) -> Policies:
    """Builds the policies of a TOML text. Raises ConfigurationError naming the field."""
    try:
        file = _File.model_validate(tomllib.loads(text, parse_float=Decimal))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigurationError(f"is not TOML: {error}") from None
    except ValidationError as error:
        raise ConfigurationError("; ".join(_complaint(problem) for problem in error.errors())) from None
    if file.default not in file.policies:
        raise ConfigurationError(f"default: {file.default!r} is none of the policies {', '.join(file.policies)}")
    prices = {
        Tier.SMALL: file.prices.small.build("prices.small"),
        Tier.LARGE: file.prices.large.build("prices.large"),
    }
    by_name = {
        name: Policy(
            name=name,
            version=policy.version,
            score=policy.score,
            window=policy.window,
            threshold=policy.threshold.build(),
            defer_without_score=policy.on_missing_score == "defer",
            currency=file.currency,
            prices=prices,
            degrade=DegradeRules(**policy.degrade.model_dump()),
        )
        for name, policy in file.policies.items()
    }
    return Policies(by_name, file.default, BypassRules(**file.bypass.model_dump()))


def _per_token(amount: Decimal, field: str) -> int:
    return nanos(amount, per=TOKENS_PER_PRICE, field=field)


def _complaint(problem: ErrorDetails) -> str:
    parts = [str(part) for part in problem["loc"]]
    where = [
        part for before, part in zip(["", *parts], parts, strict=False) if before != "threshold" or part not in RULES
    ]
    return f"{'.'.join(where)}: {problem['msg'][0].lower()}{problem['msg'][1:]}"
