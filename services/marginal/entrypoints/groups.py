"""Tasks that fail as one: the first error of ours comes out by itself, not inside a group."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from marginal.errors import MarginalError


@asynccontextmanager
async def together() -> AsyncIterator[asyncio.TaskGroup]:
    """A task group; raises the first MarginalError of its tasks or its body bare.

    Not by `except*`: what is raised inside one is wrapped into a group again by some releases of Python 3.11.
    """
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as failed:
        error: BaseException | None = failed.subgroup(MarginalError)
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if error is None:
            raise
        raise error from None
