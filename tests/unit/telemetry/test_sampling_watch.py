from dataclasses import replace

import pytest

from marginal.telemetry.recorder import OpenTelemetryRecorder
from unit.telemetry.spans import MemoryLog, MemoryTracing
from unit.telemetry.test_recorder import RECORD

OTHER = replace(RECORD, other_sampling=True)


@pytest.fixture
def recorder(memory: MemoryTracing, log: MemoryLog) -> OpenTelemetryRecorder:
    return OpenTelemetryRecorder(memory.tracing.spans, log.logs.log, memory.tracing.metrics, currency=lambda: "USD")


def warned(log: MemoryLog) -> list[tuple[str, str]]:
    return [(line["policy"], line["policy_version"]) for line in log.events() if line["event"] == "other_sampling"]


def test_a_policy_is_warned_of_once_and_every_new_version_of_it(
    recorder: OpenTelemetryRecorder, log: MemoryLog
) -> None:
    for record in (RECORD, OTHER, OTHER, replace(OTHER, policy="careful"), replace(OTHER, policy_version="4"), RECORD):
        recorder.completed(record)
    assert warned(log) == [("balanced", "3"), ("careful", "3"), ("balanced", "4")]


def test_the_warning_names_the_request_and_where_to_look(recorder: OpenTelemetryRecorder, log: MemoryLog) -> None:
    recorder.completed(OTHER)
    (line,) = [line for line in log.events() if line["event"] == "other_sampling"]
    assert (line["level"], line["trace_id"]) == ("warning", RECORD.trace_id)
    assert "marginal policy show" in line["because"]
