"""The three services as real processes on free ports, over scripted models or the home pair."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from marginal.entrypoints.processes import Running, start
from marginal.entrypoints.services import LARGE, ROUTER, SMALL, Plan, programs
from marginal.models.catalogue import Pair
from marginal.telemetry.tracing import Exporter
from marginal.transport.router_client import Answer, Piece, RouterClient, wait_until_serving

START_SECONDS = 60.0


@dataclass
class Deployment:
    """Running services; every line they log can be read back."""

    running: dict[str, Running]

    @property
    def target(self) -> str:
        return self.running[ROUTER].program.target

    @property
    def admin(self) -> str:
        return self.running[ROUTER].program.admin

    def signal(self, service: str, number: signal.Signals) -> None:
        os.kill(self.running[service].pid, number)

    async def ended(self, service: str) -> int:
        return await self.running[service].ended()

    def logged(self, service: str, event: str) -> list[dict[str, Any]]:
        lines = self.running[service].program.log_path.read_text().splitlines()
        return [entry for entry in map(json.loads, lines) if entry["event"] == event]

    async def until_logged(self, service: str, event: str, *, count: int = 1) -> list[dict[str, Any]]:
        """Waits until it is in the service's log so many times; gives those lines."""
        for _ in range(400):
            if len(found := self.logged(service, event)) >= count:
                return found
            await asyncio.sleep(0.05)
        raise AssertionError(f"{service} did not log {event} {count} times")

    async def ask(self, prompt: str, **how: Any) -> tuple[str, Answer]:
        """Asks by a channel of its own."""
        async with RouterClient(self.target) as client:
            return await answer(client, prompt, **how)


async def answer(client: RouterClient, prompt: str, **how: Any) -> tuple[str, Answer]:
    """The whole text and the final message."""
    text = ""
    async for event in client.ask(prompt, **how):
        if isinstance(event, Piece):
            text += event.text
        else:
            return text, event
    raise AssertionError("the stream ended without a final message")


@asynccontextmanager
async def deployed(
    state_dir: Path,
    *,
    small: str,
    large: str,
    ready: bool = True,
    policy_file: Path | None = None,
    router: tuple[str, ...] = (),
    each: tuple[str, ...] = (),
) -> AsyncIterator[Deployment]:
    """Starts the three services and, when `ready`, waits until the tiers and the router are SERVING.

    `router` are further arguments of the router's, `each` of every service's.
    """
    plan = Plan(Pair(small, large), "127.0.0.1:0", None, None, policy_file, state_dir, Exporter.FILE, None)
    async with AsyncExitStack() as stack:
        deployment = Deployment({})
        for program in reversed(programs(plan)):
            further = (*each, *(router if program.name == ROUTER else ()))
            running = await start(replace(program, arguments=(*program.arguments, *further)))
            stack.push_async_callback(running.drain)
            deployment.running[program.name] = running
        for name in (LARGE, SMALL, ROUTER) if ready else ():
            program = deployment.running[name].program
            await wait_until_serving(program.target, program.service, timeout_seconds=START_SECONDS)
        yield deployment
