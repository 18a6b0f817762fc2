"""Writing to a caller who may be gone."""

import asyncio
from typing import Any

import grpc
from google.protobuf.message import Message


async def write(context: Any, message: Message) -> None:
    """Writes a message to the caller, waiting while it does not read. Raises CancelledError when it has left.

    The library raises an error of its own for who leaves during a write, before it cancels the handler (measured).
    """
    try:
        await context.write(message)
    except grpc.aio.InternalError:
        raise asyncio.CancelledError from None
