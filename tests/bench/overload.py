"""`python -m tests.bench.overload`: a real router under overload, against model services of known capacity.

Router, two model services and the loader are processes of their own, over gRPC. Requests are sent by a schedule, at
random from a seed and whatever becomes of them, and timed from when they were due: 0.7, 1, 2, 4 times the capacity of
the small tier and back to 0.7. Sent away is whoever is told UNAVAILABLE, lost whoever is told nothing in time.

On a machine that does other work, figures are of that: run it under `chrt -r 1`. Its own lateness is told on stderr.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from marginal.backends.script_names import scripted_model
from marginal.entrypoints.engines import evidence
from marginal.entrypoints.processes import Program, start
from marginal.entrypoints.services import LARGE, ROUTER, SMALL, Plan, programs
from marginal.entrypoints.serving import TraceOptions, telemetry
from marginal.entrypoints.serving import run as serving
from marginal.errors import MarginalError, Overloaded, TierUnavailable
from marginal.models.catalogue import Pair
from marginal.telemetry.recorder import GenerationRecorder
from marginal.telemetry.tracing import Exporter
from marginal.tokens import Chunk, Generation, ModelDescription, Tier
from marginal.transport.guard import Guard
from marginal.transport.model_servicer import SERVICE, ModelServicer
from marginal.transport.router_client import RouterClient, wait_until_serving
from marginal.transport.server import ServerSettings, serve
from marginal.transport.validation import Limits
from tests.bench.overload_figures import Served, course, show
from tests.bench.router_overhead import POLICY

LOADS = (0.7, 1.0, 2.0, 4.0, 0.7)
SETTLE_SHARE = 0.2
DEADLINE_SECONDS = 4.0
SLOTS = 16
TOKENS, FIRST_MS, STEP_MS = 8, 60, 48
MODEL = f"scripted:tokens={TOKENS},first_delay_ms={FIRST_MS},delay_ms={STEP_MS}"
CAPACITY = SLOTS / (FIRST_MS + (TOKENS - 1) * STEP_MS) * 1000
"""Requests per second that a tier can answer."""

MAX_CALLS = 256
"""As model services have it by default."""

LATE_MS = 20.0
"""A loader that is later than this had too little of the processor, and so had the router."""

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


class Slots:
    """A scripted model that works on so many requests at once; further ones wait inside it, in their order."""

    def __init__(self) -> None:
        self._model = scripted_model(MODEL)
        self._slots = asyncio.Semaphore(SLOTS)

    async def describe(self) -> ModelDescription:
        return await self._model.describe()

    async def generate(self, generation: Generation, *, timeout: float | None = None) -> AsyncGenerator[Chunk, None]:
        async with self._slots, aclosing(self._model.generate(generation, timeout=timeout)) as chunks:
            async for chunk in chunks:
                yield chunk


async def serve_model(listen: str, stop: asyncio.Event) -> None:
    """A model service over slots, as its own process."""
    with telemetry("bench-model", TraceOptions(Exporter.NONE, None, "")) as own:
        model = Slots()
        recorder = GenerationRecorder(own.tracing.spans, own.log, own.tracing.metrics, tier=Tier.SMALL)
        servicer = ModelServicer(model, name="slots", limits=Limits(), recorder=recorder)

        async def until_ready() -> None:
            servicer.evidence = await evidence(model)

        guard = Guard(own.tracing.tracer, max_calls=MAX_CALLS, trust_baggage=True)
        settings = ServerSettings(listen, grace_seconds=1.0)
        await serve(SERVICE, settings, guard=guard, register=servicer.register, until_ready=until_ready, stop=stop)


async def send(target: str, router_pid: int, *, seconds: float, seed: int) -> None:
    """The loader, as its own process: sends all phases and writes what became of them to standard output."""
    loop, lot = asyncio.get_running_loop(), random.Random(seed)  # noqa: S311
    phases: list[list[Served]] = [[] for _ in LOADS]
    faults, late, busy = Counter[str](), list[float](), [_cpu_seconds(router_pid)]

    async def request(client: RouterClient, number: int, due: float, served: list[Served]) -> None:
        answered = shed = None
        try:
            async with aclosing(client.ask(f"question {number}", timeout_seconds=DEADLINE_SECONDS)) as events:
                async for _ in events:
                    pass
            answered = loop.time() - due
        except MarginalError as fault:
            faults[type(fault).__name__] += 1
            if isinstance(fault, (Overloaded, TierUnavailable)):
                shed = loop.time() - due
        served.append(Served(due - began, answered, shed))

    async with RouterClient(target) as client, asyncio.TaskGroup() as tasks:
        began = due = loop.time() + 0.1
        for phase, load in enumerate(LOADS):
            while True:
                due += lot.expovariate(load * CAPACITY)
                if due >= began + (phase + 1) * seconds:
                    break
                await asyncio.sleep(max(0.0, due - loop.time()))
                late.append(loop.time() - due)
                tasks.create_task(request(client, len(late), due, phases[phase]))
            due = began + (phase + 1) * seconds
            await asyncio.sleep(max(0.0, due - loop.time()))
            busy.append(_cpu_seconds(router_pid))
    told = {
        "phases": [[asdict(one) for one in phase] for phase in phases],
        "faults": faults,
        "router_cpu": [(after - before) / seconds for before, after in pairwise(busy)],
        "loader_cpu": time.process_time() / (seconds * len(LOADS)),
        "late_p99_ms": sorted(late)[int(0.99 * len(late))] * 1000.0,
    }
    print(json.dumps(told))  # noqa: T201


def _cpu_seconds(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / CLOCK_TICKS


@asynccontextmanager
async def _process(*arguments: str, stdout: int | None = None) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.overload", *arguments, stdout=stdout
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await process.wait()


async def measure(state_dir: Path, *, seconds: float, seed: int) -> dict[str, Any]:
    """Starts everything, sends all phases and gives what the loader wrote."""
    policy_file = state_dir / "bench.toml"
    policy_file.write_text(POLICY)
    plan = Plan(Pair(MODEL, MODEL), "127.0.0.1:0", None, None, policy_file, state_dir, Exporter.NONE, None)
    planned: dict[str, Program] = {program.name: program for program in programs(plan)}
    async with AsyncExitStack() as stack:
        for name in (SMALL, LARGE):
            with (state_dir / f"{name}.log").open("wb") as log:
                await stack.enter_async_context(_process("--serve-model", planned[name].address, stdout=log.fileno()))
        router = await start(planned[ROUTER])
        stack.push_async_callback(router.drain)
        for name in (SMALL, LARGE, ROUTER):
            await wait_until_serving(planned[name].target, planned[name].service, timeout_seconds=60)
        arguments = ("--send", planned[ROUTER].target, str(router.pid), "--seconds", str(seconds), "--seed", str(seed))
        loader = await stack.enter_async_context(_process(*arguments, stdout=asyncio.subprocess.PIPE))
        written, _ = await loader.communicate()
    return dict(json.loads(written))


def report(told: dict[str, Any], *, seconds: float, as_json: bool) -> None:
    """Prints the course, and beside it what tells whether to believe it and what each request cost the router."""
    phases = [[Served(**one) for one in phase] for phase in told["phases"]]
    made = course("router", phases, LOADS, seconds=seconds, settle=SETTLE_SHARE * seconds)
    one, four, rates = made.at(1.0), made.at(4.0), told["router_cpu"]
    served = rates[LOADS.index(1.0)] / one.goodput
    shed = (rates[LOADS.index(4.0)] - served * four.goodput) / max(1.0, four.shed)
    for line in (
        f"faults {told['faults']}",
        f"loader {told['loader_cpu']:.2f} of a core, late by {told['late_p99_ms']:.1f} ms (p99)",
        f"router ms of a core per request: answered {1000 * served:.1f} (1x), sent away {1000 * shed:.1f} (4x)",
    ):
        print(line, file=sys.stderr)  # noqa: T201
    if told["late_p99_ms"] > LATE_MS:
        print("the machine was too busy: do not believe these figures", file=sys.stderr)  # noqa: T201
    show([made], capacity=CAPACITY, subject="", as_json=as_json)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.overload",
        description=__doc__,
        epilog="Example: python -m tests.bench.overload --seconds 10 --json",
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the tables")
    parser.add_argument("--serve-model", metavar="ADDRESS", help=argparse.SUPPRESS)
    parser.add_argument("--send", nargs=2, metavar=("TARGET", "PID"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve_model:
        serving(lambda stop: serve_model(given.serve_model, stop))
    elif given.send:
        target, pid = given.send
        asyncio.run(send(target, int(pid), seconds=given.seconds, seed=given.seed))
    else:
        with tempfile.TemporaryDirectory() as directory:
            told = asyncio.run(measure(Path(directory), seconds=given.seconds, seed=given.seed))
        report(told, seconds=given.seconds, as_json=given.json)


if __name__ == "__main__":
    main()
