"""What `helm test` runs in its pod, run here as it is rendered."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from charts.rendering import Object, example, pods, rendered

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
