import io
from dataclasses import replace

import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

from marginal.policy.deferral import Decision, Reason, Verdict
from marginal.routing.ports import Recorder
from marginal.routing.records import Attempt, Comparison, CostRecord, DegradedReason, Outcome
from marginal.telemetry import names
from marginal.telemetry.logs import Layout, configure
from marginal.telemetry.recorder import GenerationRecorder, OpenTelemetryRecorder
from marginal.telemetry.tracing import Exporter
from marginal.telemetry.tracing import configure as configure_tracing
from marginal.tokens import EngineTimes, FinishReason, Tier, Usage
from marginal.transport.model_servicer import GenerationRecorder as GenerationPort
from marginal.transport.tracing import CallTracer
from unit.telemetry.spans import MemoryLog, MemoryTracing

METHOD = "marginal.v1.RouterService/Generate"
CANARY = "CANARY-7d1c"
SMALL = Attempt(
    Tier.SMALL, "home-small", Outcome.ABORTED, Usage(40, 3, 8, counted=True), 1_300, 0.0123456789, None, 4_100
)
LARGE = Attempt(Tier.LARGE, "home-large", Outcome.KEPT, Usage(40, 12), 52_000, 0.25, busy_micros=250_000)
DECISION = Decision(Verdict.DEFER, Reason.SCORE, "min_margin", 0.125, 0.6, 3, censored=True)
RECORD = CostRecord(
    request_id="request-1",
    trace_id="0af7651916cd43dd8448eb211c80319c",
    tenant="acme",
    policy="balanced",
    policy_version="3",
    currency="USD",
    decision=DECISION,
    attempts=(SMALL, LARGE),
    always_large_nanos=52_000,
    tier=Tier.LARGE,
    finish=FinishReason.STOP,
    admitted_at=1_700_000_000.25,
    price_version="0a1b2c3d4e5f",
    price_sources={Tier.SMALL: "policy file", Tier.LARGE: "genai-prices 0.2.3 openai/gpt-4o-mini"},
)


class FullDisk(io.StringIO):
    """A log file on a disk without room."""

    def write(self, _text: str) -> int:
        raise OSError(28, "No space left on device")


@pytest.fixture
def recorder(memory: MemoryTracing, log: MemoryLog) -> OpenTelemetryRecorder:
    return OpenTelemetryRecorder(memory.tracing.spans, log.logs.log, memory.tracing.metrics, currency=lambda: "USD")


def test_outside_of_a_trace_there_is_no_trace_id(recorder: OpenTelemetryRecorder) -> None:
    assert recorder.trace_id() == ""


def test_telemetry_is_what_routing_and_transport_ask_for(memory: MemoryTracing, log: MemoryLog) -> None:
    spans = memory.tracing.spans
    routing: Recorder = OpenTelemetryRecorder(spans, log.logs.log, memory.tracing.metrics, currency=lambda: "USD")
    model: GenerationPort = GenerationRecorder(spans, log.logs.log, memory.tracing.metrics, tier=Tier.SMALL)
    calls: CallTracer = memory.tracing.tracer
    with calls.server_call(METHOD, {}, trust_baggage=False) as call, model.generation_span("home-small"):
        assert len(routing.trace_id()) == 32
        calls.client_call(METHOD, "small:1").ended("OK")
        call.ended("OK")


def test_an_attempt_is_a_span_named_after_its_model_with_usage_cost_and_outcome(
    recorder: OpenTelemetryRecorder, memory: MemoryTracing
) -> None:
    with recorder.attempt(Tier.SMALL) as ended:
        ended(SMALL)
    span = memory.only()
    assert span.name == "chat home-small"
    assert span.kind is SpanKind.CLIENT
    assert span.status.status_code is StatusCode.UNSET
    assert span.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "marginal",
        "gen_ai.request.model": "home-small",
        "gen_ai.response.model": "home-small",
        "gen_ai.usage.input_tokens": 40,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.usage.cache_read.input_tokens": 8,
        "gen_ai.usage.cost.amount": 1.3e-06,
        "gen_ai.usage.cost.currency": "USD",
        "gen_ai.usage.cost.source": "local",
        "marginal.cost.nanos": 1_300,
        "marginal.tier": "small",
        "marginal.attempt.outcome": "aborted",
    }


