"""What `marginal status` knows, and what of it is wrong: values, however they were got."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from marginal.cluster.happenings import Happening
from marginal.cluster.release import Workload
from marginal.routing.demand import ENOUGH
from marginal.routing.overview import Overview, TenantOverview
from marginal.routing.spending import BudgetStates
from marginal.tokens import Tier

NOTHING = "nothing"
MUCH_DEGRADED = 0.05
"""More degraded answers than this are worth a word."""


@dataclass(frozen=True, slots=True)
class Status:
    """A release, or the services of `marginal up`; what could not be asked is None, and `unreachable` says why."""

    where: str
    version: str
    workloads: tuple[Workload, ...]
    overview: Overview | None = None
    budgets: BudgetStates | None = None
    demand: Mapping[Tier, float] = field(default_factory=dict)
    warnings: tuple[Happening, ...] = ()
    unreachable: str = ""
    unread: tuple[str, ...] = ()
    """Kinds of objects that we may not read."""

    away: str = ""
    """Why nothing newer could be seen."""

    def workload(self, component: str) -> Workload | None:
        """That of a component."""
        return next((one for one in self.workloads if one.component == component), None)

    @property
    def tenants(self) -> Iterator[TenantOverview]:
        """Every tenant under every criterion."""
        for policy in self.overview.policies if self.overview else ():
            for criterion in policy.criteria:
                yield from criterion.tenants


def what_is_wrong(status: Status) -> str:
    """The worst of it in one sentence, or "nothing"."""
    return next(_ailments(status), NOTHING)


def _ailments(status: Status) -> Iterator[str]:
    """The worst first."""
    if status.away:
        yield f"this is as it was: {status.away}"
    yield from _without_replicas(status)
    if status.unreachable:
        what = "budgets" if status.overview else "admin address"
        yield f"the router's {what} cannot be asked: {status.unreachable}"
    if status.overview and status.overview.source.refused:
        yield f"the newest policies were refused, those before are in force: {status.overview.source.refused}"
    for one in status.workloads:
        if one.pods_ail:
            yield one.pods_ail
        if one.scaler_ails:
            yield f"the scaler of {one.name} does not work: {one.scaler_ails}"
    yield from _spent(status)
    degraded, requests = 0.0, 0
    for tenant in status.tenants:
        degraded, requests = degraded + tenant.requests * tenant.tally.degraded_share, requests + tenant.requests
    if requests and degraded / requests > MUCH_DEGRADED:
        yield f"{degraded / requests:.0%} of the latest answers were degraded"
    for one in status.workloads:
        if one.ready < one.desired:
            yield f"{one.name} has {one.ready} of {one.desired} replicas ready"


def _without_replicas(status: Status) -> Iterator[str]:
    router, small, large = map(status.workload, ("router", "small", "large"))
    if router is not None and not router.ready:
        yield f"no router is ready ({router.desired} wanted): nothing answers{_because(router)}"
    if small is not None and not small.ready and (small.desired or _wanted(status, Tier.SMALL)):
        yield (
            f"no replica of the small tier is ready ({small.desired} wanted):"
            f" requests go to the large one, as many as the policy lets by{_because(small)}"
        )
    if large is not None and not large.ready and (large.desired or _wanted(status, Tier.LARGE)):
        yield (
            f"no replica of the large tier is ready ({large.desired} wanted):"
            f" its requests wait, or degrade{_because(large)}"
        )


def _because(one: Workload) -> str:
    return f"; {one.pods_ail}" if one.pods_ail else ""


def _wanted(status: Status, tier: Tier) -> bool:
    return status.demand.get(tier, 0.0) >= ENOUGH


def _spent(status: Status) -> Iterator[str]:
    for one in status.budgets.states if status.budgets else ():
        if one.used_share is not None and one.used_share >= 1.0:
            yield f"tenant {one.tenant} has spent its budget of this {one.window.value}"
