"""`marginal up`: a small model, a large model and a router, ready when they say so, drained when told to end."""

import asyncio
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from marginal.entrypoints import reaching
from marginal.entrypoints.groups import together
from marginal.entrypoints.processes import Program, Running, how_it_ended, last_words, start, waits_for
from marginal.entrypoints.services import (
    LARGE,
    ROUTER,
    SMALL,
    Plan,
    prepared,
    programs,
    services_as_json,
    services_table,
)
from marginal.entrypoints.wording import as_json
from marginal.errors import MarginalError
from marginal.transport.router_client import wait_until_serving

READY_SECONDS = 1_800.0
"""A first start may fetch gigabytes."""

LOOK_AGAIN_SECONDS = 0.5

SERVICES_FILE = "services.json"
"""Where the services are while they run, kept in the state directory for other commands."""

WITHOUT = {
    ROUTER: "nothing answers without it",
    SMALL: "requests go straight to the large tier, as many as the policy lets by",
    LARGE: "answers degrade to the small tier",
}

Task = Callable[[str], Awaitable[bool]]
"""Something to do with the router's target once all is ready; says whether it went well."""


class StartFailed(MarginalError):
    """A service ended before it was ready."""


class RouterLost(MarginalError):
    """The router ended although nobody asked it to."""


class Up:
    """The services from their start to their drain."""

    def __init__(self, plan: Plan, *, console: Console, progress: Console, json: bool) -> None:
        """`console` takes the table, as one JSON object with `json`; `progress` takes what happens meanwhile."""
        self._plan = plan
        self._console = console
        self._progress = progress
        self._json = json
        self._told_to_end = asyncio.Event()
        self._running: list[Running] = []

    async def run(self, task: Task | None = None, *, end_after_task: bool = False) -> bool:
        """Serves until told to end, or until `task` is done; False when the task says so, or streams were cut.

        Raises ConfigurationError, StartFailed, RouterLost; whatever happens nothing is left running.
        """
        wanted = programs(self._plan)
        with prepared(self._plan.state_dir, self._plan.policy_file), self._signals():
            try:
                for program in wanted:
                    self._running.append(await start(program))
                well = await self._until_told_to_end(self._serve(task, end_after_task=end_after_task))
            finally:
                self._services_file.unlink(missing_ok=True)
                drained = await self._drain()
        return well and drained

    async def _serve(self, task: Task | None, *, end_after_task: bool) -> bool:
        await self._ready()
        self._tell()
        well = True
        async with together() as group:
            watches = [group.create_task(self._watch(running)) for running in self._running]
            if task is not None:
                well = await task(self._running[0].program.target)
            if end_after_task:
                for watch in watches:
                    watch.cancel()
        return well

    async def _ready(self) -> None:
        """Returns when every service is SERVING. Raises StartFailed."""
        shown = Progress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=self._progress,
            transient=True,
            disable=not self._progress.is_terminal,
        )
        with shown:
            async with together() as group:
                for running in self._running:
                    group.create_task(self._until_serving(running, shown))

    async def _until_serving(self, running: Running, shown: Progress) -> None:
        program = running.program
        row = shown.add_task(program.name, total=1)
        serving = asyncio.create_task(
            wait_until_serving(
                program.target, program.service, timeout_seconds=READY_SECONDS, tls=reaching.current().tls
            )
        )
        ended = asyncio.create_task(running.ended())
        telling = asyncio.create_task(self._tell_why_not(program))
        try:
            await asyncio.wait({serving, ended}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                raise StartFailed(_obituary(program, ended.result()))
            await serving
        finally:
            serving.cancel()
            ended.cancel()
            telling.cancel()
        shown.update(row, completed=1)
        if not self._progress.is_terminal:
            self._progress.print(f"{program.name} is ready at {program.address}", highlight=False, soft_wrap=True)

    async def _tell_why_not(self, program: Program) -> None:
        """Says why a service is not ready, whenever it gives another reason: an engine may have to be started first."""
        said = None
        while True:
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
            because = waits_for(program)
            if because is not None and because != said:
                self._progress.print(f"{program.name} waits: {because}", highlight=False, markup=False, soft_wrap=True)
                said = because

    async def _watch(self, running: Running) -> None:
        """Reports the end of a service. Raises RouterLost when it is the router."""
        code, name = await running.ended(), running.program.name
        news = f"{name} (pid {running.pid}) {how_it_ended(code)}: {WITHOUT[name]}"
        if name == ROUTER:
            raise RouterLost(f"{news}; its log is {running.program.log_path}")
        self._progress.print(f"{news}. End `marginal up` and start it again to have it back.", style="bold yellow")

    async def _until_told_to_end(self, work: Coroutine[Any, Any, bool]) -> bool:
        """What `work` says, True when it is cut short by a signal."""
        working, told = asyncio.create_task(work), asyncio.create_task(self._told_to_end.wait())
        await asyncio.wait({working, told}, return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        if working.done():
            return working.result()
        working.cancel()
        await asyncio.wait({working})
        return True

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """The first signal asks for the drain, a further one ends everything at once."""
        loop = asyncio.get_running_loop()
        caught = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        for one in caught:
            loop.add_signal_handler(one, self._end)
        try:
            yield
        finally:
            for one in caught:
                loop.remove_signal_handler(one)

    def _end(self) -> None:
        if self._told_to_end.is_set():
            for running in self._running:
                running.kill()
            return
        self._told_to_end.set()
        self._progress.print("Draining; ctrl-C once more ends everything at once.")

    async def _drain(self) -> bool:
        """The router first, so that its streams still have their tiers; then the tiers. False when one was killed."""
        routers = [running for running in self._running if running.program.name == ROUTER]
        tiers = [running for running in self._running if running.program.name != ROUTER]
        drained = [
            *await asyncio.gather(*(running.drain() for running in routers)),
            *await asyncio.gather(*(running.drain() for running in tiers)),
        ]
        return all(drained)

    @property
    def _services_file(self) -> Path:
        return self._plan.state_dir / SERVICES_FILE

    def _tell(self) -> None:
        services = as_json(services_as_json(self._running, self._plan.state_dir))
        self._services_file.write_text(f"{services}\n", "utf-8")
        if self._json:
            self._console.out(services, highlight=False)
        else:
            self._console.print(services_table(self._running))
        self._console.file.flush()


def what_next(target: Sequence[str], state_dir: Sequence[str]) -> str:
    """What to try once all is ready, with the options it takes to find these services."""
    program = "marginal" if shutil.which("marginal") or sys.argv[0].endswith(".py") else sys.argv[0]
    return "\n".join(
        (
            "",
            "Try, in another terminal:",
            " ".join((f'  {program} ask "wake me at half past six on thursday"', *target)),
            " ".join((f"  {program} demo", *target)),
            " ".join((f"  {program} trace last", *state_dir)),
            " ".join((f"  {program} costs reconcile", *state_dir)),
            "ctrl-C drains and ends.",
        )
    )


def _obituary(program: Program, code: int) -> str:
    words = "\n".join(f"  {line}" for line in last_words(program)) or "  (it wrote nothing)"
    return f"{program.name} {how_it_ended(code)} before it was ready; its last lines:\n{words}"