@pytest.mark.parametrize("outcome", list(Outcome))
def test_only_a_failed_attempt_is_an_error(
    recorder: OpenTelemetryRecorder, memory: MemoryTracing, outcome: Outcome
) -> None:
    failed = outcome is Outcome.FAILED
    with recorder.attempt(Tier.SMALL) as ended:
        ended(replace(SMALL, outcome=outcome, error="TierUnavailable" if failed else None))
    span = memory.only()
    assert (span.status.status_code is StatusCode.ERROR) == failed
    assert span.attributes.get("error.type") == ("TierUnavailable" if failed else None)


def test_calls_made_during_an_attempt_are_its_children_and_attempts_are_the_requests(
    recorder: OpenTelemetryRecorder, memory: MemoryTracing
) -> None:
    tracer = memory.tracing.tracer
    with tracer.server_call(METHOD, {}, trust_baggage=False) as request:
        for attempt in (SMALL, LARGE):
            with recorder.attempt(attempt.tier) as ended:
                tracer.client_call("marginal.v1.ModelService/Generate", "model:1").ended("OK")
                ended(attempt)
        request.ended("OK")
    first_call, first, second_call, second, root = memory.spans()
    assert first_call.parent.span_id == first.context.span_id
    assert second_call.parent.span_id == second.context.span_id
    assert first.parent.span_id == second.parent.span_id == root.context.span_id


def test_a_completed_request_has_decision_and_total_on_its_span(
    recorder: OpenTelemetryRecorder, memory: MemoryTracing
) -> None:
    with memory.tracing.tracer.server_call(METHOD, {}, trust_baggage=False) as request:
        recorder.answered(RECORD)
        request.ended("OK")
    span = memory.only()
    decision = {
        "marginal.verdict": "defer",
        "marginal.reason": "score",
        "marginal.score.name": "min_margin",
        "marginal.score": 0.125,
        "marginal.threshold": 0.6,
        "marginal.tokens_seen": 3,
        "marginal.censored": True,
        "marginal.bounded": False,
    }
    assert {name: value for name, value in span.attributes.items() if name.startswith("marginal.")} == decision | {
        "marginal.request_id": "request-1",
        "marginal.tenant": "acme",
        "marginal.policy": "balanced",
        "marginal.policy.version": "3",
        "marginal.tier": "large",
        "marginal.cost.total_nanos": 53_300,
        "marginal.cost.always_large_nanos": 52_000,
    }
    (event,) = span.events
    assert event.name == "marginal.decision"
    assert event.attributes == decision


def test_a_bounded_score_says_so_on_the_span_and_in_the_cost_record(
    recorder: OpenTelemetryRecorder, memory: MemoryTracing, log: MemoryLog
) -> None:
    bounded = replace(RECORD, decision=replace(DECISION, bounded=True))
    with memory.tracing.tracer.server_call(METHOD, {}, trust_baggage=False) as request:
        recorder.answered(bounded)
        request.ended("OK")
    recorder.completed(bounded)
    (event,) = log.events()
    assert memory.only().attributes[names.BOUNDED] is True
    assert event["decision"]["bounded"] is True


