"""One request's cost record as its line, which journals hold, and as a message of AdminService: both directions."""

from collections.abc import Mapping
from enum import Enum
from typing import Any

from marginal.policy.deferral import Reason, Verdict
from marginal.policy.evidence import Gap
from marginal.routing.records import DegradedReason, Outcome, Settlement
from marginal.tokens import FinishReason, Tier, Usage
from marginal.transport.generation_messages import answered_value, number_of, usage_to_proto
from marginal.transport.money import money, nanos_of
from marginal.v1 import admin_pb2, generation_pb2, router_pb2

Line = Mapping[str, Any]


def record_to_proto(line: Line) -> admin_pb2.CostRecord:
    """A record's line on the wire. Raises KeyError or ValueError for a line that is none."""
    currency, sources = line["currency"], line.get("price_sources") or {}
    return admin_pb2.CostRecord(
        request_id=line["request_id"],
        trace_id=line["trace_id"],
        tenant=line["tenant"],
        task=line["task"] or "",
        policy=line["policy"],
        policy_version=line["policy_version"],
        tier=_number(router_pb2.Tier, "TIER", Tier, line["tier"]),
        finish_reason=_number(generation_pb2.FinishReason, "FINISH_REASON", FinishReason, line["finish"]),
        degraded_reason=_number(router_pb2.DegradedReason, "DEGRADED_REASON", DegradedReason, line["degraded"]),
        error=line["error"] or "",
        decision=_decision_to_proto(line["decision"], line) if line["decision"] else None,
        attempts=[_attempt_to_proto(attempt, currency, sources) for attempt in line["attempts"]],
        total=money(line["total_nanos"], currency),
        always_large=money(line["always_large_nanos"], currency),
        wasted=money(line["wasted_nanos"], currency),
        saved=money(line["saved_nanos"], currency),
        settlement=_number(admin_pb2.Settlement, "SETTLEMENT", Settlement, line["settlement"]),
        admitted_at=line["admitted_at"],
        open=line.get("open", False),
        price_version=line.get("price_version") or "",
    )


def record_from_proto(record: admin_pb2.CostRecord) -> dict[str, Any]:
    """The line again, but for what only journals need. Raises BackendProtocol."""
    sources = {
        answered_value(Tier, router_pb2.Tier, "TIER", one.attempt.tier).value: one.price_source
        for one in record.attempts
        if one.price_source
    }
    return {
        "request_id": record.request_id,
        "trace_id": record.trace_id,
        "tenant": record.tenant,
        "task": record.task or None,
        "policy": record.policy,
        "policy_version": record.policy_version,
        "tier": _text(Tier, router_pb2.Tier, "TIER", record.tier),
        "finish": _text(FinishReason, generation_pb2.FinishReason, "FINISH_REASON", record.finish_reason),
        "degraded": _text(DegradedReason, router_pb2.DegradedReason, "DEGRADED_REASON", record.degraded_reason),
        "error": record.error or None,
        "decision": _decision_from_proto(record.decision) if record.HasField("decision") else None,
        "attempts": [_attempt_from_proto(one) for one in record.attempts],
        "currency": record.total.currency_code,
        "price_version": record.price_version or None,
        "price_sources": sources,
        "total_nanos": nanos_of(record.total),
        "always_large_nanos": nanos_of(record.always_large),
        "wasted_nanos": nanos_of(record.wasted),
        "saved_nanos": nanos_of(record.saved),
        "settlement": _text(Settlement, admin_pb2.Settlement, "SETTLEMENT", record.settlement),
        "admitted_at": record.admitted_at,
        "open": record.open,
    }


def _decision_to_proto(decision: Line, line: Line) -> router_pb2.Decision:
    return router_pb2.Decision(
        verdict=_number(router_pb2.Verdict, "VERDICT", Verdict, decision["verdict"]),
        reason=_number(router_pb2.DecisionReason, "DECISION_REASON", Reason, decision["reason"]),
        score_name=decision["score_name"],
        score=decision["score"],
        threshold=decision["threshold"],
        tokens_seen=decision["tokens_seen"],
        censored=decision["censored"],
        bounded=decision["bounded"],
        policy=line["policy"],
        policy_version=line["policy_version"],
        evidence_gap=_number(router_pb2.EvidenceGap, "EVIDENCE_GAP", Gap, decision["evidence_gap"]),
    )


def _decision_from_proto(decision: router_pb2.Decision) -> dict[str, Any]:
    return {
        "verdict": _text(Verdict, router_pb2.Verdict, "VERDICT", decision.verdict),
        "reason": _text(Reason, router_pb2.DecisionReason, "DECISION_REASON", decision.reason),
        "score_name": decision.score_name,
        "score": decision.score if decision.HasField("score") else None,
        "threshold": decision.threshold if decision.HasField("threshold") else None,
        "tokens_seen": decision.tokens_seen,
        "censored": decision.censored,
        "bounded": decision.bounded,
        "evidence_gap": _text(Gap, router_pb2.EvidenceGap, "EVIDENCE_GAP", decision.evidence_gap),
    }


def _attempt_to_proto(attempt: Line, currency: str, sources: Line) -> admin_pb2.CostAttempt:
    usage = Usage(attempt["input_tokens"], attempt["output_tokens"], attempt["cached_input_tokens"])
    return admin_pb2.CostAttempt(
        attempt=router_pb2.Attempt(
            tier=_number(router_pb2.Tier, "TIER", Tier, attempt["tier"]),
            model=attempt["model"],
            outcome=_number(router_pb2.Outcome, "OUTCOME", Outcome, attempt["outcome"]),
            usage=usage_to_proto(usage),
            cost=money(attempt["cost_nanos"], currency),
            milliseconds=attempt["seconds"] * 1_000.0,
        ),
        usage_source=attempt.get("usage_source") or "",
        price_source=sources.get(attempt["tier"]) or "",
        busy_micros=attempt.get("busy_micros", 0),
        error=attempt["error"] or "",
    )


def _attempt_from_proto(one: admin_pb2.CostAttempt) -> dict[str, Any]:
    attempt = one.attempt
    return {
        "tier": _text(Tier, router_pb2.Tier, "TIER", attempt.tier),
        "model": attempt.model,
        "outcome": _text(Outcome, router_pb2.Outcome, "OUTCOME", attempt.outcome),
        "input_tokens": attempt.usage.input_tokens,
        "cached_input_tokens": attempt.usage.cached_input_tokens,
        "output_tokens": attempt.usage.output_tokens,
        "usage_source": one.usage_source or None,
        "busy_micros": one.busy_micros,
        "cost_nanos": nanos_of(attempt.cost),
        "seconds": round(attempt.milliseconds / 1_000.0, 6),
        "error": one.error or None,
    }


def _number(wrapper: Any, prefix: str, kind: type[Enum], text: str | None) -> Any:
    return number_of(wrapper, prefix, None if text is None else kind(text))


def _text(kind: type[Enum], wrapper: Any, prefix: str, number: int) -> Any:
    return answered_value(kind, wrapper, prefix, number).value if number else None
