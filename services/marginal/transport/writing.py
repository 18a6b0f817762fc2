"""Writing to a caller who may be slow, or gone."""

import asyncio
from typing import Any

import grpc
from google.protobuf.message import Message

from marginal.errors import SlowConsumer


async def write(context: Any, message: Message, *, stall_seconds: float | None = None) -> None:
    """Writes a message to the caller, waiting while it does not read.

    Raises SlowConsumer when that lasts `stall_seconds`, and CancelledError when the caller has left: the library raises
    an error of its own for who leaves during a write, before it cancels the handler (measured).
    """
    try:
        async with asyncio.timeout(stall_seconds):
            await context.write(message)
    except TimeoutError:
        raise SlowConsumer(f"the answer was not read for {stall_seconds:g} s") from None
    except grpc.aio.InternalError:
        raise asyncio.CancelledError from None
