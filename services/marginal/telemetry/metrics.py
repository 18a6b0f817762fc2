"""What is counted: requests, their cost and tokens, how often shadows agree, reloads, and events of endpoints.

Labels are bounded: tiers, verdicts and outcomes are few, of policies and endpoints the first ones are told apart, and
tenants, tasks and whatever else callers choose are not labels.
"""

from collections.abc import Mapping, Sequence

from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from marginal.routing.records import CostRecord
from marginal.telemetry import names
from marginal.tokens import Tier, Usage

EXPORT_MILLISECONDS = 10_000
NONE = "none"
OTHER = "other"

MOST_VALUES = 64
"""Values of one label that are told apart in the life of a process: names in files change, and pods come and go."""

TOKEN_BUCKETS = tuple(4.0**power for power in range(11))
"""Upper bounds of the token histogram's buckets, from 1 to about a million: those of the GenAI conventions that fit."""


class _Bounded:
    """A label of which the first values stay as they are, and all others are OTHER."""

    def __init__(self, most: int = MOST_VALUES) -> None:
        self._most = most
        self._known: set[str] = set()

    def __call__(self, value: str) -> str:
        if value in self._known:
            return value
        if len(self._known) >= self._most:
            return OTHER
        self._known.add(value)
        return value


class Metrics:
    """The counters of a router or a model service."""

    def __init__(self, meter: Meter) -> None:
        self._policy, self._endpoint = _Bounded(), _Bounded()
        self._requests = meter.create_counter(names.REQUESTS, unit="{request}", description="Requests by their verdict")
        self._cost = meter.create_counter(names.COST, unit="{nano-unit}", description="Cost of attempts, exact")
        self._tokens = meter.create_histogram(
            names.GEN_AI_CLIENT_TOKEN_USAGE,
            unit="{token}",
            description="Tokens of attempts or generations",
            explicit_bucket_boundaries_advisory=TOKEN_BUCKETS,
        )
        self._compared = meter.create_counter(names.SHADOWS, unit="{request}", description="Kept answers compared")
        self._other_sampling = meter.create_counter(
            names.OTHER_SAMPLING, unit="{request}", description="Sampled otherwise than their threshold was calibrated"
        )
        self._endpoints = meter.create_counter(
            names.ENGINE_EVENTS, unit="{event}", description="Retries, ejections and returns of engine endpoints"
        )
        self._reloads = meter.create_counter(names.RELOADS, unit="{reload}", description="Policy files read anew")
        self._rereads = meter.create_counter(names.REREADS, unit="{reload}", description="Other files read anew")
        self._journal = meter.create_gauge(names.JOURNAL, unit="By", description="Size of the journal of cost records")

    def completed(self, record: CostRecord) -> None:
        """Counts a request, its attempts and its comparison."""
        decision, policy = record.decision, {names.POLICY: self._policy(record.policy)}
        self._requests.add(
            1,
            {
                **policy,
                names.VERDICT: decision.verdict.value if decision else NONE,
                names.REASON: decision.reason.value if decision else NONE,
                names.DEGRADED: record.degraded.value if record.degraded else NONE,
            },
        )
        for attempt in record.attempts:
            labels = {names.TIER: attempt.tier.value, names.ATTEMPT_OUTCOME: attempt.outcome.value}
            self._cost.add(attempt.cost_nanos, policy | labels)
            self._used(attempt.usage, labels)
        if record.other_sampling:
            self._other_sampling.add(1, policy)
        if record.comparison is not None:
            self._compared.add(1, policy | {names.AGREES: record.comparison.agrees})

    def generated(self, tier: Tier, usage: Usage, *, cancelled: bool) -> None:
        """Counts the tokens of a generation."""
        self._used(usage, {names.TIER: tier.value, names.CANCELLED: cancelled})

    def endpoint(self, tier: Tier, endpoint: str, event: str) -> None:
        """Counts what happened at an engine's endpoint, a host and port of the configuration."""
        labels = {names.TIER: tier.value, names.ENGINE_ENDPOINT: self._endpoint(endpoint), names.ENGINE_EVENT: event}
        self._endpoints.add(1, labels)

    def reloaded(self, *, accepted: bool) -> None:
        """Counts a policy file that was read anew, and whether it was put in force."""
        self._reloads.add(1, {names.RESULT: "accepted" if accepted else "refused"})

    def reread(self, what: str, *, accepted: bool) -> None:
        """Counts another file that was read anew, by what it holds, and whether it was put in force."""
        self._rereads.add(1, {names.FILE: what, names.RESULT: "accepted" if accepted else "refused"})

    def journal(self, size_bytes: int) -> None:
        """The size of the router's journal now."""
        self._journal.set(size_bytes)

    def _used(self, usage: Usage, labels: Mapping[str, str | bool]) -> None:
        own = {names.GEN_AI_OPERATION_NAME: names.CHAT, names.GEN_AI_PROVIDER_NAME: names.PROVIDER, **labels}
        self._tokens.record(usage.input_tokens, {**own, names.GEN_AI_TOKEN_TYPE: names.INPUT})
        self._tokens.record(usage.output_tokens, {**own, names.GEN_AI_TOKEN_TYPE: names.OUTPUT})


def metrics_to(readers: Sequence[MetricReader], resource: Resource) -> MeterProvider:
    """Metrics into any readers; without one nothing is counted."""
    return MeterProvider(readers, resource=resource, shutdown_on_exit=False)


def otlp_reader(endpoint: str, *, timeout_seconds: float) -> MetricReader:
    """Sends metrics to a collector, "http://host:port", every ten seconds."""
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter  # slow, and seldom wanted

    insecure = not endpoint.startswith("https://")
    exporter = OTLPMetricExporter(endpoint=endpoint, insecure=insecure, timeout=timeout_seconds)
    return PeriodicExportingMetricReader(exporter, export_interval_millis=EXPORT_MILLISECONDS)
