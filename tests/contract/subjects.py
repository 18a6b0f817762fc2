"""The language models that keep the contract: one row each, real engines and real sockets. To add one, write a row."""

import math
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc

from dialects.server import DialectServer
from engines.llama_server import LlamaServer
from marginal.backends.endpoints import Endpoint, Endpoints
from marginal.backends.llama_cpp import EngineSettings, LlamaCpp
from marginal.backends.openai_compatible import OpenAICompatible
from marginal.backends.script_names import token_with_margin
from marginal.backends.scripted import Script, ScriptedModel
from marginal.backends.tgi import TextGenerationInference
from marginal.models.fetch import resolve
from marginal.routing.ports import LanguageModel
from marginal.tokens import EngineTimes, FinishReason, Generation, Usage
from marginal.transport.guard import Guard
from marginal.transport.model_servicer import ModelServicer
from marginal.transport.remote_model import connected
from marginal.transport.server import options
from marginal.transport.validation import Limits

PARALLEL = 4
HOME_TEMPLATE = "<|user|>{}<|assistant|>"
"""What the home pair's chat template makes of one message in lower case."""

SLOW = "slowly"
"""A question with this word is answered by scripted models at a pace that a person could follow."""


@dataclass(frozen=True)
class Subject:
    """A model under contract and, behind its back, how much it has computed: tokens, or steps of its engine.

    `allowance` is the number of tokens it may compute after a close: one, or any where the engine answers faster than
    a cancel travels.
    """

    model: LanguageModel
    computed: Callable[[], float]
    allowance: float = 1
    real_engine: bool = True


@asynccontextmanager
async def scripted() -> AsyncIterator[Subject]:
    model = ScriptedModel(_echo, context_tokens=256)
    yield Subject(model, lambda: model.generated, real_engine=False)


@asynccontextmanager
async def two_scripted() -> AsyncIterator[Subject]:
    async with scripted() as first, scripted() as second:
        model = Endpoints([Endpoint("first", first.model), Endpoint("second", second.model)])
        yield Subject(model, lambda: first.computed() + second.computed(), real_engine=False)
        await model.close()


@asynccontextmanager
async def tgi(route: str) -> AsyncIterator[Subject]:
    async with DialectServer("tgi") as server:
        model = TextGenerationInference(server.url, route=route)
        yield Subject(model, lambda: server.generated, real_engine=False)
        await model.close()


@asynccontextmanager
async def openai(dialect: str, route: str) -> AsyncIterator[Subject]:
    async with DialectServer(dialect) as server:
        model = OpenAICompatible(server.url, route=route)
        yield Subject(model, lambda: server.generated, real_engine=False)
        await model.close()


@asynccontextmanager
async def llama_server(route: str, template: str = "{}") -> AsyncIterator[Subject]:
    """Its tokens are faster than a cancel travels: how soon it stops has a test of its own."""
    async with LlamaServer(resolve("home-small"), parallel=PARALLEL) as server:
        model = OpenAICompatible(f"{server.url}/v1", route=route, template=template)
        yield Subject(model, lambda: server.measured()["n_decode_total"], math.inf)
        await model.close()


@asynccontextmanager
async def embedded(name: str = "home-small") -> AsyncIterator[Subject]:
    model = LlamaCpp(resolve(name), name=name, settings=EngineSettings(parallel=PARALLEL))
    yield Subject(model, lambda: model.measured()["n_decode_total"])
    model.close()


@asynccontextmanager
async def serving(served: Subject) -> AsyncIterator[str]:
    """A model service on a port of its own; gives its address."""
    guard = Guard(Untraced(), max_calls=64, trust_baggage=True)
    server = grpc.aio.server(interceptors=[guard], options=options(guard, message_bytes=1024 * 1024))
    ModelServicer(served.model, name="served", limits=Limits(), recorder=Unrecorded()).register(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


@asynccontextmanager
async def remote(served: Subject, *, allowance: float) -> AsyncIterator[Subject]:
    async with serving(served) as target, connected(target) as model:
        yield Subject(model, served.computed, allowance, served.real_engine)


@asynccontextmanager
async def home_large() -> AsyncIterator[Subject]:
    async with embedded("home-large") as subject:
        yield subject


@asynccontextmanager
async def remote_scripted() -> AsyncIterator[Subject]:
    async with scripted() as served, remote(served, allowance=1) as subject:
        yield subject


@asynccontextmanager
async def two_remote_scripted() -> AsyncIterator[Subject]:
    async with (
        scripted() as first,
        scripted() as second,
        serving(first) as here,
        serving(second) as there,
        connected(f"{here},{there}") as model,
    ):
        yield Subject(model, lambda: first.computed() + second.computed(), real_engine=False)


@asynccontextmanager
async def remote_embedded() -> AsyncIterator[Subject]:
    async with embedded() as served, remote(served, allowance=math.inf) as subject:
        yield subject


ROWS = {
    "scripted": scripted,
    "two scripted endpoints": two_scripted,
    "home-small in process": embedded,
    "home-large in process": home_large,
    "TGI dialect, native route": partial(tgi, "native"),
    "TGI dialect, chat route": partial(tgi, "chat"),
    "llama-server, chat route": partial(llama_server, "chat"),
    "llama-server, completions route": partial(llama_server, "completions", HOME_TEMPLATE),
    "vLLM dialect, chat route": partial(openai, "vllm", "chat"),
    "vLLM dialect, completions route": partial(openai, "vllm", "completions"),
    "SGLang dialect, chat route": partial(openai, "sglang", "chat"),
    "SGLang dialect, completions route": partial(openai, "sglang", "completions"),
    "llama-server dialect, chat route": partial(openai, "llama-server", "chat"),
    "llama-server dialect, completions route": partial(openai, "llama-server", "completions"),
    "scripted over gRPC": remote_scripted,
    "two scripted replicas over gRPC": two_remote_scripted,
    "home-small over gRPC": remote_embedded,
}


def _echo(generation: Generation) -> Script:
    """Answers with twenty words of its own and the question's; how sure it is of each depends on the question."""
    question = generation.messages[-1].text
    words = [*question.split()[:4], *(f"w{i}" for i in range(18)), "漢", "é"]
    margins = (0.3 + 0.7 * zlib.crc32(f"{question}{i}".encode()) / 2**32 for i in range(len(words)))
    tokens = tuple(token_with_margin(f"{word} ", margin) for word, margin in zip(words, margins, strict=True))
    return Script(tokens, delay_seconds=0.1 if SLOW in question else 0.001)


class Unrecorded:
    """A recorder of generations that keeps nothing."""

    @contextmanager
    def generation_span(self, model_name: str) -> Iterator[Callable[..., None]]:  # noqa: ARG002
        def ended(
            usage: Usage, finish: FinishReason | None, *, cancelled: bool, times: EngineTimes | None = None
        ) -> None:
            """Keeps nothing."""

        yield ended


class Untraced:
    """A tracer of calls that traces none; also the span of such a call."""

    metadata: dict[str, str] = {}  # noqa: RUF012

    def ended(self, status_code: str) -> None:
        """Keeps nothing."""

    def server_call(self, *_: Any, **__: Any) -> "AbstractContextManager[Untraced]":
        return nullcontext(self)

    def client_call(self, *_: Any) -> "Untraced":
        return self

    def tenant(self, _: str) -> AbstractContextManager[None]:
        return nullcontext()
