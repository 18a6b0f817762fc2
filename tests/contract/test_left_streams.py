"""A router's account of a stream that it leaves is the model service's own, to the token."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field

import grpc
import pytest

from contract.subjects import Untraced
from evidence import sure
from marginal.backends.scripted import Script, ScriptedModel
from marginal.errors import DeadlineExceeded
from marginal.tokens import EngineTimes, FinishReason, Generation, Message, Role, Sampling, Usage
from marginal.transport.guard import Guard
from marginal.transport.model_servicer import ModelServicer
from marginal.transport.remote_model import connected
from marginal.transport.remote_pool import RemotePool
from marginal.transport.server import options
from marginal.transport.validation import Limits

TOKENS = 30
QUICK = Script((sure(0.9),) * TOKENS, delay_seconds=0.005)
SLOW = Script((sure(0.9),) * TOKENS, delay_seconds=0.05)
SILENT = Script((sure(0.9),) * TOKENS, first_delay_seconds=30.0)


@dataclass
class Log:
    """A recorder of generations: their usages in the order they ended."""

    used: list[Usage] = field(default_factory=list)

    @contextmanager
    def generation_span(self, model_name: str) -> Iterator[Callable[..., None]]:  # noqa: ARG002
        def ended(
            usage: Usage,
            finish: FinishReason | None,  # noqa: ARG001
            *,
            cancelled: bool,  # noqa: ARG001
            times: EngineTimes | None = None,  # noqa: ARG001
        ) -> None:
            self.used.append(usage)

        yield ended


@dataclass
class Served:
    """A model service, a router's connection to it, and the service's log."""

    server: grpc.aio.Server
    model: RemotePool
    log: Log


@asynccontextmanager
async def served(script: Script) -> AsyncIterator[Served]:
    guard, log = Guard(Untraced(), max_calls=256, trust_baggage=True), Log()
    server = grpc.aio.server(interceptors=[guard], options=options(guard, message_bytes=1024 * 1024))
    ModelServicer(ScriptedModel(script), name="served", limits=Limits(), recorder=log).register(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with connected(f"127.0.0.1:{port}") as model:
        yield Served(server, model, log)
    await server.stop(None)


def asking(words: int = 3) -> Generation:
    return Generation((Message(Role.USER, "word " * words),), Sampling(max_tokens=64))


async def test_a_hundred_streams_that_are_cancelled_at_any_moment_are_accounted_for_to_the_token() -> None:
    lot = random.Random(6)  # noqa: S311

    async def left(words: int) -> Usage:
        chunks, seen = served_.model.generate(asking(words)), Usage()
        with suppress(TimeoutError):
            async with asyncio.timeout(lot.uniform(0.0, 0.3)), aclosing(chunks):
                async for chunk in chunks:
                    seen = chunk.usage
        return chunks.used or seen

    async with served(QUICK) as served_:
        [chunk async for chunk in served_.model.generate(asking(101))]  # connects
        served_.log.used.clear()
        found = [
            usage for first in range(1, 100, 10) for usage in await asyncio.gather(*map(left, range(first, first + 10)))
        ]
    begun = {usage for usage in found if usage.input_tokens}
    assert begun == {usage for usage in served_.log.used if usage.input_tokens}
    assert len(begun) > 50
    assert not any(usage.counted for usage in found)


async def test_closing_gives_what_was_generated_and_never_read() -> None:
    async with served(QUICK) as served_:
        async with aclosing(served_.model.generate(asking())) as chunks:
            first = await anext(chunks)
            await asyncio.sleep(0.03)
        assert first.usage == Usage(3, 1)
        assert [chunks.used] == served_.log.used
        assert chunks.used is not None
        assert chunks.used.output_tokens > 1


async def test_a_deadline_that_passes_here_is_accounted_for_as_there() -> None:
    async with served(SLOW) as served_:
        chunks = served_.model.generate(asking(), timeout=0.2)
        with pytest.raises(DeadlineExceeded):
            [chunk async for chunk in chunks]
        assert [chunks.used] == served_.log.used


async def test_a_stream_that_is_left_before_it_began_used_nothing() -> None:
    async with served(SILENT) as served_:
        chunks = served_.model.generate(asking())
        with suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                await anext(chunks)
        assert [chunks.used] == served_.log.used == [Usage()]


async def test_a_stream_that_came_to_its_end_has_said_so_itself() -> None:
    async with served(QUICK) as served_:
        chunks = served_.model.generate(asking())
        assert [chunk async for chunk in chunks][-1].usage == Usage(3, TOKENS)
        assert chunks.used is None


async def test_a_second_cancel_loses_no_account() -> None:
    async with served(SLOW) as served_:
        chunks = served_.model.generate(asking())

        async def read() -> None:
            async with aclosing(chunks):
                [chunk async for chunk in chunks]

        reading = asyncio.create_task(read())
        await asyncio.sleep(0.2)
        while not reading.done():
            reading.cancel()
            await asyncio.sleep(0)
        assert reading.cancelled()
        assert [chunks.used] == served_.log.used


async def test_what_nobody_can_be_asked_about_is_our_own_count_and_says_so() -> None:
    async with served(SLOW) as served_:
        chunks = served_.model.generate(asking())
        seen = (await anext(chunks)).usage
        await served_.server.stop(None)
        await chunks.aclose()
        assert chunks.used == Usage(seen.input_tokens, seen.output_tokens, counted=True)
