"""Messages of RouterService and values, both directions."""

import hashlib

from marginal.errors import InvalidRequest
from marginal.policy.deferral import Decision
from marginal.policy.evidence import EvidenceGap, margin
from marginal.routing.records import Attempt, CostRecord
from marginal.routing.requests import Criticality, Delta, Mode, OnDegrade, Request
from marginal.tokens import Generation, Message, Role, Token
from marginal.transport import validation
from marginal.transport.generation_messages import (
    messages_from_proto,
    number_of,
    sampling_from_proto,
    usage_to_proto,
    value_of,
)
from marginal.transport.money import amount_from, money
from marginal.transport.validation import Limits
from marginal.v1 import generation_pb2, router_pb2


def request_from_proto(
    request: router_pb2.RouterServiceGenerateRequest, limits: Limits, *, request_id: str, tenant: str
) -> Request:
    """What the router was asked. Raises InvalidRequest."""
    key = validation.idempotency_key(request.idempotency_key)
    if request.prompt and request.messages:
        raise InvalidRequest("prompt", "is given together with messages, give exactly one of the two")
    field = "messages" if request.messages else "prompt"
    asked = messages_from_proto(request.messages, most=limits.messages) or (Message(Role.USER, request.prompt),)
    generation = Generation(
        messages=validation.messages(asked, field=field, limits=limits),
        sampling=validation.sampling(sampling_from_proto(request.sampling), limits=limits),
        choices=validation.choices(request.choices, limits=limits),
    )
    return Request(
        request_id=request_id,
        generation=generation,
        policy=request.policy,
        mode=value_of(Mode, router_pb2.Mode, "MODE", request.mode, field="mode", unspecified=Mode.AUTO),
        on_degrade=value_of(
            OnDegrade,
            router_pb2.OnDegrade,
            "ON_DEGRADE",
            request.on_degrade,
            field="on_degrade",
            unspecified=OnDegrade.SERVE,
        ),
        task=validation.task(request.task),
        tenant=tenant,
        max_nanos=amount_from(request.max_cost, field="max_cost") if request.HasField("max_cost") else None,
        max_currency=request.max_cost.currency_code,
        key=_digest(f"{tenant}\0{key}".encode()) if key else "",
        fingerprint=_fingerprint(request) if key else "",
        criticality=value_of(
            Criticality,
            router_pb2.Criticality,
            "CRITICALITY",
            request.criticality,
            field="criticality",
            unspecified=Criticality.CRITICAL,
        ),
    )


def _fingerprint(request: router_pb2.RouterServiceGenerateRequest) -> str:
    """What stands for everything that was asked; the key itself aside."""
    asked = router_pb2.RouterServiceGenerateRequest()
    asked.CopyFrom(request)
    asked.ClearField("idempotency_key")
    return _digest(asked.SerializeToString(deterministic=True))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def delta_to_proto(delta: Delta, *, margins: bool) -> router_pb2.RouterServiceGenerateResponse:
    """A piece of the answer, with the margins token by token when asked for."""
    text = router_pb2.TextDelta(
        text="".join(token.text for token in delta.tokens), tier=number_of(router_pb2.Tier, "TIER", delta.tier)
    )
    if margins:
        text.margins.extend(
            router_pb2.TokenMargin(text=token.text, margin=_margin_or_none(token)) for token in delta.tokens
        )
    return router_pb2.RouterServiceGenerateResponse(text=text)


def final_to_proto(record: CostRecord) -> router_pb2.Final:
    """The last message of a stream."""
    return router_pb2.Final(
        request_id=record.request_id,
        tier=number_of(router_pb2.Tier, "TIER", record.tier),
        finish_reason=number_of(generation_pb2.FinishReason, "FINISH_REASON", record.finish),
        decision=_decision_to_proto(record.decision, record) if record.decision else None,
        degraded_reason=number_of(router_pb2.DegradedReason, "DEGRADED_REASON", record.degraded),
        attempts=[_attempt_to_proto(attempt, record.currency) for attempt in record.attempts],
        total=money(record.total_nanos, record.currency),
        always_large=money(record.always_large_nanos, record.currency),
        trace_id=record.trace_id,
        wasted=money(record.wasted_nanos, record.currency),
        saved=money(record.saved_nanos, record.currency),
    )


def _decision_to_proto(decision: Decision, record: CostRecord) -> router_pb2.Decision:
    return router_pb2.Decision(
        verdict=number_of(router_pb2.Verdict, "VERDICT", decision.verdict),
        reason=number_of(router_pb2.DecisionReason, "DECISION_REASON", decision.reason),
        score_name=decision.score_name,
        score=decision.score,
        threshold=decision.threshold,
        tokens_seen=decision.tokens_seen,
        censored=decision.censored,
        bounded=decision.bounded,
        policy=record.policy,
        policy_version=record.policy_version,
        evidence_gap=number_of(router_pb2.EvidenceGap, "EVIDENCE_GAP", decision.gap),
    )


def _attempt_to_proto(attempt: Attempt, currency: str) -> router_pb2.Attempt:
    return router_pb2.Attempt(
        tier=number_of(router_pb2.Tier, "TIER", attempt.tier),
        model=attempt.model,
        outcome=number_of(router_pb2.Outcome, "OUTCOME", attempt.outcome),
        usage=usage_to_proto(attempt.usage),
        cost=money(attempt.cost_nanos, currency),
        milliseconds=attempt.seconds * 1000.0,
    )


def _margin_or_none(token: Token) -> float | None:
    try:
        return margin(token)
    except EvidenceGap:
        return None
