import io
import json

from marginal.backends.endpoints import EndpointObserver
from marginal.telemetry.endpoint_recorder import EndpointRecorder
from marginal.telemetry.logs import Layout, configure
from marginal.telemetry.recorder import GenerationRecorder
from marginal.tokens import Tier
from unit.telemetry.spans import MemoryLog, MemoryTracing
from unit.telemetry.test_metrics import Counted

HERE, THERE = "engine-0:80", "engine-1:80"


class FullDisk(io.StringIO):
    """A log file on a disk without room."""

    def write(self, _text: str) -> int:
        raise OSError(28, "No space left on device")


def life_of_an_endpoint(observer: EndpointObserver) -> None:
    observer.retried(HERE, other=THERE, because="TierUnavailable")
    observer.ejected(HERE, seconds=1.0, because="TierUnavailable")
    observer.tried(HERE, again=False)
    observer.tried(HERE, again=True)
    observer.returned(HERE)
    observer.paused(THERE)
    observer.retry_denied(HERE)


def test_every_event_is_counted_by_tier_endpoint_and_event(log: MemoryLog) -> None:
    counted = Counted()
    life_of_an_endpoint(EndpointRecorder(Tier.SMALL, log.logs.log, counted.metrics))
    sums = {tuple(dict(labels).values()): count for labels, count in counted.sums("marginal.engine.events").items()}
    assert sums == {
        (HERE, "retry", "small"): 1,
        (HERE, "ejected", "small"): 1,
        (HERE, "tried", "small"): 2,
        (HERE, "returned", "small"): 1,
        (HERE, "retry_denied", "small"): 1,
        (THERE, "paused", "small"): 1,
    }


def test_a_line_is_written_when_an_endpoint_goes_is_tried_and_comes_back(memory: MemoryTracing, log: MemoryLog) -> None:
    life_of_an_endpoint(EndpointRecorder(Tier.LARGE, log.logs.log, memory.tracing.metrics))
    told = [(line["level"], line["event"], line["tier"], line["endpoint"]) for line in log.events()]
    assert told == [
        ("warning", "endpoint_ejected", "large", HERE),
        ("info", "endpoint_tried", "large", HERE),
        ("info", "endpoint_returned", "large", HERE),
    ]
    assert (log.events()[0]["seconds"], log.events()[0]["because"]) == (1.0, "TierUnavailable")


def test_what_concerns_a_request_is_on_its_generation_span(memory: MemoryTracing, log: MemoryLog) -> None:
    observer = EndpointRecorder(Tier.SMALL, log.logs.log, memory.tracing.metrics)
    with GenerationRecorder(
        memory.tracing.spans, log.logs.log, memory.tracing.metrics, tier=Tier.SMALL
    ).generation_span("tiny"):
        life_of_an_endpoint(observer)
    retry, ejected = memory.only().events
    assert (retry.name, dict(retry.attributes or {})) == (
        "engine.retry",
        {
            "marginal.engine.endpoint": HERE,
            "marginal.engine.other_endpoint": THERE,
            "marginal.engine.because": "TierUnavailable",
        },
    )
    assert ejected.name == "engine.ejected"
    assert json.loads(log.lines()[0])["trace_id"] == f"{memory.only().context.trace_id:032x}"


def test_a_fault_of_telemetry_stays_in_telemetry(memory: MemoryTracing) -> None:
    log = configure("test", FullDisk(), layout=Layout.JSON).log
    life_of_an_endpoint(EndpointRecorder(Tier.SMALL, log, memory.tracing.metrics))
