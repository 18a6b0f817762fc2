"""How an engine behaves where a language model hides it: who counts its tokens, and whether a cancel stops it."""

import asyncio
import contextlib
import json
import time
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from typing import Any

import aiohttp

from marginal.backends.engine_errors import Complaint
from marginal.backends.engine_facts import Dialect, EngineFacts
from marginal.backends.http_calls import HttpCalls, hang_up, refusal
from marginal.backends.openai_requests import Route, named, request, without
from marginal.backends.sse import EventStream
from marginal.errors import MarginalError
from marginal.routing.ports import LanguageModel
from marginal.tokens import Generation, Message, Role, Sampling

SHORT = Generation(messages=(Message(Role.USER, "hello"),), sampling=Sampling(max_tokens=8), alternatives=2)
ENDLESS = Generation(
    messages=(Message(Role.USER, "count slowly from one to one thousand"),),
    sampling=Sampling(max_tokens=2048),
)
"""An answer that is long enough to be cancelled."""

TRIES = 4
ANSWER_SECONDS = 30.0
STOP_SECONDS = 5.0
"""An engine that still runs so long after a cancel does not honour it."""

POLL_SECONDS = 0.001
TOKENS_BEFORE = 2


class Counting(Enum):
    """When an engine tells what it counted; the value is for programs."""

    EVERY_CHUNK = "every_chunk"
    AT_THE_END = "at_the_end"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Usage:
    """Who counts: when the engine does, and whether it tells how much of the prompt was cached.

    `events` are the tokens of each event of an answer, by their log-probabilities; none are known without.
    """

    counting: Counting
    cached: bool = False
    events: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Stop:
    """What became of a cancelled answer.

    `milliseconds` from the cancel until the engine's own `source` counted nothing, rounded up by one look at it; None
    with `still_running` is an engine that went on for STOP_SECONDS, and with `unseen` one at which it cannot be seen.
    """

    milliseconds: float | None = None
    source: str | None = None
    still_running: bool = False
    unseen: str | None = None


async def usage_in_stream(facts: EngineFacts, route: str, model: str) -> Usage | None:
    """When the engine tells its counts in an answer of a few tokens; None when it gives none. Raises nothing."""
    with contextlib.suppress(MarginalError, aiohttp.ClientError, OSError, ValueError):
        async with asyncio.timeout(ANSWER_SECONDS):
            events = await _events(facts.calls, route, model)
            return _usage(events) if events else None
    return None


async def time_to_stop(facts: EngineFacts, dialect: Dialect, model: LanguageModel) -> Stop:
    """Cancels a long answer and watches the engine until it is idle; raises nothing that the model raises."""
    before = await facts.load(dialect)
    if before is None:
        return Stop(unseen="the engine shows no counter")
    if before.running:
        return Stop(source=before.source, unseen="the engine has other requests")
    try:
        running = await _cancelled(facts, dialect, model)
    except MarginalError as error:
        return Stop(source=before.source, unseen=f"no long answer: {error}")
    if not running:
        return Stop(source=before.source, unseen="the answer ended before it could be cancelled")
    started = time.perf_counter()
    while time.perf_counter() - started < STOP_SECONDS:
        load = await facts.load(dialect)
        if load is not None and not load.running:
            return Stop(1_000 * (time.perf_counter() - started), load.source)
        await asyncio.sleep(POLL_SECONDS)
    return Stop(source=before.source, still_running=True)


async def _cancelled(facts: EngineFacts, dialect: Dialect, model: LanguageModel) -> bool:
    """Begins an answer, cancels it, and says whether the engine was seen at it just before."""
    async with aclosing(model.generate(ENDLESS, timeout=ANSWER_SECONDS)) as stream:
        seen = 0
        async for chunk in stream:
            seen += len(chunk.tokens)
            if chunk.finish is not None:
                return False
            if seen >= TOKENS_BEFORE:
                load = await facts.load(dialect)
                return load is not None and load.running > 0
    return False


async def _events(calls: HttpCalls, route: str, model: str) -> list[Mapping[str, Any]]:
    """All events of an answer, asked without what the engine refuses."""
    path, body = _question(route, model)
    for _ in range(TRIES):
        response = await calls.post(path, body)
        try:
            if response.status == HTTPStatus.OK:
                return await _read(response)
            why: Complaint = await refusal(response)
        finally:
            hang_up(response)
        fields = named(why, body)
        if not fields:
            break
        body = without(body, fields)
    return []


def _question(route: str, model: str) -> tuple[str, dict[str, Any]]:
    if route == "native":
        parameters = {"max_new_tokens": SHORT.sampling.max_tokens, "details": True}
        return "/generate_stream", {"inputs": SHORT.messages[0].text, "parameters": parameters}
    asked = Route(route)
    return asked.path, request(SHORT, model=model, route=asked, template="{}")


async def _read(response: aiohttp.ClientResponse) -> list[Mapping[str, Any]]:
    stream, events = EventStream(), list[Mapping[str, Any]]()
    async for piece in response.content.iter_any():
        for data in stream.feed(piece):
            event = json.loads(data) if data.startswith("{") else None
            if isinstance(event, dict):
                events.append(event)
    return events


def _usage(events: list[Mapping[str, Any]]) -> Usage:
    told = [event for event in events if _counts(event)]
    answering = [event for event in events if _answers(event)]
    every = len(answering) > 1 and all(map(_counts, answering[:-1]))
    counting = Counting.EVERY_CHUNK if every else Counting.AT_THE_END if told else Counting.NEVER
    sizes = tuple(size for size in map(_tokens, events) if size)
    return Usage(counting, any(map(_tells_cached, told)), sizes)


def _tokens(event: Mapping[str, Any]) -> int:
    """The tokens of an event: TGI's one, or as many as it has rows of log-probabilities."""
    if "token" in event:
        return 1
    rows = [choice.get("logprobs") or {} for choice in event.get("choices") or ()]
    return sum(len(row.get("content") or row.get("tokens") or ()) for row in rows)


def _counts(event: Mapping[str, Any]) -> bool:
    """Whether an event holds the engine's count of the prompt: OpenAI's, llama.cpp's or TGI's."""
    found = [
        (event.get("usage") or {}).get("prompt_tokens"),
        (event.get("timings") or {}).get("prompt_n"),
        (event.get("details") or {}).get("input_length"),
    ]
    return any(isinstance(count, int) and count > 0 for count in found)


def _tells_cached(event: Mapping[str, Any]) -> bool:
    details = (event.get("usage") or {}).get("prompt_tokens_details") or {}
    return "cached_tokens" in details or "cache_n" in (event.get("timings") or {})


def _answers(event: Mapping[str, Any]) -> bool:
    """Whether an event brings text."""
    if "token" in event:
        return True
    choices = event.get("choices") or ()
    return any((choice.get("delta") or {}).get("content") or choice.get("text") for choice in choices)
