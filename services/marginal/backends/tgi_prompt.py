"""How many tokens a prompt has for Text Generation Inference, which tells it with the last token of an answer only.

An answer that is cut has no last token. So the prompt is counted by `/tokenize` (`/chat_tokenize`) while the model
reads it. Where that has not answered before the first token a low guess stands, one token for every eight bytes, until
the engine tells; if it never does, one for every four. A count that was reported never falls.
"""

import asyncio
from types import TracebackType
from typing import Any, Self

import httpx2

from marginal.tokens import Generation

COUNTING_SECONDS = 0.25
"""The longest that a first token waits for the count of its prompt."""

LONGEST_COUNT_BYTES = 64 * 1024 * 1024
LOW_BYTES_PER_TOKEN = 8
BYTES_PER_TOKEN = 4


class PromptCount:
    """The count of one prompt, under way for as long as it is entered."""

    def __init__(self, connections: httpx2.AsyncClient, url: str, asked: Generation, *, native: bool) -> None:
        size = sum(len(message.text.encode()) for message in asked.messages)
        self.low = max(1, size // LOW_BYTES_PER_TOKEN)
        """What it is at first."""
        self.supposed = max(1, size // BYTES_PER_TOKEN)
        """What it is in the end when nobody told it."""
        self._connections = connections
        self._url = url + ("/tokenize" if native else "/chat_tokenize")
        self._body = {"inputs": asked.messages[0].text} if native else {"messages": conversation(asked)}
        self._native = native
        self._counting: asyncio.Task[int] | None = None

    async def __aenter__(self) -> Self:
        self._counting = asyncio.create_task(self._counted())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._counting is not None:
            self._counting.cancel()
            await asyncio.wait([self._counting])

    async def tokens(self, *, wait: bool) -> int:
        """The engine's count, 0 when there is none, or none yet; with `wait` it is given a moment."""
        counting = self._counting
        if counting is None:
            return 0
        if wait and not counting.done():
            await asyncio.wait([counting], timeout=COUNTING_SECONDS)
        return counting.result() if counting.done() else 0

    async def _counted(self) -> int:
        try:
            response = await self._connections.post(
                self._url, json=self._body, extensions={"longest_line_bytes": LONGEST_COUNT_BYTES}
            )
            told = response.raise_for_status().json()
            return len(told if self._native else told["tokenize_response"])
        except Exception:  # an engine without the route, or one that fails: the generation says how
            return 0


def conversation(asked: Generation) -> list[Any]:
    """Messages as the chat routes take them."""
    return [{"role": message.role.value, "content": message.text} for message in asked.messages]
