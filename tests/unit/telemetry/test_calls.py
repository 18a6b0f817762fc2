import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator

import pytest
from opentelemetry import baggage, trace
from opentelemetry.trace import SpanKind, StatusCode

from marginal.telemetry import names
from marginal.telemetry.calls import SERVER_FAULTS, outgoing_headers
from unit.telemetry.spans import MemoryLog, MemoryTracing

METHOD = "/marginal.v1.RouterService/Generate"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT_ID = "b7ad6b7169203331"
FROM_CALLER = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01"}
WITH_TENANT = {**FROM_CALLER, "baggage": f"{names.TENANT}=acme"}


def test_a_served_call_continues_the_callers_trace(memory: MemoryTracing) -> None:
    with memory.tracing.tracer.server_call(METHOD, FROM_CALLER, trust_baggage=False) as call:
        call.ended("OK")
    span = memory.only()
    assert span.name == "marginal.v1.RouterService/Generate"
    assert span.kind is SpanKind.SERVER
    assert trace.format_trace_id(span.context.trace_id) == TRACE_ID
    assert trace.format_span_id(span.parent.span_id) == PARENT_ID
    assert span.attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": "marginal.v1.RouterService/Generate",
        "rpc.response.status_code": "OK",
    }
    assert span.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("header", ["", "rubbish", "00-zz-zz-01", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "\x00"])
def test_a_broken_trace_header_starts_a_new_trace(memory: MemoryTracing, header: str) -> None:
    with memory.tracing.tracer.server_call(METHOD, {"traceparent": header}, trust_baggage=True) as call:
        call.ended("OK")
    assert memory.only().parent is None


def test_a_made_call_is_the_child_of_the_served_one_and_carries_its_own_span_on(memory: MemoryTracing) -> None:
    tracer = memory.tracing.tracer
    with tracer.server_call(METHOD, FROM_CALLER, trust_baggage=False) as served:
        made = tracer.client_call("marginal.v1.ModelService/Generate", "dns:///small:50051")
        made.ended("OK")
        served.ended("OK")
    client, server = memory.spans()
    assert client.kind is SpanKind.CLIENT
    assert client.parent.span_id == server.context.span_id
    assert made.metadata["traceparent"] == f"00-{TRACE_ID}-{trace.format_span_id(client.context.span_id)}-01"
    assert client.attributes["server.address"] == "small"
    assert client.attributes["server.port"] == 50051


def test_calls_to_what_is_not_ours_carry_the_trace_and_never_the_tenant(memory: MemoryTracing) -> None:
    assert outgoing_headers() == {}
    with memory.tracing.tracer.server_call(METHOD, {**WITH_TENANT, "tracestate": "a=1"}, trust_baggage=True) as call:
        headers = outgoing_headers()
        call.ended("OK")
    span = trace.format_span_id(memory.only().context.span_id)
    assert headers == {"traceparent": f"00-{TRACE_ID}-{span}-01", "tracestate": "a=1"}


@pytest.mark.parametrize(
    ("target", "host", "port"),
    [
        ("127.0.0.1:50051", "127.0.0.1", 50051),
        ("dns:///router-headless.prod:80", "router-headless.prod", 80),
        ("[::1]:50051", "::1", 50051),
        ("router", "router", None),
    ],
)
def test_a_target_is_told_as_address_and_port(memory: MemoryTracing, target: str, host: str, port: int | None) -> None:
    memory.tracing.tracer.client_call(METHOD, target).ended("OK")
    attributes = memory.only().attributes
    assert attributes["server.address"] == host
    assert attributes.get("server.port") == port


def test_a_cancelled_stream_ends_cancelled_and_is_no_error_on_either_side(memory: MemoryTracing) -> None:
    tracer = memory.tracing.tracer
    with tracer.server_call(METHOD, {}, trust_baggage=False) as served:
        tracer.client_call(METHOD, "small:1").ended("CANCELLED")
        served.ended("CANCELLED")
    for span in memory.spans():
        assert span.attributes["rpc.response.status_code"] == "CANCELLED"
        assert span.status.status_code is StatusCode.UNSET
        assert "error.type" not in span.attributes


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "NOT_FOUND", *sorted(SERVER_FAULTS)])
def test_a_failure_is_always_the_clients_error_and_the_servers_when_it_is_at_fault(
    memory: MemoryTracing, code: str
) -> None:
    tracer = memory.tracing.tracer
    with tracer.server_call(METHOD, {}, trust_baggage=False) as served:
        tracer.client_call(METHOD, "small:1").ended(code)
        served.ended(code)
    client, server = memory.spans()
    assert client.status.status_code is StatusCode.ERROR
    assert client.attributes["error.type"] == code
    assert (server.status.status_code is StatusCode.ERROR) == (code in SERVER_FAULTS)
    assert server.attributes["rpc.response.status_code"] == code


