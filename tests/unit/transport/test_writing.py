import asyncio

import grpc
import pytest

from marginal.errors import SlowConsumer
from marginal.transport.writing import write
from marginal.v1 import router_pb2

MESSAGE = router_pb2.RouterServiceGenerateResponse()


class Reads:
    """A caller who reads so many messages and then nothing."""

    def __init__(self, messages: int) -> None:
        self.left = messages

    async def write(self, _: object) -> None:
        self.left -= 1
        if self.left < 0:
            await asyncio.Event().wait()


class Leaves:
    """A caller who is gone when the library wants to write."""

    async def write(self, _: object) -> None:
        raise grpc.aio.InternalError


async def test_who_reads_is_written_to() -> None:
    caller = Reads(2)
    await write(caller, MESSAGE, stall_seconds=10.0)
    await write(caller, MESSAGE)
    assert caller.left == 0


async def test_who_does_not_read_is_waited_for_no_longer_than_that() -> None:
    with pytest.raises(SlowConsumer, match=r"not read for 0\.01 s"):
        await write(Reads(0), MESSAGE, stall_seconds=0.01)


async def test_who_leaves_during_a_write_has_cancelled() -> None:
    with pytest.raises(asyncio.CancelledError):
        await write(Leaves(), MESSAGE, stall_seconds=10.0)