def test_the_cost_record_is_one_line_with_everything_in_it(recorder: OpenTelemetryRecorder, log: MemoryLog) -> None:
    recorder.completed(RECORD)
    (event,) = log.events()
    del event["timestamp"]
    assert event == {
        "level": "info",
        "event": "cost_record",
        "service": "test",
        "request_id": "request-1",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "tenant": "acme",
        "task": None,
        "policy": "balanced",
        "policy_version": "3",
        "tier": "large",
        "finish": "stop",
        "degraded": None,
        "error": None,
        "decision": {
            "verdict": "defer",
            "reason": "score",
            "score_name": "min_margin",
            "score": 0.125,
            "threshold": 0.6,
            "tokens_seen": 3,
            "censored": True,
            "bounded": False,
            "evidence_gap": None,
        },
        "attempts": [
            {
                "tier": "small",
                "model": "home-small",
                "outcome": "aborted",
                "input_tokens": 40,
                "cached_input_tokens": 8,
                "output_tokens": 3,
                "usage_source": "counted",
                "busy_micros": 4_100,
                "cost_nanos": 1_300,
                "seconds": 0.012346,
                "error": None,
            },
            {
                "tier": "large",
                "model": "home-large",
                "outcome": "kept",
                "input_tokens": 40,
                "cached_input_tokens": 0,
                "output_tokens": 12,
                "usage_source": "engine",
                "busy_micros": 250_000,
                "cost_nanos": 52_000,
                "seconds": 0.25,
                "error": None,
            },
        ],
        "currency": "USD",
        "price_version": "0a1b2c3d4e5f",
        "price_sources": {"small": "policy file", "large": "genai-prices 0.2.3 openai/gpt-4o-mini"},
        "total_nanos": 53_300,
        "always_large_nanos": 52_000,
        "wasted_nanos": 1_300,
        "saved_nanos": -1_300,
        "settlement": "settled",
        "admitted_at": 1_700_000_000.25,
        "sampled": False,
        "shadow": None,
    }


def test_a_comparison_is_on_the_line_without_texts_unless_they_were_kept(
    recorder: OpenTelemetryRecorder, log: MemoryLog
) -> None:
    for texts in ({}, {"small_text": "yes", "large_text": "no"}):
        compared = Comparison(agrees=False, scores={"min_margin": 0.75}, **texts)
        recorder.completed(replace(RECORD, sampled=True, comparison=compared))
    silent, telling = (event["shadow"] for event in log.events())
    assert silent == {"agrees": False, "scores": {"min_margin": 0.75}}
    assert telling == silent | {"small_text": "yes", "large_text": "no"}


def test_a_record_without_decision_or_score_is_told_as_it_is(
    recorder: OpenTelemetryRecorder, memory: MemoryTracing, log: MemoryLog
) -> None:
    with memory.tracing.tracer.server_call(METHOD, {}, trust_baggage=False):
        for record in (
            replace(RECORD, decision=None, tier=None, finish=None, error="cancelled"),
            replace(RECORD, decision=Decision(Verdict.KEEP, Reason.MODE), tenant=""),
            replace(RECORD, degraded=DegradedReason.LARGE_UNAVAILABLE),
        ):
            recorder.answered(record)
            recorder.completed(record)
    first, second, third = log.events()
    assert (first["decision"], first["tier"], first["error"]) == (None, None, "cancelled")
    assert (second["decision"]["score"], second["tenant"]) == (None, "")
    assert third["degraded"] == "large_unavailable"
    assert memory.only().attributes[names.DEGRADED] == "large_unavailable"


def test_the_trace_id_is_the_callers_even_when_nothing_is_recorded(log: MemoryLog) -> None:
    tracing = configure_tracing("router", Exporter.NONE, version="1")
    recorder = OpenTelemetryRecorder(tracing.spans, log.logs.log, tracing.metrics, currency=lambda: "USD")
    header = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    with tracing.tracer.server_call(METHOD, header, trust_baggage=False) as request:
        with recorder.attempt(Tier.SMALL) as ended:
            assert recorder.trace_id() == "0af7651916cd43dd8448eb211c80319c"
            ended(SMALL)
        recorder.completed(RECORD)
        request.ended("OK")
    assert log.events()[0]["event"] == "cost_record"


