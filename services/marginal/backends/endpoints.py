"""One language model that several engines serve: each request goes to the one with the least to do.

An endpoint that keeps failing is left out for a while. A request that one of them failed before its first token goes to
another, within a budget; after the first token nothing is asked twice.
"""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from marginal.backends.ejection import Ejection, EjectionRules
from marginal.backends.retry_budget import RetryBudget
from marginal.errors import BackendProtocol, InvalidRequest, ModelFault, Overloaded, StreamInterrupted, TierUnavailable
from marginal.routing.ports import LanguageModel
from marginal.tokens import Chunk, Generation, ModelDescription

LIMIT = 256
OWN_FAULTS = (TierUnavailable, Overloaded, BackendProtocol)
"""What another endpoint may do better."""


async def _nothing() -> None:
    """Closes nothing."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One engine, and how its client is closed.

    Its name goes into logs, spans and metrics: never a URL, for that may hold a secret.
    """

    name: str
    model: LanguageModel
    close: Callable[[], Awaitable[None]] = _nothing


class EndpointObserver(Protocol):
    """Is told, in the context of the request that showed it, what became of an endpoint; nothing of it may raise.

    Endpoints are told by their names, `because` is an error's type or a few words of ours.
    """

    def retried(self, endpoint: str, *, other: str, because: str) -> None:
        """A request that one endpoint failed goes to another."""
        ...

    def retry_denied(self, endpoint: str) -> None:
        """A request that an endpoint failed could go to another, but no retry is left in the budget."""
        ...

    def ejected(self, endpoint: str, *, seconds: float, because: str) -> None:
        """An endpoint is left out for so long, for the first time or for longer."""
        ...

    def tried(self, endpoint: str, *, again: bool) -> None:
        """One request tries an endpoint that was left out; `again` when an earlier one has shown nothing."""
        ...

    def returned(self, endpoint: str) -> None:
        """An endpoint that was left out has answered and is asked as before."""
        ...

    def paused(self, endpoint: str) -> None:
        """An endpoint has begun to be left alone, as it asked."""
        ...


class Unobserved:
    """Takes note of nothing."""

    def retried(self, endpoint: str, *, other: str, because: str) -> None: ...

    def retry_denied(self, endpoint: str) -> None: ...

    def ejected(self, endpoint: str, *, seconds: float, because: str) -> None: ...

    def tried(self, endpoint: str, *, again: bool) -> None: ...

    def returned(self, endpoint: str) -> None: ...

    def paused(self, endpoint: str) -> None: ...


