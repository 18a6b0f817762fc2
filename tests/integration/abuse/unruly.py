"""Models that do what a prompt tells them, served in this process: unsure, slow, or deaf to max_tokens."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from contract.subjects import Unrecorded, Untraced
from marginal.backends.script_names import token_with_margin
from marginal.backends.scripted import Script, ScriptedModel
from marginal.routing.evidence import probe
from marginal.tokens import Chunk, FinishReason, Generation, ModelDescription, Token, Usage
from marginal.transport import model_servicer
from marginal.transport.guard import Guard
from marginal.transport.server import options
from marginal.transport.validation import Limits

UNSURE, SLOW = "unsure", "slow"
ENDLESS, ONE_CHUNK, BOASTING = "endless", "one chunk", "boasting"
"""Words of a prompt: be unsure, be slow; disregard max_tokens, token by token or all at once, or only claim to."""

TIMES_TOO_MANY = 100
ANSWER_TOKENS = 4


class Unruly:
    """A scripted model that keeps to what it was asked, unless the prompt says otherwise."""

    def __init__(self, name: str) -> None:
        self.scripted = ScriptedModel(_script, name=name)
        self.unruly = 0
        """Tokens written by those that do not keep to it."""
        self.cut = asyncio.Event()
        """Somebody has stopped one of them."""

    @property
    def asked(self) -> int:
        """Generations so far."""
        return len(self.scripted.runs)

    async def describe(self) -> ModelDescription:
        return await self.scripted.describe()

    async def generate(self, generation: Generation, *, timeout: float | None = None) -> AsyncGenerator[Chunk, None]:
        words, most = generation.messages[-1].text, generation.sampling.max_tokens
        token = token_with_margin("w ", 0.9)
        if ENDLESS in words:
            async for chunk in self._endless(token, most * TIMES_TOO_MANY):
                yield chunk
        elif ONE_CHUNK in words:
            yield Chunk((token,) * most * TIMES_TOO_MANY, Usage(1, most * TIMES_TOO_MANY))
            yield Chunk((), Usage(1, most * TIMES_TOO_MANY), FinishReason.STOP)
        elif BOASTING in words:
            yield Chunk((token,) * most, Usage(1, most * TIMES_TOO_MANY))
            yield Chunk((), Usage(1, most * TIMES_TOO_MANY), FinishReason.STOP)
        else:
            async for chunk in self.scripted.generate(generation, timeout=timeout):
                yield chunk

    async def _endless(self, token: Token, many: int) -> AsyncIterator[Chunk]:
        try:
            for written in range(1, many + 1):
                self.unruly += 1
                yield Chunk((token,), Usage(1, written))
                await asyncio.sleep(0.002)
        except (asyncio.CancelledError, GeneratorExit):
            self.cut.set()
            raise
        yield Chunk((), Usage(1, many), FinishReason.STOP)


def _script(generation: Generation) -> Script:
    words = generation.messages[-1].text
    margins = (0.05 if UNSURE in words else 0.9, *[0.9] * (ANSWER_TOKENS - 1))
    tokens = tuple(token_with_margin(f"w{place} ", margin) for place, margin in enumerate(margins))
    return Script(tokens, first_delay_seconds=0.4 if SLOW in words else 0.0)


@dataclass(frozen=True)
class Tiers:
    """Both models and where they are served."""

    small: Unruly
    large: Unruly
    targets: tuple[str, str]

    @property
    def asked(self) -> int:
        """Generations of both so far."""
        return self.small.asked + self.large.asked


@asynccontextmanager
async def unruly_tiers() -> AsyncIterator[Tiers]:
    """Two model services in this process."""
    small, large = Unruly("tiny"), Unruly("huge")
    async with AsyncExitStack() as stack:
        targets = [await stack.enter_async_context(_served(model)) for model in (small, large)]
        yield Tiers(small, large, (targets[0], targets[1]))


@asynccontextmanager
async def _served(model: Unruly) -> AsyncIterator[str]:
    guard = Guard(Untraced(), max_calls=512, trust_baggage=True)
    server = grpc.aio.server(interceptors=[guard], options=options(guard, message_bytes=1024 * 1024))
    servicer = model_servicer.ModelServicer(model, name="unruly", limits=Limits(), recorder=Unrecorded())
    servicer.register(server)
    servicer.evidence = await probe(model)
    healthy = health.aio.HealthServicer()
    await healthy.set(model_servicer.SERVICE, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)
