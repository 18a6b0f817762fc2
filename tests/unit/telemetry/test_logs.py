import asyncio
import io
import json
import logging
import math

import pytest

from marginal.errors import TierUnavailable
from marginal.telemetry.logs import Layout, configure
from unit.telemetry.spans import MemoryLog, MemoryTracing

NASTY = 'answer\n{"event": "cost_record"}\r\x1b[2J\x00\x85\u2028\u202e'
CANARY = "CANARY-7d1c"


def test_an_event_is_one_json_object_with_time_level_and_service(log: MemoryLog) -> None:
    log.logs.log.info("ready", port=50051, tiers=["small", "large"])
    (event,) = log.events()
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "level": "info",
        "event": "ready",
        "service": "test",
        "port": 50051,
        "tiers": ["small", "large"],
    }


def test_an_event_inside_a_call_carries_its_trace_id(log: MemoryLog, memory: MemoryTracing) -> None:
    header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with memory.tracing.tracer.server_call("a.B/C", {"traceparent": header}, trust_baggage=False):
        log.logs.log.info("inside")
    log.logs.log.info("outside")
    inside, outside = log.events()
    assert inside["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert "trace_id" not in outside


@pytest.mark.parametrize("layout", [Layout.JSON, Layout.TEXT])
def test_control_characters_never_break_a_line(layout: Layout) -> None:
    log = MemoryLog(layout)
    log.logs.log.warning(NASTY, value=NASTY, nested={NASTY: [NASTY]})
    with log.logs.standard_library():
        logging.getLogger("grpc").warning("%s", NASTY, extra={"port": NASTY})
    text = log.stream.getvalue()
    assert text.count("\n") == 2
    assert text.replace("\n", "").isprintable()


def test_numbers_that_json_does_not_know_stay_readable_json(log: MemoryLog) -> None:
    log.logs.log.info("odd", value=math.nan, other=[math.inf], thing=object())
    (line,) = log.lines()
    event = json.loads(line, parse_constant=pytest.fail)
    assert (event["value"], event["other"], event["thing"]) == ("NaN", ["Infinity"], "object")


class FullDisk(io.StringIO):
    """A stream that takes nothing."""

    def write(self, text: str) -> int:  # noqa: ARG002
        raise OSError(28, "No space left on device")


def test_a_line_that_cannot_be_written_is_lost_and_whoever_wrote_it_goes_on() -> None:
    logs = configure("test", FullDisk(), layout=Layout.JSON)
    logs.log.warning("the disk is full")
    with logs.standard_library():
        logging.getLogger("grpc").error("so it is")


def test_events_under_the_level_are_left_out() -> None:
    stream = io.StringIO()
    logs = configure("test", stream, level="warning", layout=Layout.JSON)
    logs.log.info("quiet")
    logs.log.warning("loud")
    assert json.loads(stream.getvalue())["event"] == "loud"


def test_what_libraries_log_becomes_the_same_kind_of_line(log: MemoryLog) -> None:
    with log.logs.standard_library():
        logging.getLogger("grpc._cython").warning("lost %s", "peer", extra={"port": 7, "event": "x"})
    logging.getLogger("grpc._cython").warning("after the block")
    (event,) = log.events()
    assert (event["event"], event["logger"], event["level"], event["port"]) == (
        "lost peer",
        "grpc._cython",
        "warning",
        7,
    )


def test_an_exception_is_logged_without_its_text(log: MemoryLog) -> None:
    with log.logs.standard_library():
        try:
            raise ValueError(CANARY)
        except ValueError:
            logging.getLogger("grpc").exception("unexpected")
    (event,) = log.events()
    assert event["exception"] == "ValueError"
    assert event["raised_at"][-1].startswith("test_logs.py:")
    assert CANARY not in log.stream.getvalue()


def test_the_text_of_our_own_errors_is_kept_since_it_never_holds_a_prompt(log: MemoryLog) -> None:
    log.logs.log.warning("failed", exc_info=TierUnavailable("the large tier cannot be reached"))
    assert log.events()[0]["problem"] == "the large tier cannot be reached"


async def test_a_lost_tasks_exception_text_is_not_logged(log: MemoryLog) -> None:
    async def lose() -> None:
        raise ValueError(CANARY)

    with log.logs.standard_library():
        task = asyncio.create_task(lose())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del task
    assert log.events()[0]["event"] == "Task exception was never retrieved"
    assert CANARY not in log.stream.getvalue()


def test_a_terminal_gets_text_and_a_pipe_gets_json() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        configure("test", stream).log.info("ready", port=1, address="small:1", note="two words", empty=None)
    assert terminal.getvalue()[13:] == 'info    ready port=1 address=small:1 note="two words"\n'
    assert json.loads(pipe.getvalue())["event"] == "ready"
