"""`marginal record` over real model services and the bundled pair: a run, interrupted and gone on with."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from integration.processes import START_SECONDS
from marginal.entrypoints.processes import start
from marginal.entrypoints.services import Plan, programs
from marginal.errors import ConfigurationError
from marginal.evaluation.runs import Run, read_run
from marginal.models.catalogue import pair
from marginal.policy.scores import SCORES, judge
from marginal.pricing import Price
from marginal.telemetry.tracing import Exporter
from marginal.tokens import Tier
from marginal.transport.router_client import wait_until_serving

MARGINAL = (sys.executable, "-m", "marginal.entrypoints.cli")
PRICES = {
    Tier.SMALL: Price(50_000_000, 200_000_000, 50_000_000),
    Tier.LARGE: Price(500_000_000, 2_000_000_000, 500_000_000),
}
"""Those of the bundled policy file."""


@dataclass(frozen=True, slots=True)
class Tiers:
    """Both model services, without a router."""

    small: str
    large: str

    @property
    def options(self) -> tuple[str, ...]:
        return ("--small", self.small, "--large", self.large)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def tiers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Tiers]:
    state_dir = tmp_path_factory.mktemp("record") / "state"
    state_dir.mkdir()
    plan = Plan(pair("home"), "127.0.0.1:0", None, None, None, state_dir, Exporter.NONE, None)
    _, *models = programs(plan)
    async with AsyncExitStack() as stack:
        for program in models:
            stack.push_async_callback((await start(program)).drain)
        for program in models:
            await wait_until_serving(program.target, program.service, timeout_seconds=START_SECONDS)
        yield Tiers(*(program.target for program in models))


def marginal(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 (our own program)
        (*MARGINAL, *arguments), capture_output=True, text=True, timeout=100, check=False
    )


def recorded(output: Path, tiers: Tiers, *more: str) -> tuple[dict[str, Any], Run]:
    done = marginal("record", "home", "-o", str(output), *tiers.options, "--json", *more)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert isinstance(summary, dict)
    return summary, read_run(output)


@contextmanager
def recording(output: Path, tiers: Tiers, *more: str) -> Iterator[subprocess.Popen[str]]:
    """A recording under way, with rows in its file."""
    arguments = ("record", "home", "-o", str(output), *tiers.options, *more)
    with subprocess.Popen(  # noqa: S603 (our own program)
        (*MARGINAL, *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            deadline = time.monotonic() + 60.0
            while not output.exists() or output.read_bytes().count(b"\n") < 5:
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.005)
            yield process
        finally:
            process.kill()


def test_a_run_holds_the_evidence_the_scores_the_grades_and_the_costs_of_both_tiers(
    tiers: Tiers, tmp_path: Path
) -> None:
    summary, run = recorded(tmp_path / "home.jsonl.gz", tiers, "--limit", "20", "--texts")
    assert (run.header.small, run.header.large, run.header.currency) == ("home-small", "home-large", "USD")
    assert (run.header.alternatives, run.header.grader, run.header.labels) == (20, "exact", "expected")
    assert (summary["questions"], summary["resumed"], summary["failed"]) == (20, 0, 0)
    assert len(run.rows) == 20
    for row in run.rows:
        assert row.small.text == "".join(token.text for token in row.tokens)
        assert len(row.tokens[0].alternatives) == 20
        assert row.scores == {name: judge(name, row.tokens) for name in SCORES}
        assert row.small.cost_nanos == PRICES[Tier.SMALL].cost(row.small.usage)
        assert row.large.cost_nanos == PRICES[Tier.LARGE].cost(row.large.usage)
        assert row.small.first_token_seconds is not None
        assert 0.0 < row.small.first_token_seconds <= row.small.seconds
    right = [row.small.correct for row in run.rows]
    assert summary["small"]["accuracy"] == sum(map(bool, right)) / 20
    assert summary["large"]["accuracy"] > 0.8


def test_the_large_answers_can_be_the_labels(tiers: Tiers, tmp_path: Path) -> None:
    _, run = recorded(tmp_path / "run.jsonl", tiers, "--limit", "20", "--labels", "large")
    assert all(row.large.correct for row in run.rows)
    assert [row.small.correct for row in run.rows] == [row.agrees for row in run.rows]
    assert all(row.small.text is None for row in run.rows)


def test_sections_share_no_question(tiers: Tiers, tmp_path: Path) -> None:
    _, first = recorded(tmp_path / "1.jsonl", tiers, "--limit", "15")
    _, second = recorded(tmp_path / "2.jsonl", tiers, "--offset", "15", "--limit", "15")
    assert len({row.id for row in (*first.rows, *second.rows)}) == 30


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_an_interrupted_recording_goes_on(tiers: Tiers, tmp_path: Path, number: signal.Signals, code: int) -> None:
    output, more = tmp_path / "run.jsonl", ("--limit", "200", "--concurrency", "2")
    with recording(output, tiers, *more) as process:
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
        assert process.returncode == code
        assert "Traceback" not in said
        assert number is not signal.SIGINT or "the same command goes on with" in said
    done = marginal("record", "home", "-o", str(output), *tiers.options, *more)
    assert done.returncode == 0, done.stderr
    there = re.search(r"resumed, (\d+) of 200 were there", done.stderr)
    assert there is not None
    assert 4 <= int(there[1]) < 200
    assert len(read_run(output).rows) == 200
    assert done.stdout.startswith("200 questions in ")
    assert max(map(len, done.stdout.splitlines())) <= max(80, len(str(output)) + 17)


def test_a_question_that_no_tier_answers_is_left_out_and_the_rest_is_kept(tiers: Tiers, tmp_path: Path) -> None:
    questions, output = tmp_path / "questions.jsonl", tmp_path / "run.jsonl"
    asked = (
        {"id": id_, "task": "timer", "request": request, "answer": "x"} for id_, request in (("1", "a"), ("2", " "))
    )
    questions.write_text("".join(json.dumps(question) + "\n" for question in asked))
    done = marginal("record", str(questions), "-o", str(output), *tiers.options)
    assert done.returncode == 1
    assert "question 2 is left out: " in done.stderr
    assert "1 questions got no answer and are left out" in " ".join(done.stdout.split())
    assert [row.id for row in read_run(output).rows] == ["1"]


def test_a_tier_that_is_not_there_is_named_with_the_option_that_helps(tiers: Tiers, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
    output = tmp_path / "run.jsonl"
    done = marginal("record", "home", "-o", str(output), "--small", tiers.small, "--large", address)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: no large model is ready at {address}: start one with `marginal up`")
    assert not output.exists()
    done = marginal("record", "home", "-o", str(output), "--state-dir", str(tmp_path))
    assert done.returncode == 1
    assert "start them with `marginal up`, or name both tiers with --small and --large" in done.stderr


def test_up_says_where_its_services_are_while_they_run(tmp_path: Path) -> None:
    state_dir, output = tmp_path / "state", tmp_path / "run.jsonl"
    arguments = ("up", "--listen", "127.0.0.1:0", "--state-dir", str(state_dir), "--json")
    with subprocess.Popen((*MARGINAL, *arguments), stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            assert process.stdout is not None
            listed = json.loads(process.stdout.readline())
            assert json.loads((state_dir / "services.json").read_text()) == listed
            done = marginal("record", "home", "-o", str(output), "--state-dir", str(state_dir), "--limit", "5")
            assert done.returncode == 0, done.stderr
            assert len(read_run(output).rows) == 5
        finally:
            process.terminate()
        assert process.wait(timeout=30) == 0
    assert not (state_dir / "services.json").exists()


def test_a_routers_log_becomes_a_run(tmp_path: Path) -> None:
    log, output = tmp_path / "router.log", tmp_path / "run.jsonl"
    counts = {"input_tokens": 16, "cached_input_tokens": 0, "output_tokens": 3, "cost_nanos": 100, "seconds": 0.02}
    attempts = [
        {"tier": "small", "model": "home-small", "outcome": "kept", **counts},
        {"tier": "large", "model": "home-large", "outcome": "shadow", **counts},
    ]
    shadow = {"agrees": True, "scores": {"min_margin": 0.93}}
    records = [
        {
            "event": "cost_record",
            "request_id": id_,
            "currency": "USD",
            "sampled": True,
            "attempts": attempts,
            "shadow": shadow,
        }
        for id_ in ("1", "2")
    ]
    for there in (0, 1):
        log.write_text("".join(json.dumps(record) + "\n" for record in records[: there + 1]))
        done = marginal("record-shadow", str(log), "-o", str(output), "--json")
        assert done.returncode == 0, done.stderr
        summary = json.loads(done.stdout)
        assert (summary["questions"], summary["resumed"], summary["agreement"]) == (there + 1, there, 1.0)
    with pytest.raises(ConfigurationError):
        read_run(log)
