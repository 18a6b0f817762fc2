"""Tasks that go on beside a server for as long as it runs, and whose end is never overlooked."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

logger = logging.getLogger(__name__)


@asynccontextmanager
async def beside(lost: Callable[[], object], **works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Does the works meanwhile, by their names; each may come to its end, and calls `lost` when it fails.

    Raises what ended one of them once the body has come to its end.
    """
    tasks = [begun(work, lost, name=name) for name, work in works.items()]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        if (error := failure(task)) is not None:
            raise error


def begun(work: Coroutine[Any, Any, None], lost: Callable[[], object], *, name: str) -> asyncio.Task[None]:
    """A task; `lost` is called when it fails."""

    def ended(task: asyncio.Task[None]) -> None:
        if (error := failure(task)) is not None:
            logger.error("%s ended: %s", name, type(error).__name__)
            lost()

    task = asyncio.create_task(work, name=name)
    task.add_done_callback(ended)
    return task


def failure(task: asyncio.Task[Any]) -> BaseException | None:
    """What ended a task, which is over; also that it was cancelled by nobody, as grpc.aio does it to its callers."""
    if not task.cancelled():
        return task.exception()
    return None if task.cancelling() else RuntimeError(f"{task.get_name()}: cancelled, and nobody asked for it")
