import json
import socket
import time
from pathlib import Path

import pytest
from opentelemetry import trace

from marginal.errors import ConfigurationError
from marginal.telemetry.exporters import SpanFile
from marginal.telemetry.tracing import SHUTDOWN_SECONDS, Exporter, Tracing, configure
from unit.telemetry.spans import MemoryLog

METHOD = "marginal.v1.RouterService/Generate"


def serve_one(tracing: Tracing) -> str:
    """Serves one call and returns its trace id."""
    with tracing.tracer.server_call(METHOD, {}, trust_baggage=False) as call:
        trace_id = trace.format_trace_id(trace.get_current_span().get_span_context().trace_id)
        call.ended("OK")
    return trace_id


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_the_file_exporter_writes_one_object_a_line_soon(tmp_path: Path) -> None:
    path = tmp_path / "traces" / "router.spans.jsonl"
    tracing = configure("marginal-router", Exporter.FILE, version="1.2.3", trace_file=path)
    trace_ids = [serve_one(tracing), serve_one(tracing)]
    deadline = time.monotonic() + 5
    while not path.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    spans = [json.loads(line) for line in path.read_text().splitlines()]
    tracing.shutdown()
    assert [span["trace_id"] for span in spans] == trace_ids
    assert set(spans[0]) == {
        "trace_id", "span_id", "parent_span_id", "name", "kind", "service", "instance",
        "start_nanos", "end_nanos", "status", "attributes", "events",
    }  # fmt: skip
    assert spans[0]["service"] == "marginal-router"
    assert spans[0]["kind"] == "server"
    assert spans[0]["parent_span_id"] is None
    assert 0 < spans[0]["start_nanos"] <= spans[0]["end_nanos"]


def test_shutdown_writes_the_spans_that_are_left(tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    tracing = configure("model", Exporter.FILE, version="1", trace_file=path)
    trace_id = serve_one(tracing)
    tracing.shutdown()
    assert json.loads(path.read_text())["trace_id"] == trace_id


def test_a_restarted_process_does_not_write_on_into_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    path.write_text('{"trace_id":"0af7')
    tracing = configure("model", Exporter.FILE, version="1", trace_file=path)
    trace_id = serve_one(tracing)
    tracing.shutdown()
    torn, whole = path.read_text().splitlines()
    assert torn == '{"trace_id":"0af7'
    assert json.loads(whole)["trace_id"] == trace_id


def test_the_console_exporter_writes_a_readable_line(capsys: pytest.CaptureFixture[str]) -> None:
    tracing = configure("router", Exporter.CONSOLE, version="1")
    trace_id = serve_one(tracing)
    tracing.shutdown()
    (line,) = capsys.readouterr().out.splitlines()
    assert trace_id in line
    assert METHOD in line
    assert 'rpc.response.status_code="OK"' in line


def test_without_an_exporter_trace_ids_are_made_and_handed_on_all_the_same() -> None:
    tracing = configure("router", Exporter.NONE, version="1")
    caller = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    with tracing.tracer.server_call(METHOD, caller, trust_baggage=False) as call:
        made = tracing.tracer.client_call(METHOD, "small:1")
        made.ended("OK")
        call.ended("OK")
    assert "0af7651916cd43dd8448eb211c80319c" in made.metadata["traceparent"]
    assert len(serve_one(tracing).strip("0")) > 16
    tracing.shutdown()


def test_a_dead_collector_neither_slows_requests_nor_holds_up_the_shutdown(log: MemoryLog) -> None:
    with log.logs.standard_library():
        tracing = configure("router", Exporter.OTLP, version="1", otlp_endpoint=f"http://127.0.0.1:{closed_port()}")
        started = time.monotonic()
        for _ in range(1000):
            serve_one(tracing)
        served = time.monotonic()
        tracing.shutdown(SHUTDOWN_SECONDS)
        stopped = time.monotonic()
    assert served - started < 5
    assert stopped - served < SHUTDOWN_SECONDS + 0.5
    assert all(event["logger"].startswith("opentelemetry") for event in log.events())


def test_a_collector_that_never_answers_does_not_hold_up_the_shutdown(log: MemoryLog) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, log.logs.standard_library():
        tracing = configure(
            "router", Exporter.OTLP, version="1", otlp_endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}"
        )
        serve_one(tracing)
        started = time.monotonic()
        tracing.shutdown(1.0)
        assert time.monotonic() - started < 1.5


def test_what_an_exporter_needs_and_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^otlp_endpoint: missing"):
        configure("router", Exporter.OTLP, version="1")
    with pytest.raises(ConfigurationError, match=r"^trace_file: missing"):
        configure("router", Exporter.FILE, version="1")
    with pytest.raises(ConfigurationError, match=r"^trace_file: .* cannot be written"):
        configure("router", Exporter.FILE, version="1", trace_file=tmp_path)


def test_spans_of_a_closed_file_are_refused_quietly(tmp_path: Path) -> None:
    file = SpanFile(tmp_path / "spans.jsonl")
    file.shutdown()
    assert file.export([]).name == "FAILURE"
