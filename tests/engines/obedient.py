"""Two tiers of this process that do what a prompt tells them: "small:tokens=40,delay_ms=5,margin=0.1 large:fail_at=0".

The words after a tier are those of a scripted model's name; "wide" makes every token many bytes long.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace

import grpc

from marginal.backends.script_names import SCHEME, scripted_model
from marginal.routing.evidence import probe
from marginal.telemetry.recorder import GenerationRecorder
from marginal.telemetry.tracing import tracing_to
from marginal.tokens import Chunk, Generation, ModelDescription, Tier
from marginal.transport.guard import Guard
from marginal.transport.model_servicer import ModelServicer
from marginal.transport.server import options
from marginal.transport.validation import Limits

USUAL = "tokens=6,delay_ms=2"
WIDE, WIDTH = "wide", 4_000


class Silent:
    """A log that nobody reads."""

    def info(self, event: str, **fields: object) -> None: ...

    def warning(self, event: str, **fields: object) -> None: ...


class Obedient:
    """A model that is told by each prompt how to answer it."""

    def __init__(self, tier: Tier) -> None:
        self.tier = tier
        self.active = 0
        """Generations going on now."""
        self.asked = 0
        """Generations so far."""

    async def describe(self) -> ModelDescription:
        return await scripted_model(SCHEME).describe()

    async def generate(self, generation: Generation, *, timeout: float | None = None) -> AsyncGenerator[Chunk, None]:
        words = generation.messages[-1].text.split()
        told = [word.partition(":")[2] for word in words if word.startswith(f"{self.tier.value}:")]
        model = scripted_model(f"{SCHEME}{','.join((USUAL, *told))}")
        self.active += 1
        self.asked += 1
        try:
            async with aclosing(model.generate(generation, timeout=timeout)) as chunks:
                async for chunk in chunks:
                    yield _wide(chunk) if WIDE in words else chunk
        finally:
            self.active -= 1


def _wide(chunk: Chunk) -> Chunk:
    return replace(chunk, tokens=tuple(replace(token, text=token.text * WIDTH) for token in chunk.tokens))


@dataclass(frozen=True)
class Tiers:
    """Both models, and where they are served."""

    small: Obedient
    large: Obedient
    targets: dict[Tier, str]

    @property
    def arguments(self) -> tuple[str, ...]:
        """A router's options that lead to them."""
        return ("--small", self.targets[Tier.SMALL], "--large", self.targets[Tier.LARGE])

    @property
    def active(self) -> int:
        """Generations of both going on now."""
        return self.small.active + self.large.active


@asynccontextmanager
async def obedient_tiers() -> AsyncIterator[Tiers]:
    """Serves both on real ports."""
    models = {tier: Obedient(tier) for tier in Tier}
    async with AsyncExitStack() as stack:
        targets = {tier: await stack.enter_async_context(_served(model)) for tier, model in models.items()}
        yield Tiers(models[Tier.SMALL], models[Tier.LARGE], targets)


@asynccontextmanager
async def _served(model: Obedient) -> AsyncIterator[str]:
    tracing = tracing_to(None, service_name="test", version="1")
    guard = Guard(tracing.tracer, max_calls=512, trust_baggage=True)
    server = grpc.aio.server(interceptors=[guard], options=options(guard, message_bytes=1024 * 1024))
    recorder = GenerationRecorder(tracing.spans, Silent(), tracing.metrics, tier=model.tier)
    servicer = ModelServicer(model, name=f"obedient-{model.tier.value}", limits=Limits(), recorder=recorder)
    servicer.register(server)
    servicer.evidence = await probe(model)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
        await guard.idle()
