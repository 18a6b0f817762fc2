"""The command line over real processes and the bundled pair: what it prints, how it ends, what it leaves behind."""

import asyncio
import contextlib
import json
import os
import pty
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engines.callers import Caller, asking

MARGINAL = (sys.executable, "-m", "marginal.entrypoints.cli")
REQUEST = "set a timer for twenty minutes"


def marginal(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 (our own program)
        (*MARGINAL, *arguments), input=stdin, capture_output=True, text=True, timeout=100, check=False
    )


def as_json(*arguments: str) -> dict[str, Any]:
    done = marginal(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    parsed = json.loads(done.stdout)
    assert isinstance(parsed, dict)
    return parsed


@dataclass
class Up:
    """A running `marginal up`, ready."""

    process: subprocess.Popen[str]
    services: dict[str, dict[str, Any]]
    state_dir: Path
    errors: Path

    @property
    def target(self) -> str:
        return str(self.services["router"]["address"])

    @property
    def pids(self) -> list[int]:
        return [int(service["pid"]) for service in self.services.values()]


@contextmanager
def up(state_dir: Path) -> Iterator[Up]:
    errors = state_dir.with_suffix(".stderr.txt")
    arguments = ("up", "--listen", "127.0.0.1:0", "--state-dir", str(state_dir), "--json")
    with errors.open("w") as stderr:
        process = subprocess.Popen(  # noqa: S603 (our own program)
            (*MARGINAL, *arguments), stdout=subprocess.PIPE, stderr=stderr, text=True
        )
    with process:
        try:
            assert process.stdout is not None
            listed = json.loads(process.stdout.readline() or "{}").get("services", [])
            assert listed, errors.read_text()
            yield Up(process, {service["service"]: service for service in listed}, state_dir, errors)
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with up(tmp_path_factory.mktemp("cli") / "state") as services:
        yield services


def gone(pid: int, *, within_seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + within_seconds
    while time.monotonic() < deadline:
        if not Path(f"/proc/{pid}").exists() or Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
            return True
        time.sleep(0.05)
    return False


def told(errors: Path, words: str, *, within_seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + within_seconds
    while time.monotonic() < deadline:
        if words in " ".join(errors.read_text().split()):
            return True
        time.sleep(0.05)
    return False


def test_up_lists_the_three_services_with_their_models(running: Up) -> None:
    assert list(running.services) == ["router", "small-model", "large-model"]
    assert running.services["small-model"]["serves"] == "home-small"
    assert running.services["large-model"]["serves"] == "home-large"


def test_ask_answers_and_accounts_for_every_attempt(running: Up) -> None:
    answer = as_json("ask", REQUEST, "--target", running.target)
    assert answer["text"] == "timer 20 min"
    assert answer["total_nanos"] == sum(attempt["cost_nanos"] for attempt in answer["attempts"])
    assert answer["saved_nanos"] == answer["always_large_nanos"] - answer["total_nanos"]


@pytest.mark.parametrize("mode", ["small", "large"])
def test_ask_takes_the_tier_it_is_told(running: Up, mode: str) -> None:
    answer = as_json("ask", REQUEST, "--mode", mode, "--target", running.target)
    assert [attempt["tier"] for attempt in answer["attempts"]] == [mode]
    assert answer["decision"]["reason"] == "mode"


def test_ask_reads_standard_input_and_writes_plain_text_where_there_is_no_terminal(running: Up) -> None:
    done = marginal("ask", "-", "--target", running.target, stdin=f"{REQUEST}\n")
    assert done.returncode == 0
    assert done.stdout.startswith("timer 20 min\n")
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_ask_colours_the_small_tiers_tokens_on_a_terminal(running: Up) -> None:
    leader, follower = pty.openpty()
    arguments = ("ask", REQUEST, "--mode", "small", "--target", running.target)
    environment = os.environ | {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
    subprocess.run(  # noqa: S603 (our own program)
        (*MARGINAL, *arguments), stdin=follower, stdout=follower, env=environment, timeout=60, check=True
    )
    assert b"\x1b[38;2;" in os.read(leader, 65536)
    os.close(leader)
    os.close(follower)


def test_trace_shows_the_last_request_over_its_services(running: Up) -> None:
    answer = as_json("ask", REQUEST, "--mode", "large", "--target", running.target)
    trace = as_json("trace", "last", "--state-dir", str(running.state_dir))
    assert trace["trace_id"] == answer["trace_id"]
    assert [root["service"] for root in trace["spans"]] == ["marginal-router"]
    assert trace == as_json("trace", str(answer["trace_id"]), "--state-dir", str(running.state_dir))


def test_demo_measures_every_arm_and_its_costs_reconcile(running: Up) -> None:
    arguments = ("--limit", "30", "--target", running.target, "--state-dir", str(running.state_dir))
    outcome = as_json("demo", *arguments)
    assert (outcome["questions"], outcome["failed"]) == (30, 0)
    assert [row["arm"] for row in outcome["rows"]] == [
        "small-only",
        *("marginal", "random deferral") * 2,
        "large-only",
    ]
    assert [comparison["policy"] for comparison in outcome["comparisons"]] == ["default", "careful"]
    assert outcome["reconciliation"]["balanced"]


def test_demo_fits_eighty_columns_without_a_terminal(running: Up) -> None:
    done = marginal("demo", "--limit", "15", "--policy", "default", "--target", running.target)
    assert done.returncode == 0, done.stderr
    assert "15 questions, each asked in 3 ways" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_demo_of_an_unknown_policy_is_refused_and_not_counted(running: Up) -> None:
    done = marginal("demo", "--limit", "15", "--policy", "nonesuch", "--target", running.target)
    assert done.returncode == 1
    assert done.stderr.startswith("error: policy: ")


def test_reconcile_finds_no_difference(running: Up) -> None:
    as_json("ask", REQUEST, "--target", running.target)
    found = as_json("costs", "reconcile", "--state-dir", str(running.state_dir))
    assert found["balanced"]
    assert found["nanos_difference"] == 0


async def test_reconcile_finds_no_difference_after_callers_who_hung_up_at_any_moment(running: Up) -> None:
    lot = random.Random(6)  # noqa: S311

    async def asked_and_left(number: int) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(lot.uniform(0.0, 0.4)):
                await caller.call(asking(f"set a timer for {number} minutes", mode=1 + number % 4))

    async with Caller(running.target) as caller:
        for first in range(0, 60, 6):
            await asyncio.gather(*map(asked_and_left, range(first, first + 6)))
    found = await asyncio.to_thread(as_json, "costs", "reconcile", "--state-dir", str(running.state_dir))
    assert (found["balanced"], found["nanos_difference"], found["counted"]) == (True, 0, 0)


def test_a_second_up_on_the_same_port_names_the_option_that_helps(running: Up, tmp_path: Path) -> None:
    done = marginal("up", "--listen", running.target, "--state-dir", str(tmp_path / "state"))
    assert done.returncode == 1
    assert "name another with --listen" in done.stderr
    assert "Traceback" not in done.stderr


def test_ask_without_a_router_says_how_to_start_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
    done = marginal("ask", REQUEST, "--target", address)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        f"error: no router is ready at {address}: start one with `marginal up`, or name another with --target"
    )


def test_a_service_that_cannot_start_ends_up_with_its_last_lines(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent.gguf")
    arguments = ("--listen", "127.0.0.1:0", "--small-model", absent, "--state-dir", str(tmp_path / "state"))
    done = marginal("up", *arguments)
    assert done.returncode == 1
    assert "small-model ended with code" in done.stderr
    assert absent in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_drains_all_three_and_exits_zero(tmp_path: Path, number: signal.Signals) -> None:
    with up(tmp_path / "state") as services:
        services.process.send_signal(number)
        assert services.process.wait(timeout=30) == 0
        assert all(map(gone, services.pids))


def test_up_killed_outright_leaves_no_orphan(tmp_path: Path) -> None:
    with up(tmp_path / "state") as services:
        services.process.kill()
        services.process.wait(timeout=10)
        assert all(map(gone, services.pids))


def test_a_dead_large_model_is_reported_and_its_answers_are_degraded(tmp_path: Path) -> None:
    with up(tmp_path / "state") as services:
        os.kill(services.services["large-model"]["pid"], signal.SIGKILL)
        assert told(services.errors, "was ended by SIGKILL: answers degrade to the small tier")
        answer = as_json("ask", REQUEST, "--mode", "large", "--target", services.target)
        assert (answer["tier"], answer["degraded"]) == ("small", "large_unavailable")
        outcome = as_json("demo", "--limit", "15", "--target", services.target)
        assert outcome["failed"] == 0
        assert outcome["rows"][-1]["degraded"] == 15


def test_a_dead_router_ends_up_with_an_error(tmp_path: Path) -> None:
    with up(tmp_path / "state") as services:
        os.kill(services.services["router"]["pid"], signal.SIGKILL)
        assert services.process.wait(timeout=30) == 1
        assert told(services.errors, "was ended by SIGKILL: nothing answers without it")
        assert all(map(gone, services.pids))


def test_up_with_a_demo_ends_by_itself_where_there_is_no_terminal(tmp_path: Path) -> None:
    done = marginal("up", "--demo", "--listen", "127.0.0.1:0", "--state-dir", str(tmp_path / "state"), stdin="")
    assert done.returncode == 0, done.stderr
    assert "Marginal, default" in done.stdout
    assert "difference 0." in done.stdout
