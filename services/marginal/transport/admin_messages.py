"""Messages of AdminService and values, both directions."""

from marginal.routing.book import Tally
from marginal.routing.overview import (
    CriterionOverview,
    Overview,
    PolicyOverview,
    ShadowOverview,
    Source,
    TenantOverview,
)
from marginal.routing.policies import CalibratedAt
from marginal.routing.requests import Mode
from marginal.transport.generation_messages import answered_value, number_of
from marginal.transport.money import money, nanos_of
from marginal.v1 import admin_pb2, router_pb2


def overview_to_proto(seen: Overview, *, only: str) -> admin_pb2.ListPoliciesResponse:
    """The overview on the wire; of one policy only, unless `only` is ""."""
    return admin_pb2.ListPoliciesResponse(
        source=seen.source.name,
        loaded_at=seen.source.loaded_at,
        refused=seen.source.refused,
        default_policy=seen.default,
        policies=[_policy_to_proto(policy, seen.currency) for policy in seen.policies if only in ("", policy.name)],
    )


def overview_from_proto(response: admin_pb2.ListPoliciesResponse) -> Overview:
    """The overview from the wire. Raises BackendProtocol."""
    currencies = {
        tenant.spend_per_request.currency_code
        for policy in response.policies
        for criterion in policy.criteria
        for tenant in criterion.tenants
    }
    return Overview(
        Source(response.source, response.loaded_at, response.refused),
        response.default_policy,
        "/".join(sorted(currencies)),
        tuple(map(_policy_from_proto, response.policies)),
    )


def _policy_to_proto(policy: PolicyOverview, currency: str) -> admin_pb2.PolicyState:
    shadow = policy.shadow
    return admin_pb2.PolicyState(
        name=policy.name,
        version=policy.version,
        mode=number_of(router_pb2.Mode, "MODE", policy.mode),
        criteria=[_criterion_to_proto(criterion, currency) for criterion in policy.criteria],
        shadow=admin_pb2.ShadowState(
            share=shadow.share, answered=shadow.answered, agreed=shadow.agreed, left_out=shadow.left_out
        ),
    )


def _criterion_to_proto(criterion: CriterionOverview, currency: str) -> admin_pb2.CriterionState:
    return admin_pb2.CriterionState(
        task=criterion.task,
        score=criterion.score,
        window=criterion.window,
        rule=criterion.rule,
        says=criterion.says,
        start=criterion.start,
        tenants=[_tenant_to_proto(tenant, currency) for tenant in criterion.tenants],
        calibrated_at=None
        if criterion.calibrated_at is None
        else admin_pb2.CalibratedAt(
            temperature=criterion.calibrated_at.temperature, top_p=criterion.calibrated_at.top_p
        ),
    )


def _tenant_to_proto(tenant: TenantOverview, currency: str) -> admin_pb2.TenantState:
    tally = tenant.tally
    return admin_pb2.TenantState(
        tenant=tenant.tenant,
        threshold=tenant.threshold,
        requests=tenant.requests,
        deferral_share=tally.deferral_share,
        degraded_share=tally.degraded_share,
        spend_per_request=money(round(tally.spend_nanos), currency),
        always_large_per_request=money(round(tally.always_large_nanos), currency),
        lessons=tenant.lessons,
        other_sampling_share=tally.other_sampling_share,
    )


def _policy_from_proto(policy: admin_pb2.PolicyState) -> PolicyOverview:
    shadow = policy.shadow
    return PolicyOverview(
        policy.name,
        policy.version,
        answered_value(Mode, router_pb2.Mode, "MODE", policy.mode),
        tuple(map(_criterion_from_proto, policy.criteria)),
        ShadowOverview(shadow.share, shadow.answered, shadow.agreed, shadow.left_out),
    )


def _criterion_from_proto(criterion: admin_pb2.CriterionState) -> CriterionOverview:
    return CriterionOverview(
        criterion.task,
        criterion.score,
        criterion.window,
        criterion.rule,
        criterion.says,
        criterion.start,
        tuple(map(_tenant_from_proto, criterion.tenants)),
        CalibratedAt(criterion.calibrated_at.temperature, criterion.calibrated_at.top_p)
        if criterion.HasField("calibrated_at")
        else None,
    )


def _tenant_from_proto(tenant: admin_pb2.TenantState) -> TenantOverview:
    return TenantOverview(
        tenant.tenant,
        tenant.threshold,
        tenant.requests,
        tenant.lessons,
        Tally(
            tenant.deferral_share,
            tenant.degraded_share,
            nanos_of(tenant.spend_per_request),
            nanos_of(tenant.always_large_per_request),
            tenant.other_sampling_share,
        ),
    )
