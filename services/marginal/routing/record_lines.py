"""A cost record as the fields of its line in logs and journals, which others read again: change both."""

from typing import Any

from marginal.policy.deferral import Decision
from marginal.routing.records import Attempt, Comparison, CostRecord
from marginal.tokens import Usage


def record_fields(record: CostRecord) -> dict[str, Any]:
    """A cost record as JSON values, snake_case, money in integer nano-units."""
    return {
        "request_id": record.request_id,
        "trace_id": record.trace_id,
        "tenant": record.tenant,
        "task": record.task or None,
        "policy": record.policy,
        "policy_version": record.policy_version,
        "tier": record.tier.value if record.tier else None,
        "finish": record.finish.value if record.finish else None,
        "degraded": record.degraded.value if record.degraded else None,
        "error": record.error,
        "decision": _decision_fields(record.decision) if record.decision else None,
        "attempts": [_attempt_fields(attempt) for attempt in record.attempts],
        "currency": record.currency,
        "price_version": record.price_version or None,
        "price_sources": {tier.value: source for tier, source in record.price_sources.items()},
        "total_nanos": record.total_nanos,
        "always_large_nanos": record.always_large_nanos,
        "wasted_nanos": record.wasted_nanos,
        "saved_nanos": record.saved_nanos,
        "settlement": record.settlement.value,
        "admitted_at": round(record.admitted_at, 6),
        "sampled": record.sampled,
        "shadow": _comparison_fields(record.comparison) if record.comparison else None,
    }


def usage_fields(usage: Usage) -> dict[str, Any]:
    """Token counts as JSON values, and whose they are."""
    return {
        "input_tokens": usage.input_tokens,
        "cached_input_tokens": usage.cached_input_tokens,
        "output_tokens": usage.output_tokens,
        "usage_source": "counted" if usage.counted else "engine",
    }


def _decision_fields(decision: Decision) -> dict[str, Any]:
    return {
        "verdict": decision.verdict.value,
        "reason": decision.reason.value,
        "score_name": decision.score_name,
        "score": decision.score,
        "threshold": decision.threshold,
        "tokens_seen": decision.tokens_seen,
        "censored": decision.censored,
        "bounded": decision.bounded,
        "evidence_gap": decision.gap.value if decision.gap else None,
    }


def _attempt_fields(attempt: Attempt) -> dict[str, Any]:
    return {
        "tier": attempt.tier.value,
        "model": attempt.model,
        "outcome": attempt.outcome.value,
        **usage_fields(attempt.usage),
        "busy_micros": attempt.busy_micros,
        "cost_nanos": attempt.cost_nanos,
        "seconds": round(attempt.seconds, 6),
        "error": attempt.error,
    }


def _comparison_fields(comparison: Comparison) -> dict[str, Any]:
    texts = {"small_text": comparison.small_text, "large_text": comparison.large_text}
    return {
        "agrees": comparison.agrees,
        "scores": {name: round(score, 9) for name, score in comparison.scores.items()},
        **{name: text for name, text in texts.items() if text is not None},
    }
