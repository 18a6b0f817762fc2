"""An engine behind OpenAI's HTTP API: vLLM, SGLang, llama-server, or a closed one.

Which of them it is nobody has to say: what arrives is read, fields that one does not know are left out from then on.
"""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp

from marginal.backends.chat_events import ChatEvents
from marginal.backends.class_tokens import ClassTokens
from marginal.backends.engine_errors import complaint
from marginal.backends.http_calls import MOST_CONNECTIONS, Headers, HttpCalls, hang_up, refusal
from marginal.backends.openai_requests import ANSWER_LENGTH, MAX_ALTERNATIVES, Route, named, request, without
from marginal.backends.patience import Patience, Timeouts, unreachable
from marginal.backends.sse import EventStream
from marginal.errors import BackendProtocol, MarginalError, ModelFault, StreamInterrupted, TierUnavailable
from marginal.tokens import Chunk, FinishReason, Generation, ModelDescription, Token

DEFAULT_CONTEXT_TOKENS = 4096
DONE = "[DONE]"
EVENT_STREAM = "text/event-stream"
BYTES_PER_TOKEN = 4
"""By which the tokens of a prompt are estimated until the engine counts them."""

MOST_TRIES = 5
"""Requests for one generation while an engine names fields that it does not know."""

USAGE_SECONDS = 1.0
"""Longest wait for the usage after the finish."""


class OpenAICompatible:
    """A language model behind OpenAI's chat or completions route."""

    def __init__(
        self,
        base_url: str,
        *,
        model: str | None = None,
        route: Route | str = Route.CHAT,
        template: str = "{}",
        api_key_file: Path | None = None,
        ca_file: Path | None = None,
        extra_body: Mapping[str, Any] | None = None,
        headers: Headers | None = None,
        context_tokens: int | None = None,
        timeouts: Timeouts | None = None,
        connections: int = MOST_CONNECTIONS,
    ) -> None:
        """Connects to nothing yet. Raises ConfigurationError.

        `base_url` is with or without /v1. `model` None is the first one that the engine lists. On the completions route
        the user's message takes the place of {} in `template`. `extra_body` goes over the fields of every request;
        `headers` is called for each. `context_tokens` None is what the engine says, else 4096.
        """
        self._timeouts = timeouts or Timeouts()
        self._calls = HttpCalls(
            base_url,
            api_key_file=api_key_file,
            ca_file=ca_file,
            headers=headers,
            timeouts=self._timeouts,
            connections=connections,
        )
        self._model = model
        self._route = Route(route)
        self._template = template
        self._extra = dict(extra_body or {})
        self._context_tokens = context_tokens
        self._classes = ClassTokens(self._calls)
        self._refused: frozenset[str] = frozenset()

    async def describe(self) -> ModelDescription:
        """Names the model and its limits. Raises ModelFault when the engine cannot be reached."""
        if self._model is None or self._context_tokens is None:
            await self._learn()
        return ModelDescription(self._model or "", self._context_tokens or DEFAULT_CONTEXT_TOKENS, MAX_ALTERNATIVES)

    async def generate(self, generation: Generation, *, timeout: float | None = None) -> AsyncGenerator[Chunk, None]:
        """Keeps the promises of `LanguageModel.generate`; closing it cuts the connection at once."""
        patience = Patience(self._timeouts, timeout)
        if self._model is None:
            await patience.wait(self._learn())
        token_ids = await patience.wait(self._classes.of(generation, self._model or ""))
        body = self._body(generation, token_ids)
        events = ChatEvents(
            generation, input_tokens=_estimated(body), alternatives=MAX_ALTERNATIVES if token_ids else None
        )
        response = await self._answered(body, patience)
        try:
            stream = _Stream(response, patience)
            while not events.ended:
                chunk, failure = _read(events, await stream.next())
                if chunk is not None:
                    patience.token()
                    yield chunk
                if failure is not None:
                    raise failure
            if events.last.finish is not FinishReason.UNSURE:
                await stream.drain(events)
        finally:
            hang_up(response)
        patience.check()
        yield events.last

    async def close(self) -> None:
        """Closes every connection."""
        await self._calls.close()

    async def _learn(self) -> None:
        """Asks the engine which model it serves and how many tokens that holds."""
        status, listed = await self._calls.ask("/v1/models")
        card = _card(listed, self._model)
        if self._model is None:
            if status != HTTPStatus.OK or not isinstance(card.get("id"), str):
                raise _unnamed(status, listed)
            self._model = str(card["id"])
        if self._context_tokens is None:
            meta = card.get("meta")
            found = _whole(card.get("max_model_len")) or _whole(meta.get("n_ctx") if isinstance(meta, dict) else None)
            self._context_tokens = found or await self._slot_tokens()

    async def _slot_tokens(self) -> int | None:
        """What llama-server gives each of its slots; None from other engines."""
        _, props = await self._calls.ask("/props")
        settings = props.get("default_generation_settings") if isinstance(props, dict) else None
        return _whole(settings.get("n_ctx")) if isinstance(settings, dict) else None

    def _body(self, generation: Generation, token_ids: tuple[int, ...]) -> dict[str, Any]:
        body = request(
            generation, model=self._model or "", route=self._route, template=self._template, token_ids=token_ids
        )
        return without(body | self._extra | {"stream": True}, self._refused)

    async def _answered(self, body: dict[str, Any], patience: Patience) -> aiohttp.ClientResponse:
        """Asks, again without fields that the engine does not know, and for less when only less fits."""
        refused: frozenset[str] = frozenset()
        for _ in range(MOST_TRIES):
            response = await patience.wait(self._calls.post(self._route.path, body))
            try:
                if response.status == HTTPStatus.OK and response.content_type == EVENT_STREAM:
                    self._refused |= refused
                    return response
                why = await patience.wait(refusal(response))
            except BaseException:
                hang_up(response)
                raise
            hang_up(response)
            fields = named(why, body)
            if why.room is not None and why.room < _asked_for(body):
                body = _shortened(body, why.room)
            elif fields:
                refused |= fields
                body = without(body, fields)
            else:
                break
        if response.status == HTTPStatus.OK and not why.told:
            raise BackendProtocol("the engine answered without a stream of events: check its URL")
        raise why.error()


