"""A policy: the named, versioned rule that says when to defer, what each tier costs and what to do without one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from marginal.policy.deferral import Deferral
from marginal.policy.scores import alternatives_wanted
from marginal.policy.thresholds import Threshold
from marginal.pricing import Price
from marginal.tokens import EarlyStop, Tier, Usage


@dataclass(frozen=True, slots=True)
class DegradeRules:
    """What is done when a tier cannot be had; all in seconds.

    `large_floor_seconds`: with less of the deadline left the large tier is not asked. `silence_seconds`: a tier that is
    silent for longer before the commit point has failed. `retry_seconds`: how often a tier that is down is asked again.
    """

    large_floor_seconds: float = 0.05
    silence_seconds: float = 10.0
    retry_seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class BypassRules:
    """The most that goes straight to the large tier while the small one is down."""

    concurrency: int = 4
    per_second: float = 5.0


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy of the policy file; the threshold rule in it is the only part that changes, by learning."""

    name: str
    version: str
    score: str
    window: int
    threshold: Threshold
    defer_without_score: bool
    currency: str
    prices: Mapping[Tier, Price]
    degrade: DegradeRules = DegradeRules()

    def rule(self) -> EarlyStop:
        """The rule for one answer, its threshold fixed as it stands now."""
        return EarlyStop(self.score, self.window, self.threshold.value, self.defer_without_score)

    def alternatives(self, *, choices: Sequence[str] = ()) -> int:
        """How many alternatives per token the score needs."""
        return alternatives_wanted(self.score, choices=choices)

    def deferral(self, rule: EarlyStop, *, choices: Sequence[str] = ()) -> Deferral:
        """The machine that judges one answer by `rule`."""
        return Deferral(rule, choices=choices)

    def cost(self, tier: Tier, usage: Usage) -> int:
        """What `usage` costs on `tier`, in nano-units."""
        return self.prices[tier].cost(usage)


@dataclass(frozen=True, slots=True)
class Policies:
    """Every policy of one file; `default` names the one for requests that name none."""

    by_name: Mapping[str, Policy]
    default: str
    bypass: BypassRules = BypassRules()
