"""What routing and the model services did, as spans and log lines.

A router writes one `cost_record` line a request, a model service one `generation` line a generation: two accounts of
the same tokens, kept apart, that `evaluation/reconcile.py` compares. Nothing here raises into a request.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

from marginal.policy.deferral import Decision
from marginal.pricing import NANOS_PER_UNIT
from marginal.routing.record_lines import record_fields, usage_fields
from marginal.routing.records import Attempt, CostRecord, Outcome
from marginal.telemetry import names
from marginal.telemetry.calls import attached, current_tenant
from marginal.telemetry.logs import Log
from marginal.telemetry.metrics import Metrics
from marginal.telemetry.sampling_watch import SamplingWatch
from marginal.tokens import EngineTimes, FinishReason, Tier, Usage


class GenerationEnded(Protocol):
    """Takes what one generation used and how it ended: `finish` is None when it did not come to an end.

    `times` are what its engine says it took.
    """

    def __call__(
        self, usage: Usage, finish: FinishReason | None, *, cancelled: bool, times: EngineTimes | None = None
    ) -> None: ...


class OpenTelemetryRecorder:
    """The router's recorder: a span per attempt, the decision on the request's span, a line per cost record."""

    def __init__(self, spans: Tracer, log: Log, metrics: Metrics, *, currency: Callable[[], str]) -> None:
        """`currency` gives the ISO 4217 code of attempts' costs."""
        self._spans = spans
        self._log = log
        self._metrics = metrics
        self._sampling = SamplingWatch(log)
        self._currency = currency

    @contextlib.contextmanager
    def attempt(self, tier: Tier) -> Iterator[Callable[[Attempt], None]]:
        """Spans one attempt and makes its span current, so that the call to the tier becomes its child."""
        attributes = {
            names.GEN_AI_OPERATION_NAME: names.CHAT,
            names.GEN_AI_PROVIDER_NAME: names.PROVIDER,
            names.TIER: tier.value,
        }
        with _current_span(self._spans, f"{names.CHAT} {tier.value}", SpanKind.CLIENT, attributes) as span:

            def ended(attempt: Attempt) -> None:
                with _harmless(self._log):
                    self._describe(span, attempt)

            yield ended

    def answered(self, record: CostRecord) -> None:
        """Puts decision and total on the current span."""
        with _harmless(self._log):
            span = trace.get_current_span()
            span.set_attributes(_request_attributes(record))
            if record.decision is not None:
                decision = _decision_attributes(record.decision)
                span.set_attributes(decision)
                span.add_event(names.DECISION_EVENT, decision)

    def completed(self, record: CostRecord) -> None:
        """Counts the request and writes its record's one log line."""
        with _harmless(self._log):
            self._metrics.completed(record)
        with _harmless(self._log):
            self._sampling.completed(record)
        with _harmless(self._log):
            self._log.info(names.COST_RECORD, **record_fields(record))

    def trace_id(self) -> str:
        """The current trace's id in hexadecimal, empty when there is none."""
        return _trace_id()

    def _describe(self, span: Span, attempt: Attempt) -> None:
        span.update_name(f"{names.CHAT} {attempt.model}")
        span.set_attributes(
            {
                names.GEN_AI_REQUEST_MODEL: attempt.model,
                names.GEN_AI_RESPONSE_MODEL: attempt.model,
                **_usage_attributes(attempt.usage),
                names.GEN_AI_USAGE_COST_AMOUNT: attempt.cost_nanos / NANOS_PER_UNIT,
                names.GEN_AI_USAGE_COST_CURRENCY: self._currency(),
                names.GEN_AI_USAGE_COST_SOURCE: names.COST_SOURCE_LOCAL,
                names.COST_NANOS: attempt.cost_nanos,
                names.ATTEMPT_OUTCOME: attempt.outcome.value,
            }
        )
        if attempt.outcome is Outcome.FAILED:
            _fail(span, attempt.error or Outcome.FAILED.value)


