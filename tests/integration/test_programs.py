"""A service's program hears that it is to end while it still imports what it needs."""

import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PROJECT = tomllib.loads((Path(__file__).parents[2] / "services" / "pyproject.toml").read_text())["project"]
EARLY = "marginal.errors"
"""Imported long before the last."""


@pytest.mark.parametrize("program", ["marginal-router", "marginal-small-model", "marginal-large-model"])
def test_a_program_that_is_told_to_end_while_it_imports_ends_well(program: str) -> None:
    module, function = PROJECT["scripts"][program].split(":")
    start = f"from {module} import {function}; {function}()"
    command = [sys.executable, "-X", "importtime", "-c", start]  # which tells of every import
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stderr is not None
        imported = any(line.rstrip().endswith(f" {EARLY}") for line in process.stderr)
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
        assert imported
        assert process.wait(30) == 0
