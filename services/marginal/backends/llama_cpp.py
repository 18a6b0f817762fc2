"""Runs a GGUF model inside this process, on llama.cpp.

The engine's calls block, one thread each; its callback is where tokens are read, judged and, when the answer is unsure
enough or nobody listens any more, stopped. Only finished values cross over to the event loop.
"""

import asyncio
import secrets
import threading
from collections import deque
from collections.abc import AsyncGenerator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xllamacpp

from marginal.backends.chat_events import ChatEvents, Event
from marginal.backends.control_tokens import PlainText, control_texts
from marginal.backends.gguf_header import read_header
from marginal.errors import BackendProtocol, ConfigurationError, DeadlineExceeded, InvalidRequest, MarginalError
from marginal.tokens import Chunk, Generation, ModelDescription

MAX_ALTERNATIVES = 20
LATE = "the deadline passed before the answer was complete"
CONTEXT_STEP = 256
"""The engine lays out contexts in steps of so many tokens."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How the engine runs: threads per model, generations at once, tokens of prompt and answer one of them may hold.

    One thread is best for small files and on shared machines, where the engine's spinning barriers collapse with more.
    The context is cut to what the model was trained for.
    """

    threads: int = 1
    parallel: int = 4
    context_tokens: int = 4096


class LlamaCpp:
    """A language model in a GGUF file; several generations share its weights and its batches."""

    def __init__(self, path: Path, *, name: str, settings: EngineSettings | None = None) -> None:
        """Loads the file, which blocks from milliseconds to seconds. Raises ConfigurationError."""
        settings = settings or EngineSettings()
        self._name = name
        self._context_tokens = min(settings.context_tokens, _trained_context(path) or settings.context_tokens)
        self._context_tokens = max(CONTEXT_STEP, self._context_tokens // CONTEXT_STEP * CONTEXT_STEP)
        self._plain = PlainText(control_texts(path))
        self._engine = _started(path, settings, context_tokens=self._context_tokens)
        self._threads = ThreadPoolExecutor(settings.parallel, thread_name_prefix=f"{name}-generation")

    async def describe(self) -> ModelDescription:
        """Names the model and its limits; never fails."""
        return ModelDescription(self._name, self._context_tokens, MAX_ALTERNATIVES)

    async def generate(self, generation: Generation, *, timeout: float | None = None) -> AsyncGenerator[Chunk, None]:
        """Keeps the promises of `LanguageModel.generate`; generations beyond `parallel` wait their turn."""
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        hearer = _Hearer(generation, loop)
        call = self._threads.submit(self._converse, self._request(generation), hearer)
        try:
            while True:
                chunk = await hearer.next(deadline)
                yield chunk
                if chunk.finish is not None:
                    return
        finally:
            await _stopped(call, hearer)

    def close(self) -> None:
        """Waits for generations that still run, then frees the model."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        del self._engine

    def measured(self) -> dict[str, float]:
        """The engine's own counters, e.g. `n_decode_total`: one per step of one or more generations."""
        lines = str(self._engine.handle_metrics()).splitlines()
        pairs = (line.removeprefix("llamacpp:").split() for line in lines if not line.startswith("#"))
        return {pair[0]: float(pair[1]) for pair in pairs if len(pair) == 2}

    def _request(self, generation: Generation) -> dict[str, Any]:
        if generation.alternatives > MAX_ALTERNATIVES:
            raise InvalidRequest("alternatives", f"{generation.alternatives} is more than {MAX_ALTERNATIVES}")
        sampling = generation.sampling
        request: dict[str, Any] = {
            "messages": [
                {"role": message.role.value, "content": self._plain(message.text)} for message in generation.messages
            ],
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": 0,
            "min_p": 0.0,
            "stream": True,
            "timings_per_token": True,
        }
        if sampling.seed is not None:
            request["seed"] = sampling.seed % 2**32
        if generation.alternatives:
            request |= {"logprobs": True, "top_logprobs": generation.alternatives}
        return request

    def _converse(self, request: dict[str, Any], hearer: "_Hearer") -> None:
        """Runs one call of the engine, in a thread of its own."""
        try:
            self._engine.handle_chat_completions(request, hearer)
        except (ValueError, RuntimeError, TypeError) as error:
            hearer.fail(BackendProtocol(f"the engine refused the call: {type(error).__name__}"))
        hearer.fail(BackendProtocol("the engine ended without a finish"))


class _Hearer:
    """Hears the engine in its thread and hands what it heard to the loop; after an end it hears nothing more."""

    def __init__(self, generation: Generation, loop: asyncio.AbstractEventLoop) -> None:
        self._events = ChatEvents(generation)
        self._loop = loop
        self._heard: deque[Chunk | MarginalError] = deque()
        self._news = asyncio.Event()
        self._deaf = threading.Event()

    def __call__(self, event: Event) -> bool:
        """The engine's callback: True stops the generation before its next token."""
        if self._deaf.is_set():
            return True
        try:
            chunks = self._events.read(event)
        except MarginalError as error:
            self.fail(error)
            return True
        for chunk in chunks:
            self._hand(chunk)
        return self._events.ended

    def fail(self, error: MarginalError) -> None:
        """Ends the generation with an error, unless it has ended already."""
        if not self._events.ended and not self._deaf.is_set():
            self._deaf.set()
            self._hand(error)

    def stop(self) -> None:
        """Makes the engine stop at its next token."""
        self._deaf.set()

    async def next(self, deadline: float | None) -> Chunk:
        """Gives what was heard since, in one chunk; a finish comes alone. Raises what ended the generation."""
        try:
            async with asyncio.timeout_at(deadline):
                await self._news.wait()
        except TimeoutError:
            raise DeadlineExceeded(LATE) from None
        if deadline is not None and self._loop.time() > deadline:  # a reader may be later than the engine
            raise DeadlineExceeded(LATE)
        first = self._heard.popleft()
        if isinstance(first, MarginalError):
            raise first
        while first.finish is None and self._heard:
            more = self._heard[0]
            if isinstance(more, MarginalError) or more.finish is not None:
                break
            first = Chunk(first.tokens + more.tokens, more.usage)
            self._heard.popleft()
        if not self._heard:
            self._news.clear()
        return first

    def _hand(self, item: Chunk | MarginalError) -> None:
        try:
            self._loop.call_soon_threadsafe(self._take, item)
        except RuntimeError:  # the loop is closed: nobody will ever listen
            self._deaf.set()

    def _take(self, item: Chunk | MarginalError) -> None:
        self._heard.append(item)
        self._news.set()


async def _stopped(call: "Future[None]", hearer: _Hearer) -> None:
    """Stops the engine's call and joins it, so that its slot is free again."""
    hearer.stop()
    if not call.cancel():
        await asyncio.wrap_future(call)


def _trained_context(path: Path) -> int:
    found = read_header(path, keys=("context_length",))
    return next((value for value in found.values() if isinstance(value, int)), 0)


def _started(path: Path, settings: EngineSettings, *, context_tokens: int) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_parallel = settings.parallel
    params.n_ctx = context_tokens * settings.parallel
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings.threads
    params.ctx_shift = False
    params.no_extra_bufts = True  # repacked weights cost memory and time to load
    params.cache_ram_mib = 0
    params.force_pure_content_parser = True  # the text is what was generated, not a reading of it
    params.api_keys = [secrets.token_urlsafe(32)]  # the engine opens a port on the loopback, which nobody is to use
    params.n_threads_http = 1
    params.endpoint_metrics = True
    params.endpoint_props = params.endpoint_slots = params.ui = False
    params.verbosity = -1
    try:
        engine = xllamacpp.Server(params)
        engine.handle_metrics()  # answered once its loop runs: an engine that is freed before that hangs for ever
        return engine
    except (RuntimeError, ValueError) as error:
        raise ConfigurationError(
            f"model: the engine cannot load {path.name}, check that it is a whole GGUF file"
        ) from error
