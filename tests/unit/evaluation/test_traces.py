"""Traces are read from files that other processes write, and drawn."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from marginal.evaluation.traces import Trace, as_json, assemble, read_spans
from marginal.evaluation.waterfall import Waterfall
from marginal.policy.deferral import Decision, Reason, Verdict
from marginal.routing.records import Attempt, CostRecord, Outcome
from marginal.telemetry.logs import configure as configure_logs
from marginal.telemetry.recorder import GenerationRecorder, OpenTelemetryRecorder
from marginal.telemetry.tracing import Exporter, configure
from marginal.tokens import FinishReason, Tier, Usage

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
ROUTER_METHOD, MODEL_METHOD = "marginal.v1.RouterService/Generate", "marginal.v1.ModelService/Generate"
MILLISECOND = 1_000_000


def line(span_id: str, parent: str | None, start: int = 0, end: int = 10, **fields: Any) -> str:
    """A line of a span file; `start` and `end` in milliseconds."""
    entry = {
        "trace_id": TRACE_ID,
        "span_id": span_id,
        "parent_span_id": parent,
        "name": span_id,
        "kind": "internal",
        "service": "router",
        "instance": "1",
        "start_nanos": 1_700_000_000_000_000_000 + start * MILLISECOND,
        "end_nanos": 1_700_000_000_000_000_000 + end * MILLISECOND,
        "status": "unset",
        "attributes": {},
        "events": [],
    }
    return json.dumps(entry | fields)


@pytest.fixture
def trace_of(tmp_path: Path) -> Callable[..., Trace | None]:
    """Writes lines to a span file and assembles their trace."""

    def read(*lines: str) -> Trace | None:
        (tmp_path / "router.spans.jsonl").write_text("\n".join(lines))
        return assemble(read_spans(tmp_path), TRACE_ID)

    return read


def drawn(trace: Trace | None, *, width: int = 160) -> str:
    assert trace is not None
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(Waterfall(trace))
    return "\n".join(text.rstrip() for text in capture.get().splitlines())


def test_spans_become_a_tree_in_the_order_they_started(trace_of: Callable[..., Trace | None]) -> None:
    trace = trace_of(
        line("late", "root", 5, 9), line("leaf", "early", 2, 3), line("early", "root", 1), line("root", None)
    )
    assert trace is not None
    assert [node.span.span_id for node in trace.nodes] == ["root", "early", "leaf", "late"]


def test_a_torn_last_line_and_lines_that_are_no_span_are_passed_over(trace_of: Callable[..., Trace | None]) -> None:
    whole = line("root", None)
    odd = ("", "null", "[]", "{}", "\x00", line("bad", None, attributes=[]), line("x", None, start_nanos="1"))
    trace = trace_of(whole, *odd, line("list", None, name=[1]), line("torn", "root")[:-20])
    assert trace is not None
    assert [node.span.span_id for node in trace.nodes] == ["root"]


def test_every_cut_of_a_file_can_be_read(tmp_path: Path) -> None:
    whole = (line("root", None, name="Frühstück") + "\n" + line("child", "root") + "\n").encode()
    for length in range(len(whole)):
        (tmp_path / "router.spans.jsonl").write_bytes(whole[:length])
        assert len(list(read_spans(tmp_path))) <= 2


def test_a_span_whose_parent_was_not_written_becomes_a_root(trace_of: Callable[..., Trace | None]) -> None:
    trace = trace_of(line("server", "callers-own"), line("child", "server"))
    assert trace is not None
    assert [root.span.span_id for root in trace.roots] == ["server"]


def test_a_trace_is_complete_once_every_call_has_its_answering_side(trace_of: Callable[..., Trace | None]) -> None:
    root, call = line("root", None, kind="server"), line("call", "root", kind="client")
    served = line("served", "call", kind="server")
    found = [trace_of(*lines) for lines in ((root, call), (root, served), (root, call, served))]
    assert [trace.complete for trace in found if trace] == [False, False, True]


def test_spans_that_are_each_others_parents_end_no_reader(trace_of: Callable[..., Trace | None]) -> None:
    assert trace_of(line("a", "b"), line("b", "a")) is None


def test_there_is_no_trace_without_spans(tmp_path: Path) -> None:
    assert assemble(read_spans(tmp_path), TRACE_ID) is None


def test_other_traces_are_left_out(trace_of: Callable[..., Trace | None]) -> None:
    trace = trace_of(line("mine", None), line("other", None, trace_id="f" * 32))
    assert trace is not None
    assert len(trace.nodes) == 1


def test_a_trace_is_drawn_with_times_to_scale_and_what_happened(trace_of: Callable[..., Trace | None]) -> None:
    decision = {
        "marginal.verdict": "defer",
        "marginal.reason": "score",
        "marginal.score.name": "min_margin",
        "marginal.score": 0.125,
        "marginal.threshold": 0.6,
        "marginal.tokens_seen": 3,
        "marginal.censored": True,
        "marginal.cost.total_nanos": 53_300,
        "rpc.response.status_code": "OK",
    }
    small = {
        "marginal.tier": "small",
        "marginal.attempt.outcome": "aborted",
        "gen_ai.usage.input_tokens": 40,
        "gen_ai.usage.output_tokens": 3,
        "marginal.cost.nanos": 1_300,
        "gen_ai.usage.cost.currency": "USD",
    }
    trace = trace_of(
        line("root", None, 0, 40, name="Generate", kind="server", attributes=decision),
        line("small", "root", 0, 10, name="chat home-small", kind="client", attributes=small),
        line("call", "small", 1, 9, name="Call", kind="client", attributes={"rpc.response.status_code": "CANCELLED"}),
        line(
            "large",
            "root",
            10,
            40,
            name="chat home-large",
            status="error",
            service="large",
            attributes={"error.type": "TierUnavailable"},
        ),
    )
    bar = "━"
    assert drawn(trace).splitlines() == [
        f"trace {TRACE_ID} · 4 spans in 2 services · 40.0 ms",
        "span               service start   ms                  what happened",
        f"Generate           router    0.0 40.0 {bar * 16} DEFER: min_margin ≤0.125 < 0.600 after 3 tokens,"
        " 53,300 nano-USD",
        f"├─ chat home-small router    0.0 10.0 {bar * 4}{' ' * 13}small aborted, 40 in, 3 out, 1,300 nano-USD",
        f"│  └─ Call         router    1.0  8.0 {bar * 3}              CANCELLED",
        f"└─ chat home-large large    10.0 30.0     {bar * 12} error TierUnavailable",
    ]


def test_a_narrow_terminal_goes_without_the_bars(trace_of: Callable[..., Trace | None]) -> None:
    text = drawn(trace_of(line("a", None, name="Generate")), width=80)
    assert "━" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_long_names_lose_their_middle_and_calls_their_package(trace_of: Callable[..., Trace | None]) -> None:
    model = "chat hub:owner/some-model@main/some-model-instruct.Q4.gguf"
    text = drawn(trace_of(line("a", None, name=model), line("b", None, name=MODEL_METHOD)))
    assert "chat hub:own…uct.Q4.gguf " in text
    assert "\nModel.Generate " in text


def test_text_from_outside_cannot_move_the_cursor_or_style_the_drawing(trace_of: Callable[..., Trace | None]) -> None:
    trace = trace_of(line("root", None, name="[red]\x1b[2J\n", attributes={"rpc.response.status_code": "\x07"}))
    text = drawn(trace)
    assert "[red]" in text
    assert text.replace("\n", "").isprintable()
    assert len(text.splitlines()) == 3


def test_a_trace_as_json_nests_spans_and_counts_from_its_start(trace_of: Callable[..., Trace | None]) -> None:
    trace = trace_of(line("root", None, 0, 40), line("child", "root", 10, 15, attributes={"a": 1}))
    assert trace is not None
    entry = json.loads(json.dumps(as_json(trace)))
    assert (entry["trace_id"], entry["milliseconds"]) == (TRACE_ID, 40.0)
    (root,) = entry["spans"]
    (child,) = root["spans"]
    assert (child["offset_milliseconds"], child["milliseconds"], child["attributes"]) == (10.0, 5.0, {"a": 1})


def test_what_telemetry_writes_in_two_services_is_one_drawn_trace(tmp_path: Path) -> None:
    router, small = (
        configure(name, Exporter.FILE, version="1", trace_file=tmp_path / f"{name}.spans.jsonl")
        for name in ("marginal-router", "marginal-small-model")
    )
    with (tmp_path / "log").open("w") as stream:
        log = configure_logs("test", stream).log
        recorder = OpenTelemetryRecorder(router.spans, log, router.metrics, currency=lambda: "USD")
        attempt = Attempt(Tier.SMALL, "home-small", Outcome.KEPT, Usage(40, 3), 1_300, 0.01)
        decision = Decision(Verdict.KEEP, Reason.SCORE, "min_margin", 0.75, 0.6, 3)
        caller = {"traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01"}
        with router.tracer.server_call(ROUTER_METHOD, caller, trust_baggage=False) as request:
            with recorder.attempt(Tier.SMALL) as ended:
                made = router.tracer.client_call(MODEL_METHOD, "dns:///small:50051")
                with small.tracer.server_call(MODEL_METHOD, made.metadata, trust_baggage=True) as served:
                    model = GenerationRecorder(small.spans, log, small.metrics, tier=Tier.SMALL)
                    with model.generation_span("home-small") as generated:
                        generated(attempt.usage, FinishReason.STOP, cancelled=False)
                    served.ended("OK")
                made.ended("OK")
                ended(attempt)
            recorder.answered(
                CostRecord("r", TRACE_ID, "acme", "p", "1", "USD", decision, (attempt,), 9_000, Tier.SMALL)
            )
            request.ended("OK")
    router.shutdown()
    small.shutdown()
    trace = assemble(read_spans(tmp_path), TRACE_ID)
    assert trace is not None
    assert len(trace.roots) == 1
    assert [(node.span.service, node.span.kind, node.span.name) for node in trace.nodes] == [
        ("marginal-router", "server", ROUTER_METHOD),
        ("marginal-router", "client", "chat home-small"),
        ("marginal-router", "client", MODEL_METHOD),
        ("marginal-small-model", "server", MODEL_METHOD),
        ("marginal-small-model", "internal", "chat home-small"),
    ]
    text = drawn(trace)
    assert "KEEP: min_margin 0.750 ≥ 0.600 after 3 tokens, 1,300 nano-USD" in text
    assert "small kept, 40 in, 3 out, 1,300 nano-USD" in text
    assert "small stop, 40 in, 3 out" in text
