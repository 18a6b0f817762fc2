"""Text Generation Inference as a language model, through Hugging Face's own client.

Text Generation Inference is in maintenance mode: it gets small fixes only, and its makers recommend vLLM, SGLang or
llama.cpp for anything new. What runs on it today works here, on two routes: `native` takes the one message of a user as
the bare prompt, without the model's chat template; conversations, and everything with route `chat`, go to its chat API.
Its log-probabilities are those after temperature and top-p.
"""

import contextlib
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from enum import Enum
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar, cast

import httpx2
from huggingface_hub import ChatCompletionInputStreamOptions

from marginal.backends.engine_errors import Complaint
from marginal.backends.http_calls import FACTS_SECONDS, MOST_CONNECTIONS, Headers
from marginal.backends.patience import Patience, Timeouts
from marginal.backends.tgi_connection import EngineClient, opened
from marginal.backends.tgi_events import TgiEvents
from marginal.backends.tgi_faults import Raised, complained, fault
from marginal.backends.tgi_prompt import PromptCount, conversation
from marginal.errors import (
    BackendProtocol,
    ConfigurationError,
    InvalidRequest,
    ModelFault,
    StreamInterrupted,
    TierUnavailable,
)
from marginal.tokens import Chunk, FinishReason, Generation, ModelDescription, Role

MAX_TOP_N_TOKENS = 5
"""Alternatives that an engine gives unless it was started with another --max-top-n-tokens."""

USAGE_SECONDS = 1.0
"""Longest wait for the usage after the finish."""

MOST_TRIES = 3
"""Requests for one generation: as it is, with fewer alternatives, with a shorter answer."""

_FEWER_ALTERNATIVES = re.compile(r"`top_n_tokens` must be >= 0 and <= (\d{1,3})")
_NATIVE_FIELDS = frozenset(
    (
        "adapter_id",
        "frequency_penalty",
        "grammar",
        "repetition_penalty",
        "stop",
        "top_k",
        "truncate",
        "typical_p",
        "watermark",
    )
)
_T = TypeVar("_T")


class Route(Enum):
    """Which of the engine's two routes is asked."""

    NATIVE = "native"
    CHAT = "chat"


