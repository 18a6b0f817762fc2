"""A policy: the named, versioned rule that says when to defer, what each tier costs and what to do without one."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from marginal.policy.evidence import MOST_ALTERNATIVES
from marginal.policy.scores import alternatives_wanted
from marginal.policy.thresholds import Threshold
from marginal.pricing import Price
from marginal.routing.requests import Mode
from marginal.tokens import EarlyStop, Sampling, Tier, Usage


@dataclass(frozen=True, slots=True)
class DegradeRules:
    """What is done when a tier cannot be had; all in seconds.

    `small_floor_seconds`: a request with less time is refused before anything is begun. `large_floor_seconds`: with
    less of the deadline left the large tier is not asked. `silence_seconds`: a tier that is silent for longer before
    the commit point has failed. `retry_seconds`: how often a tier that is down is asked again. `wake_seconds`: how long
    a request waits for a tier that is at zero, half of its deadline at most where another tier could answer; 0 does not
    wait.
    """

    small_floor_seconds: float = 0.005
    large_floor_seconds: float = 0.05
    silence_seconds: float = 10.0
    retry_seconds: float = 1.0
    wake_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class BypassRules:
    """The most that goes straight to the large tier while the small one is down."""

    concurrency: int = 4
    per_second: float = 5.0


@dataclass(frozen=True, slots=True)
class ShadowRules:
    """Which kept requests the large tier is asked too, and the most that may be spent on it.

    `share` in [0, 1] of those in mode SHADOW by the policy. `hourly_nanos` is the budget of any hour. Texts are kept
    for nobody unless `texts` says so.
    """

    share: float = 0.05
    concurrency: int = 1
    hourly_nanos: int = 1_000_000_000
    timeout_seconds: float = 30.0
    texts: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """A threshold rule as configured: its name, what it does in words, and where it starts for each tenant.

    One that learns from `exact` scores has no answer cut short before its score is known.
    """

    name: str
    says: str
    start: Callable[[], Threshold]
    exact: bool = False


@dataclass(frozen=True, slots=True)
class CalibratedAt:
    """The sampling under which a threshold was found."""

    temperature: float
    top_p: float = 1.0

    def fits(self, sampling: Sampling) -> bool:
        """Whether a request is sampled in the same way; at temperature 0 nothing is, whatever `top_p` says."""
        same = math.isclose(self.temperature, sampling.temperature, abs_tol=1e-6)
        return same and (self.temperature == 0.0 or math.isclose(self.top_p, sampling.top_p, abs_tol=1e-6))


@dataclass(frozen=True, slots=True)
class Criterion:
    """How answers are judged: a score over a window of tokens, and the rule that gives its threshold.

    What was learnt under one `fingerprint` can be gone on with under the same. `calibrated_at` None is not known.
    """

    score: str
    window: int
    quantile: float
    rule: Rule
    fingerprint: str = ""
    calibrated_at: CalibratedAt | None = None

    def early_stop(self, threshold: float, *, defer_without_score: bool) -> EarlyStop:
        """The rule for one answer, its threshold fixed."""
        return EarlyStop(self.score, self.window, threshold, defer_without_score, self.quantile, self.rule.exact)

    def alternatives(self, *, choices: Sequence[str] = (), all_scores: bool = False) -> int:
        """How many alternatives per token the score needs, or all scores would."""
        return MOST_ALTERNATIVES if all_scores else alternatives_wanted(self.score, choices=choices)


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy of the policy file; what its rules learn is kept apart, in a `PolicyBook`.

    `price_version` names the prices: as soon as any of them is another, so is it.
    """

    name: str
    version: str
    criterion: Criterion
    defer_without_score: bool
    currency: str
    prices: Mapping[Tier, Price]
    tasks: Mapping[str, Criterion] = field(default_factory=dict)
    mode: Mode = Mode.AUTO
    shadow: ShadowRules = ShadowRules()
    degrade: DegradeRules = DegradeRules()
    price_version: str = ""

    def criterion_for(self, task: str) -> Criterion:
        """The task's own criterion, or the policy's."""
        return self.tasks.get(task, self.criterion)

    def effective_mode(self, asked: Mode) -> Mode:
        """A policy's kill switch stands above what a request asks, and that above the policy's way of deciding."""
        if self.mode in (Mode.SMALL_ONLY, Mode.LARGE_ONLY) or asked is Mode.AUTO:
            return self.mode
        return asked

    def cost(self, tier: Tier, usage: Usage, busy_micros: int = 0) -> int:
        """What `usage` and so many microseconds of its busy time cost on `tier`, in nano-units."""
        return self.prices[tier].cost(usage, busy_micros)


@dataclass(frozen=True, slots=True)
class Policies:
    """Every policy of one file; `default` names the one for requests that name none."""

    by_name: Mapping[str, Policy]
    default: str
    bypass: BypassRules = BypassRules()

    @property
    def currency(self) -> str:
        """The one currency of the file."""
        return self.by_name[self.default].currency
