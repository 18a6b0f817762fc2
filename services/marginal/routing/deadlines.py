"""A deadline, as our own error."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from marginal.errors import DeadlineExceeded


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """Ends what happens inside after `seconds`. Raises DeadlineExceeded."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise DeadlineExceeded(f"no complete answer within {seconds:.3g} s") from None
