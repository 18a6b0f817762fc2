"""The three services as child processes: started, watched, drained."""

import asyncio
import contextlib
import json
import random
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from marginal.errors import ConfigurationError

DRAIN_SECONDS = 40.0
"""Longer than the programs give their own streams."""

STAYS = "stays NOT_SERVING"
"""How the log line of a model service begins that cannot become ready for now; it has the reason in `because`."""

TAIL_LINES = 8
CHOSEN_PORTS = range(20_000, 30_000)


@dataclass(frozen=True, slots=True)
class Program:
    """One service to start: its short name, console script, gRPC service, and what it serves.

    It listens on `address` and is called by `target`; at `admin`, unless that is "", operators ask it.
    """

    name: str
    script: str
    service: str
    address: str
    target: str
    serves: str
    arguments: tuple[str, ...]
    state_dir: Path
    admin: str = ""

    @property
    def log_path(self) -> Path:
        """Where its standard output, a JSON object a line, is written."""
        return self.state_dir / f"{self.name}.log.jsonl"

    @property
    def spans_path(self) -> Path:
        """Where its spans are written by the file exporter."""
        return self.state_dir / f"{self.name}.spans.jsonl"

    @property
    def errors_path(self) -> Path:
        """Where its standard error is written: nothing, unless it breaks."""
        return self.state_dir / f"{self.name}.stderr.txt"


class Running:
    """A started program."""

    def __init__(self, program: Program, process: Process) -> None:
        self.program = program
        self._process = process
        self._killed = False

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def ended(self) -> int:
        """Waits for its end and gives the exit code; negative is the signal that ended it."""
        return await self._process.wait()

    async def drain(self) -> bool:
        """Asks it to end by SIGTERM and waits; False when it took too long, or was killed meanwhile, by us."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()
        return not self._killed

    def kill(self) -> None:
        """Ends it at once, streams in flight and all."""
        self._killed = True
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()


async def start(program: Program) -> Running:
    """Starts it in a session of its own, so that ctrl-C reaches `up` alone, and tied to this process's life."""
    program.spans_path.write_bytes(b"")
    with program.log_path.open("wb") as log, program.errors_path.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "marginal.entrypoints.tied", program.script, *program.arguments),
            stdin=PIPE,
            stdout=log,
            stderr=errors,
            start_new_session=True,
        )
    return Running(program, process)


def how_it_ended(code: int) -> str:
    """An exit code in words."""
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def last_words(program: Program) -> list[str]:
    """The last lines it wrote, log lines as `level event key=value`."""
    logged = [_readable(line) for line in _tail(program.log_path)]
    return [*logged, *_tail(program.errors_path)]


def waits_for(program: Program) -> str | None:
    """Why a model service is not ready, as it said last; None when it did not say."""
    for line in reversed(_tail(program.log_path)):
        with contextlib.suppress(ValueError, TypeError):
            fields = dict(json.loads(line))
            if str(fields.get("event")).startswith(STAYS):
                return str(fields.get("because"))
    return None


def split_address(address: str, *, option: str) -> tuple[str, int]:
    """Host and port of HOST:PORT. Raises ConfigurationError naming the option."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigurationError(f"{option} {address}: give HOST:PORT, for example 127.0.0.1:50051")
    return host.strip("[]"), int(port)


def free_addresses(host: str, count: int) -> list[str]:
    """Different addresses on `host` where nothing listens.

    Their ports lie below those that systems hand out by themselves (from 32768 or 49152): nothing comes to take one
    between this choice and the start, not even a client that calls a server which is not there yet.
    """
    ports = random.sample(CHOSEN_PORTS, k=len(CHOSEN_PORTS))
    addresses = (f"{host}:{port}" for port in ports)
    return list(islice(filter(_free, addresses), count))


def require_free(address: str, *, option: str) -> None:
    """Raises ConfigurationError when something listens there already.

    gRPC cannot tell: its servers share a port with one another silently (SO_REUSEPORT).
    """
    host, port = split_address(address, option=option)
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        reason, _, _ = (error.strerror or str(error)).partition(" (while")
        raise ConfigurationError(
            f"{address} cannot be listened on ({reason.lower()}): stop what listens there or name another with {option}"
        ) from error


def _free(address: str) -> bool:
    try:
        require_free(address, option="")
    except ConfigurationError:
        return False
    return True


def _tail(path: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return path.read_text("utf-8", "replace").splitlines()[-TAIL_LINES:]
    return []


def _readable(line: str) -> str:
    try:
        fields = dict(json.loads(line))
    except (ValueError, TypeError):
        return line
    level, event = fields.pop("level", ""), fields.pop("event", "")
    told = " ".join(f"{key}={value}" for key, value in fields.items() if key not in {"timestamp", "service"})
    return f"{level} {event} {told}".strip()