class TextGenerationInference:
    """A language model behind Text Generation Inference."""

    def __init__(
        self,
        base_url: str,
        *,
        model: str | None = None,
        route: Route | str = Route.NATIVE,
        api_key_file: Path | None = None,
        ca_file: Path | None = None,
        extra_body: Mapping[str, Any] | None = None,
        headers: Headers | None = None,
        context_tokens: int | None = None,
        timeouts: Timeouts | None = None,
        connections: int = MOST_CONNECTIONS,
        alternatives: int = MAX_TOP_N_TOKENS,
    ) -> None:
        """Connects to nothing yet. Raises ConfigurationError.

        `model` is a name of one's own, None the engine's. `extra_body` are further parameters of every request;
        `headers` is called for each. `context_tokens` None is what the engine says. `alternatives` are the most that it
        gives, its --max-top-n-tokens.
        """
        self._timeouts = timeouts or Timeouts()
        self._url = base_url.rstrip("/")
        self._name = model
        self._route = Route(route)
        self._extra = dict(extra_body or {})
        if self._route is Route.NATIVE and (unknown := set(self._extra) - _NATIVE_FIELDS):
            raise ConfigurationError(f"extra_body: TGI's native route takes no {', '.join(sorted(unknown))}")
        self._context_tokens = context_tokens
        self._alternatives = alternatives
        self._connections = opened(
            api_key_file=api_key_file, ca_file=ca_file, headers=headers, timeouts=self._timeouts, most=connections
        )

    async def describe(self) -> ModelDescription:
        """Names the model and its limits, which `/info` tells. Raises ModelFault when the engine cannot be reached."""
        if self._name is None or self._context_tokens is None:
            info = await self._info()
            limit, name = info.get("max_total_tokens"), info.get("model_id")
            if not isinstance(limit, int) or not isinstance(name, str):
                raise BackendProtocol("the engine's /info does not tell its model and max_total_tokens")
            self._name, self._context_tokens = self._name or name, self._context_tokens or limit
        return ModelDescription(self._name, self._context_tokens, self._alternatives)

    async def generate(self, generation: Generation, *, timeout: float | None = None) -> AsyncGenerator[Chunk, None]:
        """Keeps the promises of `LanguageModel.generate`; closing it cuts the connection at once.

        No more alternatives come than the engine gives.
        """
        patience, asked = Patience(self._timeouts, timeout), generation
        for _ in range(MOST_TRIES):
            try:
                async with aclosing(self._answer(asked, patience)) as chunks:
                    async for chunk in chunks:
                        yield chunk
                return
            except Raised as raised:
                said = None if patience.begun else complained(raised.error)
                changed = None if said is None else await self._changed(asked, said)
                if changed is None:
                    raise fault(raised.error, begun=patience.begun) from None
            asked = changed
        raise TierUnavailable("the engine contradicts itself about what it takes")

    async def close(self) -> None:
        """Closes every connection."""
        await self._connections.aclose()

    async def _answer(self, asked: Generation, patience: Patience) -> AsyncGenerator[Chunk, None]:
        """One try. Raises Raised with what the client raised."""
        native = self._route is Route.NATIVE and [message.role for message in asked.messages] == [Role.USER]
        prompt = PromptCount(self._connections, self._url, asked, native=native)
        events = TgiEvents(asked, low=prompt.low, supposed=prompt.supposed)
        read: Callable[[Any], Chunk | None] = events.native if native else events.chat
        url = f"{self._url}/generate_stream" if native else self._url
        async with prompt, EngineClient(url, self._connections) as client:
            begin = self._native_stream(client, asked) if native else self._chat_stream(client, asked)
            async with aclosing(await patience.wait(_hear(begin))) as stream:
                while events.finish is not FinishReason.UNSURE:
                    event = await _next(stream, events, patience)
                    if event is None:
                        break
                    events.counted(await prompt.tokens(wait=not patience.begun))
                    if (chunk := read(event)) is not None:
                        patience.token()
                        yield chunk
        patience.check()
        yield events.last

    async def _native_stream(self, client: EngineClient, asked: Generation) -> AsyncGenerator[Any, None]:
        sampling, alternatives = asked.sampling, min(asked.alternatives, self._alternatives)
        warm = sampling.temperature > 0.0
        stream = await client.text_generation(
            asked.messages[0].text,
            model=client.model,
            stream=True,
            details=True,
            max_new_tokens=sampling.max_tokens,
            do_sample=True if warm else None,
            temperature=sampling.temperature if warm else None,
            top_p=sampling.top_p if warm and sampling.top_p < 1.0 else None,
            seed=None if sampling.seed is None else sampling.seed % 2**63,
            top_n_tokens=alternatives or None,
            **self._extra,
        )
        return cast(AsyncGenerator[Any, None], stream)

    async def _chat_stream(self, client: EngineClient, asked: Generation) -> AsyncGenerator[Any, None]:
        sampling, alternatives = asked.sampling, min(asked.alternatives, self._alternatives)
        stream = await client.chat_completion(
            conversation(asked),
            stream=True,
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p if sampling.top_p < 1.0 else None,
            seed=None if sampling.seed is None else sampling.seed % 2**63,
            logprobs=True if alternatives else None,
            top_logprobs=alternatives or None,
            stream_options=ChatCompletionInputStreamOptions(include_usage=True),
            extra_body=self._extra,
        )
        return cast(AsyncGenerator[Any, None], stream)

    async def _changed(self, asked: Generation, said: Complaint) -> Generation | None:
        """The request such that the engine takes it, None when nothing helps. Raises InvalidRequest for its prompt."""
        fewer = _FEWER_ALTERNATIVES.search(said.words)
        if fewer is not None and int(fewer[1]) < min(self._alternatives, asked.alternatives):
            self._alternatives = int(fewer[1])
            return asked
        if said.prompt_tokens is None or said.status != HTTPStatus.UNPROCESSABLE_ENTITY:
            return None
        if said.room is not None and said.room < asked.sampling.max_tokens:
            return replace(asked, sampling=replace(asked.sampling, max_tokens=said.room))
        holds = said.context_tokens
        with contextlib.suppress(ModelFault):  # the limit it complains of is that of prompts, which is less
            holds = (await self.describe()).context_tokens
        raise InvalidRequest("messages", f"the prompt has {said.prompt_tokens} tokens, the model holds {holds}")

    async def _info(self) -> dict[str, Any]:
        patience = Patience(replace(self._timeouts, first_token_seconds=FACTS_SECONDS), None)
        try:
            response = await patience.wait(_hear(self._connections.get(f"{self._url}/info")))
            return dict(response.raise_for_status().json())
        except Raised as raised:
            raise fault(raised.error, begun=False) from None
        except (httpx2.HTTPError, ValueError, TypeError) as error:
            raise fault(error, begun=False) from None


async def _next(stream: AsyncGenerator[Any, None], events: TgiEvents, patience: Patience) -> Any:
    """The next event; None at the end of an answer that has a finish, whatever becomes of its connection then."""
    if events.finish is not None:
        patience.at_most(USAGE_SECONDS)
        with contextlib.suppress(Raised, ModelFault):
            return await patience.wait(_hear(anext(stream, None)))
        return None
    event = await patience.wait(_hear(anext(stream, None)))
    if event is None:
        broken = StreamInterrupted if patience.begun else TierUnavailable
        raise broken("the engine's stream ended before its answer did")
    return event


async def _hear(answer: Awaitable[_T]) -> _T:
    """Tells what the client raises, which calls itself an OSError and a TimeoutError, from what the waiting does."""
    try:
        return await answer
    except Exception as error:
        raise Raised(error) from None
