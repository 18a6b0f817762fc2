"""`marginal up` in front of an engine that somebody runs already: llama.cpp's own server as the small tier."""

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

from engines.llama_server import LlamaServer
from marginal.entrypoints.processes import free_addresses
from marginal.models.fetch import resolve

MARGINAL = (sys.executable, "-m", "marginal.entrypoints.cli")
SECONDS = 100


def up(state_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 (our own program)
        (*MARGINAL, "up", "--listen", "127.0.0.1:0", "--state-dir", str(state_dir), *arguments),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


async def test_up_runs_the_cascade_over_a_users_engine_and_the_bundled_large_model(tmp_path: Path) -> None:
    async with LlamaServer(resolve("home-small")) as engine:
        before = engine.measured()["tokens_predicted_total"]
        arguments = ("--small-endpoint", engine.url, "--demo", "--limit", "40", "--json")
        done = await asyncio.to_thread(up, tmp_path / "state", *arguments)
        predicted = engine.measured()["tokens_predicted_total"] - before
    assert done.returncode == 0, done.stderr
    services, demo = (json.loads(line) for line in done.stdout.splitlines())
    assert {one["service"]: one["serves"] for one in services["services"]} == {
        "router": "the bundled policies",
        "small-model": f"openai at {engine.url.removeprefix('http://')}",
        "large-model": "home-large",
    }
    assert (demo["questions"], demo["failed"]) == (40, 0)
    assert demo["reconciliation"]["balanced"]
    (small,) = (row for row in demo["rows"] if row["arm"] == "small-only")
    (cascade,) = (row for row in demo["rows"] if (row["arm"], row["policy"]) == ("marginal", "default"))
    assert 0.2 < small["accuracy"] < cascade["accuracy"]
    assert 0 < cascade["deferral_share"] < 1
    assert predicted > 40
    log = (tmp_path / "state" / "small-model.log.jsonl").read_text().splitlines()
    answered = {Path(line["model"]).name for line in map(json.loads, log) if line["event"] == "generation"}
    assert answered == {"home-small.gguf"}


async def test_up_says_that_it_waits_for_an_engine_that_is_not_there_and_ends_when_told(tmp_path: Path) -> None:
    (address,) = free_addresses("127.0.0.1", 1)
    process = await asyncio.create_subprocess_exec(
        *(*MARGINAL, "up", "--listen", "127.0.0.1:0", "--state-dir", str(tmp_path / "state")),
        *("--small-endpoint", f"http://{address}"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    told: list[str] = []
    async with asyncio.timeout(SECONDS):
        while not told or not told[-1].startswith("small-model waits"):
            told.append((await process.stderr.readline()).decode().strip())
            assert told[-1], told
        process.send_signal(signal.SIGTERM)
        await process.stderr.read()
        code = await process.wait()
    assert (
        told[-1] == f"small-model waits: {address}: the probe failed: the engine cannot be reached, or does not answer"
    )
    assert code == 0


def test_an_endpoint_with_a_password_is_refused_and_the_password_never_shown(tmp_path: Path) -> None:
    done = up(tmp_path / "state", "--large-endpoint", "http://me:CANARY@models.example")
    assert done.returncode == 1
    assert done.stderr.startswith("error: --large-endpoint models.example:80: give it without user, password and query")
    assert "CANARY" not in done.stderr
