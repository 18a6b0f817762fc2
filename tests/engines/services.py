"""One of our programs as a process of its own: killed, frozen, and started again under the same address.

router = Service("router", folder, "--small", ..., "--large", ...)
router.start(MARGINAL_FAILPOINT="verdict")
await router.serving()
...
assert await router.ended() == -signal.SIGKILL
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from marginal.entrypoints.processes import free_addresses
from marginal.transport import model_servicer, router_servicer
from marginal.transport.router_client import wait_until_serving

START_SECONDS = 60.0
DRAIN_SECONDS = 20.0


class Service:
    """`marginal-NAME` with its log in `folder`; it ends with the block."""

    def __init__(self, name: str, folder: Path, *arguments: str, address: str = "") -> None:
        self.name = name
        self.target = address or free_addresses("127.0.0.1", 1)[0]
        self.log_path = folder / f"{name}-{self.target.rpartition(':')[2]}.log.jsonl"
        self.errors_path = self.log_path.with_suffix(".stderr.txt")
        self._arguments = ("--listen", self.target, *arguments)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def service(self) -> str:
        """The gRPC service it has."""
        return router_servicer.SERVICE if self.name == "router" else model_servicer.SERVICE

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, *before: str, **environment: str) -> None:
        """Starts it, with these environment variables on top; `before` are words in front of its command."""
        program = (sys.executable, "-P", "-m", "marginal.entrypoints.tied", f"marginal-{self.name}")
        with self.log_path.open("ab") as log, self.errors_path.open("ab") as errors:
            self._process = subprocess.Popen(  # noqa: S603 (our own program)
                (*before, *program, *self._arguments),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=errors,
                env=os.environ | environment,
                start_new_session=True,
            )

    async def serving(self, *, seconds: float = START_SECONDS) -> None:
        """Waits until it says so."""
        try:
            await wait_until_serving(self.target, self.service, timeout_seconds=seconds)
        except Exception as error:
            raise AssertionError(f"{error}\n{self.errors_path.read_text()[-2000:]}") from error

    async def ended(self, *, seconds: float = START_SECONDS) -> int:
        """Waits for its end and gives the exit code; negative is the signal that ended it."""
        assert self._process is not None
        code = await asyncio.to_thread(self._process.wait, seconds)
        self._let_go()
        return code

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._let_go()

    def stop(self) -> int:
        """Lets it drain, and gives the exit code."""
        assert self._process is not None
        self._process.terminate()
        try:
            code = self._process.wait(DRAIN_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._let_go()
        return code

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It keeps its connections and does nothing."""
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)

    def logged(self, event: str) -> list[dict[str, Any]]:
        """What it has logged so far, over all its lives."""
        entries = map(json.loads, self.log_path.read_text().splitlines())
        return [entry for entry in entries if entry["event"] == event]

    def _let_go(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.alive:
            self.stop() if kind is None else self.kill()