def test_a_crashed_call_ends_unknown(memory: MemoryTracing) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        memory.tracing.tracer.server_call(METHOD, {}, trust_baggage=False),
    ):
        raise ZeroDivisionError("CANARY")
    span = memory.only()
    assert span.attributes["rpc.response.status_code"] == "UNKNOWN"
    assert span.status.status_code is StatusCode.ERROR
    assert span.events == ()
    assert "CANARY" not in span.to_json()


def test_only_the_first_end_of_a_call_counts(memory: MemoryTracing) -> None:
    call = memory.tracing.tracer.client_call(METHOD, "small:1")
    call.ended("CANCELLED")
    call.ended("OK")
    assert memory.only().attributes["rpc.response.status_code"] == "CANCELLED"


def test_baggage_of_an_untrusted_caller_is_neither_taken_nor_handed_on(memory: MemoryTracing) -> None:
    tracer = memory.tracing.tracer
    with tracer.server_call(METHOD, WITH_TENANT, trust_baggage=False) as served:
        assert baggage.get_all() == {}
        made = tracer.client_call(METHOD, "small:1")
        made.ended("OK")
        served.ended("OK")
    assert "baggage" not in made.metadata
    assert all(names.TENANT not in span.attributes for span in memory.spans())


def test_the_tenant_of_a_trusted_caller_is_on_the_span_and_handed_on(memory: MemoryTracing) -> None:
    tracer = memory.tracing.tracer
    with tracer.server_call(METHOD, WITH_TENANT, trust_baggage=True) as served:
        made = tracer.client_call(METHOD, "small:1")
        made.ended("OK")
        served.ended("OK")
    assert made.metadata["baggage"] == "marginal.tenant=acme"
    assert memory.spans()[-1].attributes[names.TENANT] == "acme"


def test_an_authenticated_tenant_travels_with_the_calls_made_for_it(memory: MemoryTracing) -> None:
    tracer = memory.tracing.tracer
    with tracer.server_call(METHOD, WITH_TENANT, trust_baggage=False) as router:
        with tracer.tenant("a b,c"):
            made = tracer.client_call(METHOD, "small:1")
        assert baggage.get_all() == {}
        made.ended("OK")
        router.ended("OK")
    with tracer.server_call(METHOD, made.metadata, trust_baggage=True) as model:
        model.ended("OK")
    assert [span.attributes.get(names.TENANT) for span in memory.spans()] == [None, "a b,c", "a b,c"]


def test_the_surrounding_context_is_as_before_after_a_call(memory: MemoryTracing) -> None:
    before = trace.get_current_span()
    with memory.tracing.tracer.server_call(METHOD, {}, trust_baggage=False) as call:
        assert trace.get_current_span() is not before
        call.ended("OK")
    assert trace.get_current_span() is before


def test_a_call_left_in_a_foreign_context_neither_raises_nor_logs(memory: MemoryTracing, log: MemoryLog) -> None:
    entered = memory.tracing.tracer.server_call(METHOD, {}, trust_baggage=False)
    contextvars.Context().run(entered.__enter__).ended("CANCELLED")
    with log.logs.standard_library():
        entered.__exit__(None, None, None)
    assert log.lines() == []
    assert memory.only().attributes["rpc.response.status_code"] == "CANCELLED"


async def test_a_stream_closed_by_another_task_neither_raises_nor_logs(memory: MemoryTracing, log: MemoryLog) -> None:
    async def handler() -> AsyncIterator[int]:
        with memory.tracing.tracer.server_call(METHOD, {}, trust_baggage=False) as call:
            try:
                yield 1
                yield 2
            finally:
                call.ended("CANCELLED")

    stream = handler()
    with log.logs.standard_library():
        assert await asyncio.create_task(anext(stream)) == 1
        await asyncio.create_task(stream.aclose())
    assert log.lines() == []
    assert memory.only().attributes["rpc.response.status_code"] == "CANCELLED"


def test_a_made_call_may_end_on_another_thread(memory: MemoryTracing) -> None:
    call = memory.tracing.tracer.client_call(METHOD, "small:1")
    ending = threading.Thread(target=call.ended, args=("OK",))
    ending.start()
    ending.join()
    assert memory.only().attributes["rpc.response.status_code"] == "OK"