def test_a_generation_is_a_span_and_a_line_of_the_model_services_own_account(
    memory: MemoryTracing, log: MemoryLog
) -> None:
    clock = iter((10.0, 10.5))
    recorder = GenerationRecorder(
        memory.tracing.spans, log.logs.log, memory.tracing.metrics, tier=Tier.SMALL, clock=lambda: next(clock)
    )
    with recorder.generation_span("home-small") as ended:
        ended(Usage(40, 3, 8), FinishReason.UNSURE, cancelled=False)
    span = memory.only()
    assert span.name == "chat home-small"
    assert span.kind is SpanKind.INTERNAL
    assert span.attributes["gen_ai.response.finish_reasons"] == ("unsure",)
    assert span.attributes["gen_ai.usage.output_tokens"] == 3
    assert span.attributes["marginal.cancelled"] is False
    assert "gen_ai.usage.cost.amount" not in span.attributes
    (event,) = log.events()
    del event["timestamp"]
    assert event == {
        "level": "info",
        "event": "generation",
        "service": "test",
        "tier": "small",
        "model": "home-small",
        "input_tokens": 40,
        "cached_input_tokens": 8,
        "output_tokens": 3,
        "usage_source": "engine",
        "finish": "unsure",
        "cancelled": False,
        "tenant": None,
        "seconds": 0.5,
        "trace_id": trace.format_trace_id(span.context.trace_id),
    }


def test_what_an_engine_says_of_its_times_is_on_the_span_and_what_it_does_not_say_is_not(
    memory: MemoryTracing, log: MemoryLog
) -> None:
    recorder = GenerationRecorder(memory.tracing.spans, log.logs.log, memory.tracing.metrics, tier=Tier.SMALL)
    with recorder.generation_span("home-small") as ended:
        times = EngineTimes(prompt_seconds=0.25, generation_seconds=0.5)
        ended(Usage(40, 3), FinishReason.STOP, cancelled=False, times=times)
    told = {name: value for name, value in memory.only().attributes.items() if name.startswith("marginal.engine.")}
    assert told == {"marginal.engine.prompt_seconds": 0.25, "marginal.engine.generation_seconds": 0.5}


def test_a_cancelled_generation_is_counted_and_is_no_error(memory: MemoryTracing, log: MemoryLog) -> None:
    recorder = GenerationRecorder(memory.tracing.spans, log.logs.log, memory.tracing.metrics, tier=Tier.LARGE)
    with recorder.generation_span("home-large") as ended:
        ended(Usage(40, 2), None, cancelled=True)
    (event,) = log.events()
    assert (event["finish"], event["cancelled"], event["output_tokens"]) == (None, True, 2)
    assert memory.only().status.status_code is StatusCode.UNSET


def test_a_failed_generation_is_an_error_without_its_text(memory: MemoryTracing, log: MemoryLog) -> None:
    recorder = GenerationRecorder(memory.tracing.spans, log.logs.log, memory.tracing.metrics, tier=Tier.LARGE)
    with pytest.raises(ValueError, match=CANARY), recorder.generation_span("home-large"):
        raise ValueError(CANARY)
    span = memory.only()
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == "ValueError"
    assert CANARY not in span.to_json() + log.stream.getvalue()


def test_a_canary_in_every_exception_on_the_way_is_in_no_span_and_no_log(
    recorder: OpenTelemetryRecorder, memory: MemoryTracing, log: MemoryLog
) -> None:
    def serve() -> None:
        with (
            memory.tracing.tracer.server_call(METHOD, {"x-prompt": CANARY}, trust_baggage=True),
            recorder.attempt(Tier.SMALL),
        ):
            try:
                raise KeyError(CANARY)
            except KeyError as error:
                log.logs.log.error("failed", exc_info=error)
                raise RuntimeError(CANARY) from error

    with pytest.raises(RuntimeError, match=CANARY):
        serve()
    recorder.completed(RECORD)
    assert len(memory.spans()) == 2
    assert CANARY not in "".join(span.to_json() for span in memory.spans()) + log.stream.getvalue()


def closed_stream() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [FullDisk(), closed_stream()], ids=["full disk", "closed"])
def test_a_log_that_cannot_be_written_fails_no_request(memory: MemoryTracing, stream: io.StringIO) -> None:
    log = configure("router", stream, layout=Layout.JSON).log
    OpenTelemetryRecorder(memory.tracing.spans, log, memory.tracing.metrics, currency=lambda: "USD").completed(RECORD)
    with GenerationRecorder(memory.tracing.spans, log, memory.tracing.metrics, tier=Tier.SMALL).generation_span(
        "home-small"
    ) as ended:
        ended(Usage(1, 1), FinishReason.STOP, cancelled=False)
    assert memory.only().attributes["gen_ai.usage.output_tokens"] == 1
