"""A router's own log tells how often its small tier agrees with the large one, and what deferred requests scored."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from marginal.errors import ConfigurationError
from marginal.evaluation.results import Header, Row
from marginal.evaluation.shadow_log import COST_RECORD, read_shadow_logs
from marginal.policy.deferral import Decision, Reason, Verdict
from marginal.routing.record_lines import record_fields
from marginal.routing.records import Attempt, Comparison, CostRecord, Outcome
from marginal.tokens import Tier, Usage

CREATED = "2026-11-24T18:00:00Z"


def attempt(tier: str, outcome: str, *, nanos: int = 100, cached: int = 4) -> dict[str, Any]:
    return {
        "tier": tier,
        "model": f"home-{tier}",
        "outcome": outcome,
        "input_tokens": 16,
        "cached_input_tokens": cached,
        "output_tokens": 3,
        "cost_nanos": nanos,
        "seconds": 0.02,
        "error": None,
    }


def record(request_id: str, *attempts: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "event": "cost_record",
        "request_id": request_id,
        "policy": "default",
        "degraded": None,
        "sampled": True,
        "decision": {"verdict": "keep", "reason": "score", "score_name": "min_margin", "score": 0.9, "censored": False},
        "currency": "USD",
        "attempts": list(attempts),
        **more,
    }


SHADOWED = record(
    "1",
    attempt("small", "kept"),
    attempt("large", "shadow", nanos=2_000),
    shadow={"agrees": False, "scores": {"min_margin": 0.93, "mean_logprob": -0.2}},
)
DEFER = {"verdict": "defer", "reason": "score", "score_name": "min_margin", "score": 0.1, "censored": True}
DEFERRED = record("2", attempt("small", "aborted"), attempt("large", "kept", nanos=2_000), decision=DEFER)


def read(directory: Path, *events: Any) -> tuple[Header, tuple[Row, ...]]:
    path = directory / "router.log"
    path.write_text("".join(f"{event if isinstance(event, str) else json.dumps(event)}\n" for event in events))
    return read_shadow_logs([path], created=CREATED)


def test_a_shadowed_request_is_right_when_both_agree(tmp_path: Path) -> None:
    header, [row] = read(tmp_path, SHADOWED)
    assert (header.small, header.large, header.currency) == ("home-small", "home-large", "USD")
    assert (header.labels, header.grader, header.created) == ("large", "shadow", CREATED)
    assert (row.id, row.task, row.agrees) == ("1", "default", False)
    assert (row.small.correct, row.large.correct) == (False, True)
    assert row.scores == {"min_margin": 0.93, "mean_logprob": -0.2}
    assert (row.small.usage, row.small.cost_nanos, row.small.seconds) == (Usage(16, 3, 4), 100, 0.02)
    assert row.large.cost_nanos == 2_000
    assert row.tokens == ()


def test_a_deferred_request_has_one_score_and_no_small_answer(tmp_path: Path) -> None:
    _, [row] = read(tmp_path, DEFERRED | {"task": "timer"})
    assert (row.small.correct, row.large.correct, row.agrees) == (None, True, None)
    assert (row.scores, row.task) == ({"min_margin": 0.1}, "timer")


@pytest.mark.parametrize(
    "event",
    [
        record("3", attempt("small", "kept")),
        DEFERRED | {"degraded": "large_unavailable"},
        DEFERRED | {"sampled": False},
        DEFERRED | {"decision": DEFER | {"reason": "no_score", "score": None}},
        DEFERRED | {"decision": DEFER | {"reason": "mode"}},
        DEFERRED | {"decision": None},
        record("3", attempt("small", "aborted"), attempt("large", "failed"), decision=DEFER),
        {"event": "generation", "tier": "small"},
        "starting",
        "[1]",
        '{"event": "cost_rec',
    ],
)
def test_what_tells_nothing_is_passed_over(tmp_path: Path, event: Any) -> None:
    assert len(read(tmp_path, SHADOWED, event)[1]) == 1


def test_one_policy_at_a_time(tmp_path: Path) -> None:
    other = DEFERRED | {"policy": "careful"}
    with pytest.raises(ConfigurationError, match=r"router\.log:2: policy: careful, before it was default.*--policy"):
        read(tmp_path, SHADOWED, other)
    _, rows = read_shadow_logs([tmp_path / "router.log"], created=CREATED, policy="careful")
    assert [row.id for row in rows] == ["2"]


def test_texts_are_kept_when_the_router_logged_them(tmp_path: Path) -> None:
    shadow = {"agrees": True, "scores": {}, "small_text": "timer 5 min", "large_text": "Timer 5 min."}
    _, [row] = read(tmp_path, SHADOWED | {"shadow": shadow})
    assert (row.small.text, row.large.text) == ("timer 5 min", "Timer 5 min.")


@pytest.mark.parametrize(
    ("event", "problem"),
    [
        (SHADOWED | {"request_id": "2", "shadow": {"scores": {}}}, "shadow.agrees: field required"),
        (SHADOWED, "request_id: 1 is there twice"),
        (DEFERRED | {"attempts": [attempt("small", "aborted", nanos=-1)]}, "attempts.0.cost_nanos: "),
        (
            DEFERRED | {"attempts": [attempt("small", "aborted", cached=17), attempt("large", "kept")]},
            "attempts.cached_input_tokens: more than input_tokens",
        ),
        (DEFERRED | {"currency": "EUR"}, "models: home-small and home-large in EUR, before it were"),
    ],
)
def test_a_bad_record_is_refused_with_its_line(tmp_path: Path, event: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=r"router\.log:2: ") as refused:
        read(tmp_path, SHADOWED, event)
    assert problem in str(refused.value)


def test_what_telemetry_logs_is_read(tmp_path: Path) -> None:
    usage, nanos = Usage(16, 3, 4), 100
    small = Attempt(Tier.SMALL, "home-small", Outcome.KEPT, usage, nanos, 0.02)
    large = Attempt(Tier.LARGE, "home-large", Outcome.SHADOW, usage, nanos, 0.03)
    kept = CostRecord(
        request_id="1",
        trace_id="",
        tenant="acme",
        policy="default",
        policy_version="1",
        currency="USD",
        decision=Decision(Verdict.KEEP, Reason.SCORE, "min_margin", 0.93, 0.25, 3),
        attempts=(small, large),
        always_large_nanos=nanos,
        sampled=True,
        comparison=Comparison(agrees=True, scores={"min_margin": 0.93}),
    )
    deferred = replace(
        kept,
        request_id="2",
        task="timer",
        decision=Decision(Verdict.DEFER, Reason.SCORE, "min_margin", 0.1, 0.25, 1),
        attempts=(
            replace(small, outcome=Outcome.ABORTED),
            Attempt(Tier.LARGE, "", Outcome.FAILED, Usage(), 0, 0.1, "TierUnavailable"),
            replace(large, outcome=Outcome.KEPT),
        ),
        comparison=None,
    )
    _, rows = read(tmp_path, *({"event": COST_RECORD, **record_fields(one)} for one in (kept, deferred)))
    assert [(row.id, row.task, row.small.correct, dict(row.scores)) for row in rows] == [
        ("1", "default", True, {"min_margin": 0.93}),
        ("2", "timer", None, {"min_margin": 0.1}),
    ]
    assert rows[1].large.usage == usage


def test_a_log_that_tells_nothing_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no line of these logs is of shadow traffic"):
        read(tmp_path, record("3", attempt("small", "kept")))
