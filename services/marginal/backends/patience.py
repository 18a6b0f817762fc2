"""How long an engine is waited for, and what it means when nothing comes."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

import aiohttp

from marginal.errors import DeadlineExceeded, ModelFault, StreamInterrupted, TierUnavailable

LATE = "the deadline passed before the answer was complete"

READING_TURNS = 10
"""Turns of the event loop in which bytes that are there become an event that is read; aiohttp and httpx take two."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Longest waits in seconds: for a connection, for an answer's first token, for every further one."""

    connect_seconds: float = 5.0
    first_token_seconds: float = 60.0
    inter_token_seconds: float = 30.0


class Patience:
    """How long one generation waits for what is next: to the caller's deadline, or as long as an engine may take."""

    def __init__(self, timeouts: Timeouts, timeout: float | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._inter_token_seconds = timeouts.inter_token_seconds
        self._deadline = None if timeout is None else self._loop.time() + timeout
        self._due = self._loop.time() + timeouts.first_token_seconds
        self.begun = False
        """Whether a token came."""

    def token(self) -> None:
        """A token came, the next one is due anew."""
        self.begun = True
        self._due = self._loop.time() + self._inter_token_seconds

    def at_most(self, seconds: float) -> None:
        """What comes now is waited for no longer than this."""
        self._due = min(self._due, self._loop.time() + seconds)

    async def wait(self, answer: Awaitable[_T]) -> _T:
        """Waits for the engine. Raises DeadlineExceeded and ModelFault."""
        moment = self._due if self._deadline is None else min(self._due, self._deadline)
        try:
            async with _Until(moment):
                return await answer
        except aiohttp.ClientError as error:
            raise unreachable(error, begun=self.begun) from None
        except TimeoutError:
            self.check()
            raise self._fault() from None
        except OSError as error:
            raise unreachable(error, begun=self.begun) from None

    def check(self) -> None:
        """Raises DeadlineExceeded when the caller's deadline is past, however much has come."""
        if self._deadline is not None and self._loop.time() >= self._deadline:
            raise DeadlineExceeded(LATE)

    def _fault(self) -> ModelFault:
        if self.begun:
            return StreamInterrupted("the engine sent no further token in time")
        return TierUnavailable("the engine sent no first token in time")


def unreachable(error: BaseException, *, begun: bool) -> ModelFault:
    """What a failed connection means; `begun` says that part of the answer had come."""
    if begun:
        return StreamInterrupted("the connection to the engine broke")
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        return TierUnavailable("the engine's certificate is not trusted: check the CA file and the URL's host")
    return TierUnavailable("the engine cannot be reached, or does not answer")


class _Until:
    """As asyncio.timeout_at, but what has come by the moment is read: a loop that stood still is late for both."""

    def __init__(self, moment: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._limit = asyncio.timeout(None)
        self._next: asyncio.Handle = self._loop.call_at(moment, self._turn, READING_TURNS)

    async def __aenter__(self) -> None:
        await self._limit.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._next.cancel()
        await self._limit.__aexit__(kind, error, trace)

    def _turn(self, left: int) -> None:
        if left:
            self._next = self._loop.call_soon(self._turn, left - 1)
        else:
            self._limit.reschedule(self._loop.time())