class GenerationRecorder:
    """The model service's recorder: a span, its tokens and a line per generation."""

    def __init__(
        self, spans: Tracer, log: Log, metrics: Metrics, *, tier: Tier, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`clock` gives seconds."""
        self._spans = spans
        self._log = log
        self._metrics = metrics
        self._tier = tier
        self._clock = clock

    @contextlib.contextmanager
    def generation_span(self, model_name: str) -> Iterator[GenerationEnded]:
        """Spans one generation; a line is written when the yielded callable is told what it used."""
        attributes = {
            names.GEN_AI_OPERATION_NAME: names.CHAT,
            names.GEN_AI_PROVIDER_NAME: names.PROVIDER,
            names.GEN_AI_REQUEST_MODEL: model_name,
            names.GEN_AI_RESPONSE_MODEL: model_name,
            names.TIER: self._tier.value,
        }
        started = self._clock()
        with _current_span(self._spans, f"{names.CHAT} {model_name}", SpanKind.INTERNAL, attributes) as span:

            def ended(
                usage: Usage, finish: FinishReason | None, *, cancelled: bool, times: EngineTimes | None = None
            ) -> None:
                with _harmless(self._log):
                    span.set_attributes({**_usage_attributes(usage), names.CANCELLED: cancelled})
                    span.set_attributes(_times_attributes(times or EngineTimes()))
                    if finish is not None:
                        span.set_attribute(names.GEN_AI_RESPONSE_FINISH_REASONS, (finish.value,))
                with _harmless(self._log):
                    self._metrics.generated(self._tier, usage, cancelled=cancelled)
                with _harmless(self._log):
                    self._log.info(
                        names.GENERATION,
                        tier=self._tier.value,
                        model=model_name,
                        **usage_fields(usage),
                        finish=finish.value if finish else None,
                        cancelled=cancelled,
                        tenant=current_tenant(),
                        seconds=round(self._clock() - started, 6),
                        trace_id=_trace_id(span),
                    )

            try:
                yield ended
            except Exception as error:
                _fail(span, type(error).__name__)
                raise


def _request_attributes(record: CostRecord) -> dict[str, str | int]:
    attributes: dict[str, str | int | None] = {
        names.REQUEST_ID: record.request_id,
        names.TENANT: record.tenant or None,
        names.TASK: record.task or None,
        names.POLICY: record.policy,
        names.POLICY_VERSION: record.policy_version,
        names.TIER: record.tier.value if record.tier else None,
        names.DEGRADED: record.degraded.value if record.degraded else None,
        names.COST_TOTAL_NANOS: record.total_nanos,
        names.COST_ALWAYS_LARGE_NANOS: record.always_large_nanos,
    }
    return {name: value for name, value in attributes.items() if value is not None}


def _decision_attributes(decision: Decision) -> dict[str, str | int | float]:
    attributes: dict[str, str | int | float | None] = {
        names.VERDICT: decision.verdict.value,
        names.REASON: decision.reason.value,
        names.SCORE_NAME: decision.score_name or None,
        names.SCORE: decision.score,
        names.THRESHOLD: decision.threshold,
        names.TOKENS_SEEN: decision.tokens_seen,
        names.CENSORED: decision.censored,
        names.BOUNDED: decision.bounded,
        names.EVIDENCE_GAP: decision.gap.value if decision.gap else None,
    }
    return {name: value for name, value in attributes.items() if value is not None}


def _usage_attributes(usage: Usage) -> dict[str, int]:
    return {
        names.GEN_AI_USAGE_INPUT_TOKENS: usage.input_tokens,
        names.GEN_AI_USAGE_OUTPUT_TOKENS: usage.output_tokens,
        names.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: usage.cached_input_tokens,
    }


def _times_attributes(times: EngineTimes) -> dict[str, float]:
    attributes = {
        names.ENGINE_PROMPT_SECONDS: times.prompt_seconds,
        names.ENGINE_GENERATION_SECONDS: times.generation_seconds,
    }
    return {name: seconds for name, seconds in attributes.items() if seconds is not None}


@contextlib.contextmanager
def _current_span(tracer: Tracer, name: str, kind: SpanKind, attributes: dict[str, str]) -> Iterator[Span]:
    """A span that is current for the block; exceptions pass it by, their texts are not recorded."""
    span = tracer.start_span(name, kind=kind, attributes=attributes)
    try:
        with attached(trace.set_span_in_context(span)):
            yield span
    finally:
        span.end()


def _fail(span: Span, error_type: str) -> None:
    span.set_attribute(names.ERROR_TYPE, error_type)
    span.set_status(Status(StatusCode.ERROR))


@contextlib.contextmanager
def _harmless(log: Log) -> Iterator[None]:
    """Keeps a fault of telemetry away from the request and says that there was one."""
    try:
        yield
    except Exception as error:
        with contextlib.suppress(Exception):
            log.warning(names.TELEMETRY_FAILED, error=type(error).__name__)


def _trace_id(span: Span | None = None) -> str:
    context = (span or trace.get_current_span()).get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else ""
