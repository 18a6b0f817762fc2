"""Cost records and model logs are two accounts of the same tokens."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from marginal.evaluation.reconcile import Reconciliation, TierAccount, as_json, reconcile, table
from marginal.evaluation.service_logs import logs_begin, read_events
from marginal.policy.deferral import Decision, Reason, Verdict
from marginal.pricing import Price
from marginal.routing.records import Attempt, CostRecord, Outcome
from marginal.telemetry.logs import Layout, configure
from marginal.telemetry.recorder import GenerationRecorder, OpenTelemetryRecorder
from marginal.telemetry.tracing import Exporter
from marginal.telemetry.tracing import configure as configure_tracing
from marginal.tokens import FinishReason, Tier, Usage

PRICES = {
    Tier.SMALL: Price(10_000_000, 20_000_000, 1_000_000, call_nanos=5),
    Tier.LARGE: Price(100_000_000, 400_000_000),
}
SMALL, LARGE = Usage(40, 3, 8), Usage(40, 12)


def attempt(tier: Tier, usage: Usage) -> dict[str, Any]:
    return {"tier": tier.value, **tokens(usage), "cost_nanos": PRICES[tier].cost(usage)}


def tokens(usage: Usage) -> dict[str, int]:
    return {
        "input_tokens": usage.input_tokens,
        "cached_input_tokens": usage.cached_input_tokens,
        "output_tokens": usage.output_tokens,
    }


def record(request_id: str, *attempts: dict[str, Any]) -> dict[str, Any]:
    return {"event": "cost_record", "request_id": request_id, "attempts": list(attempts)}


def generation(tier: Tier, usage: Usage) -> dict[str, Any]:
    return {"event": "generation", "tier": tier.value, **tokens(usage)}


KEPT = record("1", attempt(Tier.SMALL, SMALL))
DEFERRED = record("2", attempt(Tier.SMALL, SMALL), attempt(Tier.LARGE, LARGE))
LOGGED = (generation(Tier.SMALL, SMALL), generation(Tier.SMALL, SMALL), generation(Tier.LARGE, LARGE))


def accounts(events: Sequence[dict[str, Any]]) -> tuple[Reconciliation, TierAccount, TierAccount]:
    result = reconcile(events, PRICES)
    small, large = result.tiers
    return result, small, large


def test_accounts_that_agree_differ_by_nothing() -> None:
    result, small, large = accounts([KEPT, DEFERRED, *LOGGED])
    assert result.balanced
    assert (result.records, result.repeated, result.nanos_difference) == (2, 0, 0)
    assert (small.requests, small.attempts, small.generations) == (2, 2, 2)
    assert (large.requests, large.attempts, large.generations) == (1, 1, 1)
    assert small.recorded == small.logged == Usage(80, 6, 16)
    assert small.charged_nanos == 2 * (5 + 32 * 10 + 8 * 1 + 3 * 20)
    assert result.charged_nanos == small.charged_nanos + large.charged_nanos


def test_tokens_that_a_model_generated_and_nobody_was_charged_for_are_found() -> None:
    more = generation(Tier.SMALL, Usage(40, 5, 8))
    result, small, large = accounts([KEPT, DEFERRED, *LOGGED[1:], more])
    assert not result.balanced
    assert (small.input_difference, small.output_difference, small.nanos_difference) == (0, -2, -40)
    assert large.balanced


def test_a_lost_generation_and_a_wrong_price_are_found() -> None:
    dear = record("2", attempt(Tier.SMALL, SMALL), attempt(Tier.LARGE, LARGE) | {"cost_nanos": 1})
    _, small, large = accounts([KEPT, dear, LOGGED[0], LOGGED[2]])
    assert small.output_difference == 3
    assert (large.output_difference, large.nanos_difference) == (0, 1 - PRICES[Tier.LARGE].cost(LARGE))
    assert not small.balanced
    assert not large.balanced


def test_a_generation_that_never_began_costs_nothing_not_even_the_price_of_a_call() -> None:
    never = {**attempt(Tier.SMALL, Usage()), "cost_nanos": 0}
    result, small, _ = accounts([record("1", never), generation(Tier.SMALL, Usage())])
    assert result.balanced
    assert (small.attempts, small.generations, small.priced_nanos) == (1, 1, 0)


def test_attempts_whose_usage_is_our_own_count_are_told() -> None:
    reckoned = attempt(Tier.SMALL, SMALL) | {"usage_source": "counted"}
    more = generation(Tier.SMALL, Usage(40, 5, 8))
    result = reconcile([record("1", reckoned), more], PRICES)
    assert (result.counted, result.balanced) == (1, False)
    console = Console(record=True, width=120)
    console.print(table(result))
    assert "1 attempts are by a count of our own" in console.export_text()


def test_time_that_is_paid_by_the_hour_is_the_routers_in_both_accounts() -> None:
    price = Price(output_nanos_per_million=400_000, hour_nanos=3_600_000_000)
    busy = [1, 1_500, 2_250_001]
    attempts = [
        {"tier": "large", **tokens(LARGE), "busy_micros": micros, "cost_nanos": price.cost(LARGE, micros)}
        for micros in busy
    ]
    records = [record(str(number), attempt) for number, attempt in enumerate(attempts)]
    logged = [generation(Tier.LARGE, LARGE)] * len(busy)
    result = reconcile([*records, *logged], {Tier.LARGE: price})
    assert result.charged_nanos > sum(busy)
    assert result.balanced
    assert not reconcile([*records, *logged[1:]], {Tier.LARGE: price}).balanced


def test_cached_tokens_that_differ_are_found() -> None:
    _, small, _ = accounts([KEPT, generation(Tier.SMALL, Usage(40, 3))])
    assert small.cached_input_difference == 8
    assert not small.balanced


def test_a_request_recorded_twice_is_found_even_when_the_sums_agree() -> None:
    result, *_ = accounts([KEPT, KEPT, LOGGED[0], LOGGED[1]])
    assert result.nanos_difference == 0
    assert result.repeated == 1
    assert not result.balanced


def test_a_tier_that_was_never_asked_is_balanced() -> None:
    _, small, large = accounts([])
    assert small.balanced
    assert large.balanced


def test_only_whole_lines_of_the_two_kinds_are_read(tmp_path: Path) -> None:
    (tmp_path / "router.log").write_text(
        f'starting\n[1]\n{{"event": "ready"}}\n{json.dumps(KEPT)}\n{{"event": "cost_rec'
    )
    (tmp_path / "small.jsonl").write_text(json.dumps(LOGGED[0]))
    (tmp_path / "small.spans.jsonl").write_text('{"trace_id": "1"}\n')
    (tmp_path / "notes.txt").write_text(json.dumps(KEPT))
    assert list(read_events(tmp_path)) == [KEPT, LOGGED[0]]


def test_what_telemetry_logs_reconciles(tmp_path: Path) -> None:
    tracing = configure_tracing("test", Exporter.NONE, version="1")
    decision = Decision(Verdict.DEFER, Reason.SCORE, "min_margin", 0.125, 0.6, 3)
    usages = {Tier.SMALL: SMALL, Tier.LARGE: LARGE}
    attempts = tuple(
        Attempt(tier, f"home-{tier.value}", Outcome.KEPT, usage, PRICES[tier].cost(usage), 0.01)
        for tier, usage in usages.items()
    )
    with (tmp_path / "router.log").open("w") as stream:
        log = configure("marginal-router", stream, layout=Layout.JSON).log
        OpenTelemetryRecorder(tracing.spans, log, tracing.metrics, currency=lambda: "USD").completed(
            CostRecord("r", "", "acme", "p", "1", "USD", decision, attempts, 1, Tier.LARGE, FinishReason.STOP)
        )
    for tier, usage in usages.items():
        with (tmp_path / f"{tier.value}.log").open("w") as stream:
            log = configure("model", stream, layout=Layout.JSON).log
            generations = GenerationRecorder(tracing.spans, log, tracing.metrics, tier=tier)
            with tracing.tracer.tenant("acme"), generations.generation_span("home") as ended:
                ended(usage, None, cancelled=True)
            with generations.generation_span("home") as ended:
                ended(Usage(1, 1), FinishReason.STOP, cancelled=False)
    result = reconcile(read_events(tmp_path), PRICES)
    assert result.balanced
    assert (result.records, result.charged_nanos) == (1, sum(attempt.cost_nanos for attempt in attempts))


def test_records_from_before_the_logs_begin_are_passed_over_and_counted() -> None:
    events = [{**KEPT, "request_id": "0", "admitted_at": 99.0}, {**KEPT, "admitted_at": 100.0}, LOGGED[0]]
    result = reconcile(events, PRICES, since=100.0)
    assert (result.records, result.passed_over, result.balanced) == (1, 1, True)


def test_generations_whose_records_may_be_deleted_are_passed_over_and_counted() -> None:
    def at(second: int, trace_id: str) -> dict[str, Any]:
        return {**LOGGED[0], "timestamp": f"2026-11-24T22:00:{second:02d}Z", "trace_id": trace_id}

    until = datetime(2026, 11, 24, 22, 0, 30, tzinfo=UTC).timestamp()
    events = [at(10, "gone"), at(20, "kept"), at(29, "gone too"), {**KEPT, "trace_id": "kept"}]
    result = reconcile(events, PRICES, deleted_until=until)
    assert (result.records, result.deleted, result.balanced, as_json(result)["deleted"]) == (1, 2, True, 2)
    assert not reconcile(events, PRICES).balanced
    console = Console(record=True, width=120)
    console.print(table(result))
    assert "2 generations were passed over" in console.export_text()
    late = reconcile([*events, at(30, "uncharged")], PRICES, deleted_until=until)
    assert (late.deleted, late.balanced) == (2, False)


def test_what_was_reckoned_for_dead_requests_is_told_apart() -> None:
    dead = record("3") | {"settlement": "expired", "total_nanos": 700}
    half = record("4", attempt(Tier.SMALL, SMALL)) | {"settlement": "recovered", "total_nanos": 1_000}
    result = reconcile([dead, half, LOGGED[0]], PRICES)
    assert result.balanced
    assert (result.reckoned, result.reckoned_nanos) == (2, 700 + 1_000 - PRICES[Tier.SMALL].cost(SMALL))


def test_logs_begin_with_the_first_line_of_a_model_service(tmp_path: Path) -> None:
    assert logs_begin(tmp_path) is None
    for name, service, minute in (("router", "router", 1), ("a", "small-model", 3), ("b", "large-model", 2)):
        lines = [{"service": f"marginal-{service}", "timestamp": f"2026-11-24T22:0{at}:00Z"} for at in (minute, 9)]
        (tmp_path / f"{name}.log").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (tmp_path / "c.log").write_text('{"service": "marginal-small-model"}\n{"timestamp": "never"}\n')
    assert logs_begin(tmp_path) == datetime(2026, 11, 24, 22, 2, tzinfo=UTC).timestamp()


def test_the_table_says_whether_the_accounts_agree() -> None:
    def text(*events: dict[str, Any]) -> str:
        console = Console(width=160)
        with console.capture() as capture:
            console.print(table(reconcile(events, PRICES)))
        return capture.get()

    assert "2 records, 9,586 nano-units: both accounts agree, difference 0" in text(KEPT, DEFERRED, *LOGGED)
    assert "differ by -393 nano-units, 0 records repeat a request" in text(LOGGED[0])


def test_both_accounts_as_json_have_every_figure() -> None:
    entry = json.loads(json.dumps(as_json(reconcile([KEPT, *LOGGED], PRICES))))
    assert (entry["records"], entry["balanced"]) == (1, False)
    assert entry["tiers"]["small"]["logged"] == {"input_tokens": 80, "output_tokens": 6, "cached_input_tokens": 16}
    assert entry["tiers"]["small"]["output_difference"] == -3
