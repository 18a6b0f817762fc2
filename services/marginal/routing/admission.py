"""Who is let in: every refusal falls here, before anything is spent, the cheapest question first."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from marginal.errors import CostLimited, DeadlineTooShort, InvalidRequest, Overloaded
from marginal.routing.attempts import Clock
from marginal.routing.holds import Ask, Grant
from marginal.routing.policies import Policy
from marginal.routing.ports import Ledger
from marginal.routing.records import CANCELLED, CostRecord, DegradedReason
from marginal.routing.requests import Mode, Request
from marginal.routing.tenant_limits import TenantLimits, TenantPlace
from marginal.routing.tenants import TenantRules, Tenants
from marginal.routing.terms import Step, Steps, Terms, no_steps
from marginal.routing.tiers import TierState
from marginal.routing.worst_case import WorstCase, worst_case
from marginal.tokens import Tier


@dataclass(frozen=True, slots=True)
class Admission:
    """Lets requests in; `tenants` gives the rules in force, `clock` monotonic seconds."""

    tiers: Mapping[Tier, TierState]
    tenants: Callable[[], Tenants]
    limits: TenantLimits
    ledger: Ledger
    clock: Clock
    step: Steps = no_steps

    @asynccontextmanager
    async def admitted(self, request: Request, policy: Policy, *, deadline: float) -> AsyncIterator[Terms]:
        """Holds a tenant's place and the request's worst case; whoever enters settles the hold.

        Raises InvalidRequest, Refused, Repeated, DeadlineTooShort, Overloaded, LedgerUnavailable and JournalFull.
        """
        rules, now = self.tenants().rules(request.tenant), self.clock()
        rules.permit(policy.name)
        if deadline - now < policy.degrade.small_floor_seconds:
            raise DeadlineTooShort(f"there are {max(0.0, deadline - now):.3g} s left, which is too little for any tier")
        mode = policy.effective_mode(request.mode)
        if self.tiers[Tier.LARGE if mode is Mode.LARGE_ONLY else Tier.SMALL].places.full_for(request.criticality):
            raise Overloaded("there is no room now, retry shortly")
        with self.limits.admitted(request.tenant, now) as place:
            worst = worst_case(policy, request.generation, mode=mode, tiers=self.tiers, seconds=deadline - now)
            blocked = _too_dear(request, policy, worst)
            if blocked is None and mode is not Mode.SMALL_ONLY and not place.may_defer():
                blocked = DegradedReason.DEFERRAL_CAP
            self.step(Step.ADMITTED)
            grant = await self._reserved(request, policy, rules, worst, blocked)
            self.step(Step.RESERVED)
            yield self._terms(request, grant, place, blocked, worst)

    async def _reserved(
        self,
        request: Request,
        policy: Policy,
        rules: TenantRules,
        worst: WorstCase,
        blocked: DegradedReason | None,
    ) -> Grant:
        full = worst.full if blocked is None else worst.small
        ask = Ask(
            request.request_id,
            request.tenant,
            worst.small,
            full,
            rules.budget,
            key=request.key,
            fingerprint=request.fingerprint,
            policy=policy.name,
        )
        try:
            return await self.ledger.reserve(ask)
        except asyncio.CancelledError:
            self.ledger.settle(_nothing_spent(request, policy))
            raise

    def _terms(
        self, request: Request, grant: Grant, place: TenantPlace, blocked: DegradedReason | None, worst: WorstCase
    ) -> Terms:
        return Terms(
            grant.admitted_at,
            blocked or grant.blocked,
            grant.lacking,
            place.deferred,
            worst.of,
            partial(self.ledger.progress, request.request_id),
            self.step,
        )


def _too_dear(request: Request, policy: Policy, worst: WorstCase) -> DegradedReason | None:
    """Whether the large tier could cost more than the request may. Raises CostLimited when the small one could."""
    if request.max_nanos is None:
        return None
    if request.max_currency != policy.currency:
        raise InvalidRequest("max_cost.currency_code", f"must be {policy.currency}, as the prices are")
    if worst.small > request.max_nanos:
        raise CostLimited(
            f"max_cost: the small tier alone could cost {worst.small} nano-units and {request.max_nanos} are allowed:"
            " raise it, or lower sampling.max_tokens"
        )
    return DegradedReason.COST_LIMIT if worst.full > request.max_nanos else None


def _nothing_spent(request: Request, policy: Policy) -> CostRecord:
    """The record of a caller who left while the hold was being made: it may be there."""
    return CostRecord(
        request_id=request.request_id,
        trace_id="",
        tenant=request.tenant,
        policy=policy.name,
        policy_version=policy.version,
        currency=policy.currency,
        decision=None,
        attempts=(),
        always_large_nanos=0,
        error=CANCELLED,
        task=request.task,
    )
