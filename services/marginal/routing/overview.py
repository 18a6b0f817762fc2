"""What is in force and what it has learnt, as values: for operators."""

from collections.abc import Iterator
from dataclasses import dataclass

from marginal.routing.book import Learner, PolicyBook, Tally
from marginal.routing.policies import CalibratedAt, Criterion, Policy
from marginal.routing.requests import Mode
from marginal.routing.shadows import Shadows


@dataclass(frozen=True, slots=True)
class Source:
    """Where the policies come from, since when (seconds since the Unix epoch), and why a newer file was refused."""

    name: str
    loaded_at: float
    refused: str = ""


@dataclass(frozen=True, slots=True)
class TenantOverview:
    """What a rule learnt from one tenant."""

    tenant: str
    threshold: float
    requests: int
    lessons: int
    tally: Tally


@dataclass(frozen=True, slots=True)
class CriterionOverview:
    """A score and a rule, what a new tenant starts with, and every tenant seen."""

    task: str
    score: str
    window: int
    rule: str
    says: str
    start: float
    tenants: tuple[TenantOverview, ...]
    calibrated_at: CalibratedAt | None = None


@dataclass(frozen=True, slots=True)
class ShadowOverview:
    """A policy's shadow calls so far."""

    share: float
    answered: int
    agreed: int
    left_out: int


@dataclass(frozen=True, slots=True)
class PolicyOverview:
    """One policy with its criteria, its own first."""

    name: str
    version: str
    mode: Mode
    criteria: tuple[CriterionOverview, ...]
    shadow: ShadowOverview


@dataclass(frozen=True, slots=True)
class Overview:
    """All policies in force."""

    source: Source
    default: str
    currency: str
    policies: tuple[PolicyOverview, ...]


def overview(book: PolicyBook, shadows: Shadows, source: Source) -> Overview:
    """Looks at everything, changes nothing."""
    policies = book.policies
    seen = tuple(_policy(policy, book, shadows) for policy in policies.by_name.values())
    return Overview(source, policies.default, policies.currency, seen)


def _policy(policy: Policy, book: PolicyBook, shadows: Shadows) -> PolicyOverview:
    own = [("", policy.criterion), *sorted(policy.tasks.items())]
    shadowed, share = shadows.of(policy), policy.shadow.share if policy.mode is Mode.SHADOW else 0.0
    return PolicyOverview(
        policy.name,
        policy.version,
        policy.mode,
        tuple(_criterion(task, criterion, policy, book) for task, criterion in own),
        ShadowOverview(share, shadowed.answered, shadowed.agreed, shadowed.left_out),
    )


def _criterion(task: str, criterion: Criterion, policy: Policy, book: PolicyBook) -> CriterionOverview:
    return CriterionOverview(
        task,
        criterion.score,
        criterion.window,
        criterion.rule.name,
        criterion.rule.says,
        criterion.rule.start().value,
        tuple(_tenants(task, policy, book)),
        criterion.calibrated_at,
    )


def _tenants(task: str, policy: Policy, book: PolicyBook) -> Iterator[TenantOverview]:
    for place, learner in book.learners(policy.name):
        if place.task == task:
            yield _tenant(place.tenant, learner)


def _tenant(name: str, learner: Learner) -> TenantOverview:
    return TenantOverview(name, learner.threshold.value, learner.requests, learner.lessons, learner.tally)