class _Stream:
    """The events of one answer as they come."""

    def __init__(self, response: aiohttp.ClientResponse, patience: Patience) -> None:
        self._content = response.content
        self._patience = patience
        self._events = EventStream()

    async def next(self) -> list[str]:
        """The data of the events that came since. Raises ModelFault, also at the stream's end, and DeadlineExceeded."""
        try:
            chunk = self._content.read_nowait()
        except Exception as error:  # whatever ended the connection, aiohttp keeps it here
            raise unreachable(error, begun=self._patience.begun) from None
        chunk = chunk or await self._patience.wait(self._content.readany())
        self._patience.check()
        if not chunk:
            raise _unfinished(begun=self._patience.begun)
        return self._events.feed(chunk)

    async def drain(self, events: ChatEvents) -> None:
        """Reads what the engine says about usage after the finish, to the end: the connection can be used again."""
        self._patience.at_most(USAGE_SECONDS)
        with suppress(MarginalError):
            while True:
                _read(events, await self.next())


def _read(events: ChatEvents, data: list[str]) -> tuple[Chunk | None, MarginalError | None]:
    """The tokens of several events as one chunk, and what went wrong behind them."""
    tokens: list[Token] = []
    failure: MarginalError | None = None
    try:
        for one in data:
            if one == DONE:
                if not events.ended:
                    raise _unfinished(begun=events.begun)
                break
            tokens += events.take(_event(one))
    except MarginalError as error:
        failure = None if events.ended else error
    return Chunk(tuple(tokens), events.usage) if tokens else None, failure


def _unfinished(*, begun: bool) -> ModelFault:
    kind = StreamInterrupted if begun else TierUnavailable
    return kind("the engine's stream ended without a finish")


def _event(data: str) -> dict[str, Any]:
    try:
        event = json.loads(data)
    except (ValueError, RecursionError):
        raise BackendProtocol("the engine sent an event that is not JSON") from None
    if not isinstance(event, dict):
        raise BackendProtocol("the engine sent an event that is not a JSON object")
    return event


def _card(listed: object, model: str | None) -> dict[str, Any]:
    """What an engine says about a model, the first of its list when that is None; empty when it says nothing."""
    data = listed.get("data") if isinstance(listed, dict) else None
    cards = [card for card in data if isinstance(card, dict)] if isinstance(data, list) else []
    return next((card for card in cards if model is None or card.get("id") == model), {})


def _unnamed(status: int, listed: object) -> MarginalError:
    if status == HTTPStatus.OK:
        return TierUnavailable("the engine lists no model: name it, and check the URL")
    return complaint(listed, status=status).error()


def _estimated(body: Mapping[str, Any]) -> int:
    """Tokens of a prompt by its bytes, at least 1."""
    texts = [body.get("prompt") or "", *(message["content"] for message in body.get("messages") or ())]
    return max(1, sum(len(str(text).encode(errors="replace")) for text in texts) // BYTES_PER_TOKEN)


def _asked_for(body: Mapping[str, Any]) -> int:
    return int(body.get("max_completion_tokens") or body.get(ANSWER_LENGTH) or 0)


def _shortened(body: Mapping[str, Any], room: int) -> dict[str, Any]:
    field = ANSWER_LENGTH if ANSWER_LENGTH in body else "max_completion_tokens"
    return {**body, field: room}


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
