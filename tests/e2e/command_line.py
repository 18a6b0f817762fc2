"""`marginal` on this machine, as who operates a release types it."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MARGINAL = str(Path(sys.executable).with_name("marginal"))
ENVIRONMENT = {"COLUMNS": "100", "PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
"""Nothing of who runs the tests."""


def marginal(*arguments: str, fails: bool = False) -> str:
    """What a command writes; of one that `fails`, what it complains of."""
    done = subprocess.run(  # noqa: S603
        [MARGINAL, *arguments], capture_output=True, text=True, check=False, env=ENVIRONMENT
    )
    assert bool(done.returncode) is fails, done.stdout + done.stderr
    return done.stderr if fails else done.stdout


@contextmanager
def meanwhile(written: Path, *arguments: str) -> Iterator[None]:
    """A command that goes on until ctrl-C, and then ends well; what it writes is in a file."""
    with written.open("w") as output, subprocess.Popen([MARGINAL, *arguments], stdout=output, env=ENVIRONMENT) as it:  # noqa: S603
        try:
            yield
        finally:
            it.send_signal(signal.SIGINT)
            ended = it.wait(30)
    assert ended == 0
