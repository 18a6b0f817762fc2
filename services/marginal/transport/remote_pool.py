"""One tier behind several addresses: each request goes to the replica with the fewest streams under way.

Only ready ones are asked while there are any. One that fails before its first token is passed over, for this request at
once and for others a moment; after the first token nothing is asked twice. One that leaves gets no new streams and is
hung up on when its last has ended.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Protocol

from marginal.errors import DeadlineExceeded, Overloaded, TierUnavailable
from marginal.routing.ports import LanguageModel
from marginal.routing.presence import Presence
from marginal.tokens import Chunk, Generation, ModelDescription
from marginal.transport.accounted import Account, AccountedChunks, used_by

FIRST_SECONDS = 5.0
"""How long a call waits for the very first word on where the tier is."""

CONNECT_SECONDS = 5.0
"""How long a tier that was at zero still is to those who wait, while the first to come is not connected yet."""

TOGETHER_SECONDS = 0.2
"""How long those who wait are kept from the first that is connected, for others that came with it."""

LOOK_SECONDS = 0.02
PASSED_OVER_SECONDS = 1.0
MOST_TRIES = 3
OWN_FAULTS = (TierUnavailable, Overloaded)
"""What another replica may do better."""


class Connection(LanguageModel, Protocol):
    """A language model at one address."""

    @property
    def ready(self) -> bool:
        """Whether a call would go out at once; begins to connect when it would not."""
        ...

    async def close(self) -> None:
        """Ends every call."""
        ...


@dataclass(eq=False, slots=True)
class _Replica:
    """One address; times are of the running loop's clock."""

    connection: Connection
    under_way: int = 0
    asked: int = 0
    failed_at: float = -math.inf
    leaving: bool = False


class RemotePool:
    """The replicas of one tier as one LanguageModel."""

    def __init__(self, dial: Callable[[str], Connection]) -> None:
        """`dial` connects to an address, which may take its time and must not fail."""
        self.presence = Presence()
        self._dial = dial
        self._replicas: dict[str, _Replica] = {}
        self._known = asyncio.Event()
        self._asked = 0
        self._closing: set[asyncio.Task[None]] = set()
        self._waking: asyncio.Task[None] | None = None

    def are_now(self, addresses: frozenset[str]) -> None:
        """Takes every address that new streams may go to."""
        for address in addresses:
            replica = self._replicas.get(address)
            if replica is None:
                replica = self._replicas[address] = _Replica(self._dial(address))
            replica.leaving = False
            if self._known.is_set():
                _ = replica.connection.ready  # it came just now: connects before somebody has to wait for it
        for address, replica in list(self._replicas.items()):
            if address not in addresses:
                replica.leaving = True
                self._hang_up(address, replica)
        self._known.set()
        self._wake(anyone=bool(addresses))

    async def describe(self) -> ModelDescription:
        """Asks the replica that a request would go to, and others when it cannot be had.

        Raises ModelFault, DeadlineExceeded.
        """
        await self._until_known(FIRST_SECONDS)
        tried: set[str] = set()
        while True:
            address, replica = self._best(tried)
            tried.add(address)
            try:
                return await replica.connection.describe()
            except (*OWN_FAULTS, DeadlineExceeded):  # the time is each replica's own, not a caller's
                if len(tried) == MOST_TRIES or not self._others(tried):
                    raise

    def generate(self, generation: Generation, *, timeout: float | None = None) -> AccountedChunks:
        """Streams from one replica; when it fails before its first chunk, from another. Closing ends the stream."""
        return AccountedChunks(lambda account: self._generate(generation, timeout, account))

    async def _generate(
        self, generation: Generation, timeout: float | None, account: Account
    ) -> AsyncGenerator[Chunk, None]:
        now = asyncio.get_running_loop().time
        until = math.inf if timeout is None else now() + timeout
        if not self._known.is_set():
            await self._until_known(min(FIRST_SECONDS, until - now()))
        tried: set[str] = set()
        while True:
            address, replica = self._best(tried)
            tried.add(address)
            left = None if timeout is None else max(0.0, until - now())
            began, stream = False, replica.connection.generate(generation, timeout=left)
            try:
                with self._stream(address, replica):
                    async with aclosing(stream) as chunks:
                        async for chunk in chunks:
                            began = True
                            yield chunk
                return
            except OWN_FAULTS as fault:
                if isinstance(fault, TierUnavailable):
                    replica.failed_at = now()
                if began or len(tried) == MOST_TRIES or not self._others(tried):
                    raise
            finally:
                account.used = used_by(stream)

    async def close(self) -> None:
        """Ends every call."""
        for task in (*self._closing, self._waking):
            if task is not None:
                task.cancel()
        await asyncio.gather(*(replica.connection.close() for replica in self._replicas.values()))

    def under_way(self) -> dict[str, int]:
        """Streams under way at each address, those that are leaving included."""
        return {address: replica.under_way for address, replica in self._replicas.items()}

    def ready(self) -> int:
        """How many replicas a new stream could go to at once."""
        return sum(replica.connection.ready for replica in self._replicas.values() if not replica.leaving)

    def _staying(self) -> int:
        return sum(not replica.leaving for replica in self._replicas.values())

    def _wake(self, *, anyone: bool) -> None:
        """Says at once that nobody is there, and after zero that somebody is once a call would get through."""
        if not anyone or self.presence.anyone:
            if self._waking is not None:
                self._waking.cancel()
            self._waking = None
            self.presence.is_now(anyone=anyone)
        elif self._waking is None:
            self._waking = asyncio.create_task(self._until_connected())

    async def _until_connected(self) -> None:
        now = asyncio.get_running_loop().time
        until = now() + CONNECT_SECONDS
        first_at = math.inf
        while now() < min(until, first_at + TOGETHER_SECONDS):
            ready = self.ready()
            if ready and ready == self._staying():
                break
            if ready:
                first_at = min(first_at, now())
            await asyncio.sleep(LOOK_SECONDS)
        self._waking = None
        self.presence.is_now(anyone=True)

    @contextmanager
    def _stream(self, address: str, replica: _Replica) -> Iterator[None]:
        self._asked += 1
        replica.asked = self._asked
        replica.under_way += 1
        try:
            yield
        finally:
            replica.under_way -= 1
            if replica.leaving:
                self._hang_up(address, replica)

    def _best(self, tried: set[str]) -> tuple[str, _Replica]:
        found = [one for one in self._by_preference() if one[0] not in tried]
        if not found:
            raise _nobody()
        return found[0]

    def _others(self, tried: set[str]) -> bool:
        return any(address not in tried and not replica.leaving for address, replica in self._replicas.items())

    def _by_preference(self) -> list[tuple[str, _Replica]]:
        """Ready ones first, then those that did not fail just now, then by streams, then by who was asked last."""
        found = [(address, replica) for address, replica in self._replicas.items() if not replica.leaving]
        if len(found) == 1:
            return found
        lately = asyncio.get_running_loop().time() - PASSED_OVER_SECONDS

        def costs(one: tuple[str, _Replica]) -> tuple[bool, bool, int, int]:
            replica = one[1]
            return not replica.connection.ready, replica.failed_at > lately, replica.under_way, replica.asked

        return sorted(found, key=costs)

    def _hang_up(self, address: str, replica: _Replica) -> None:
        if replica.under_way == 0 and self._replicas.get(address) is replica:
            del self._replicas[address]
            self._later(replica.connection.close())

    def _later(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _until_known(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._known.wait()
        except TimeoutError:
            raise TierUnavailable("where it is has not been found out yet") from None


def _nobody() -> TierUnavailable:
    return TierUnavailable("no replica of it is there")