class Endpoints:
    """Several engines of the same model as one LanguageModel."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        *,
        limit: int = LIMIT,
        rules: EjectionRules | None = None,
        budget: RetryBudget | None = None,
        clock: Callable[[], float] = time.monotonic,
        observer: EndpointObserver | None = None,
    ) -> None:
        """At least one endpoint, `limit` requests under way at each; `clock` gives seconds."""
        self.endpoints = tuple(endpoints)
        self._limit = limit
        self._clock = clock
        self._observer = observer or Unobserved()
        self._ejection = Ejection(len(self.endpoints), rules or EjectionRules())
        self._budget = budget or RetryBudget()
        self._running = [0] * len(self.endpoints)
        self._turn = 0

    async def describe(self) -> ModelDescription:
        """Names the model and its limits, as the first endpoint in health that answers. Raises ModelFault."""
        healthy = self._ejection.open(self._clock())
        others = (index for index in range(len(self.endpoints)) if index not in healthy)
        fault: ModelFault | None = None
        for index in (*healthy, *others):
            try:
                return await self.endpoints[index].model.describe()
            except ModelFault as error:
                fault = error
        raise fault or TierUnavailable("there is no endpoint")

    async def generate(self, generation: Generation, *, timeout: float | None = None) -> AsyncGenerator[Chunk, None]:
        """Keeps the promises of `LanguageModel.generate`; raises Overloaded when every endpoint has its limit."""
        started, left = self._clock(), timeout
        self._budget.requested(started)
        chosen, tried = self._choose(()), set[int]()
        if chosen is None:
            raise self._full()
        while chosen is not None:
            attempt = _Attempt(self.endpoints[chosen].name, self._ejection, chosen, self._clock, self._observer)
            try:
                with self._counted(chosen), attempt.watched():
                    async with aclosing(self.endpoints[chosen].model.generate(generation, timeout=left)) as chunks:
                        async for chunk in chunks:
                            attempt.answered()
                            yield chunk
                return
            except OWN_FAULTS as error:
                tried.add(chosen)
                if timeout is not None:
                    left = timeout - (self._clock() - started)
                if attempt.begun or (left is not None and left <= 0):
                    raise
                chosen = self._another(tried, failed=attempt.name, because=type(error).__name__)
                if chosen is None:
                    raise

    async def close(self) -> None:
        """Closes every endpoint."""
        await asyncio.gather(*(endpoint.close() for endpoint in self.endpoints))

    def _choose(self, tried: Collection[int]) -> int | None:
        """The endpoint with the fewest requests under way, in turn when several have; None when all are taken."""
        count = len(self.endpoints)
        free = [
            index
            for index in self._ejection.open(self._clock())
            if index not in tried and self._running[index] < self._limit
        ]
        if not free:
            return None
        chosen = min(free, key=lambda index: (self._running[index], (index - self._turn) % count))
        self._turn = chosen + 1
        return chosen

    def _another(self, tried: Collection[int], *, failed: str, because: str) -> int | None:
        """Where to repeat a request; None when there is nowhere, or no retry left."""
        turn = self._turn
        chosen = self._choose(tried)
        if chosen is None:
            return None
        if not self._budget.take(self._clock()):
            self._turn = turn
            self._observer.retry_denied(failed)
            return None
        self._observer.retried(failed, other=self.endpoints[chosen].name, because=because)
        return chosen

    @contextmanager
    def _counted(self, index: int) -> Iterator[None]:
        """Holds a place at an endpoint until its stream is closed, not until its reader is gone."""
        self._running[index] += 1
        try:
            yield
        finally:
            self._running[index] -= 1

    def _full(self) -> Overloaded:
        wait = self._ejection.paused_seconds(self._clock())
        if wait:
            return Overloaded(
                f"every endpoint asked to be left alone, the first for {wait:.3g} s more", retry_seconds=wait
            )
        return Overloaded(f"every endpoint has {self._limit} requests under way, retry shortly")


class _Attempt:
    """One call of one endpoint, and what it says about the endpoint's health."""

    def __init__(
        self, name: str, ejection: Ejection, index: int, clock: Callable[[], float], observer: EndpointObserver
    ) -> None:
        self.name = name
        self.begun = False
        self._observer = observer
        self._ejection = ejection
        self._clock = clock
        self._started = clock()
        self._ticket = ejection.begun(index, self._started)
        if self._ticket.trial:
            observer.tried(name, again=self._ticket.again)

    def answered(self) -> None:
        """A chunk came."""
        if not self.begun:
            self.begun = True
            if self._ejection.answered(self._ticket):
                self._observer.returned(self.name)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Tells the endpoint's health how the block ended; every exception passes."""
        try:
            yield
        except (*OWN_FAULTS, StreamInterrupted) as error:
            wait = _retry_seconds(error)
            if wait is None:
                self._failed(type(error).__name__)
            elif self._ejection.paused(self._ticket, self._clock(), wait):
                self._observer.paused(self.name)
            raise
        except InvalidRequest:
            self._ejection.dropped(self._ticket)
            raise
        except BaseException:  # late, closed by its reader, or cancelled with him
            self._ended()
            raise
        else:
            self._ended()

    def _ended(self) -> None:
        silent = self._clock() - self._started
        if self.begun:
            self._ejection.succeeded(self._ticket)
        elif silent >= self._ejection.rules.silence_seconds:
            self._failed(f"silent for {silent:.3g} s")
        else:
            self._ejection.dropped(self._ticket)

    def _failed(self, how: str) -> None:
        seconds = self._ejection.failed(self._ticket, self._clock())
        if seconds is not None:
            self._observer.ejected(self.name, seconds=seconds, because=how)


def address(url: str) -> str:
    """Host and port of a URL, which is all that may be shown of it: user, password, path and query may be secrets."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "unknown", parts.port
    except ValueError:
        return "unknown"
    host = f"[{host}]" if ":" in host else host
    return f"{host}:{port or {'https': 443}.get(parts.scheme, 80)}"


def _retry_seconds(error: ModelFault) -> float | None:
    """How long an overloaded endpoint asks to be left alone; None when it does not say, or no time that can be."""
    seconds = error.retry_seconds if isinstance(error, Overloaded) else None
    return seconds if seconds is not None and math.isfinite(seconds) and seconds >= 0 else None
