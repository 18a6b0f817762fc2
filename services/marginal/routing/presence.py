"""Whether anybody of a tier is there: who waits for the first to come, and who asked in vain."""

import asyncio
from collections.abc import Callable

MOST_WAITING = 256
"""Further requests do not wait: a tier that just woke could not serve so many either."""

Told = Callable[[], None]


class Presence:
    """A tier that may be at zero. It is not down then: nobody has failed, and whoever wants it wakes it."""

    def __init__(self) -> None:
        """Somebody is there until it is said otherwise."""
        self.anyone = True
        self.waiting = 0
        """Requests that wait for the first to come."""
        self._came = asyncio.Event()
        self._told: list[Told] = []

    def is_now(self, *, anyone: bool) -> None:
        """Takes whether anybody is there; those who wait go on when there is."""
        self.anyone = anyone
        if anyone:
            self._came.set()
        else:
            self._came.clear()

    def tell(self, told: Told) -> None:
        """Calls `told` from now on whenever a request begins to wait, or asks in vain."""
        self._told.append(told)

    def missed(self) -> None:
        """Remembers a request that wanted the tier, does not wait, and is answered by another."""
        if not self.anyone:
            self._tell()

    def worth_waiting(self, seconds: float) -> bool:
        """Whether a request that may wait so long would be waited for."""
        return seconds > 0.0 and self.waiting < MOST_WAITING

    async def come(self, seconds: float) -> None:
        """Returns once somebody is there, or after `seconds`; whoever cannot wait has asked all the same."""
        if self.anyone:
            return
        if not self.worth_waiting(seconds):
            self._tell()
            return
        self.waiting += 1
        try:
            self._tell()
            async with asyncio.timeout(seconds):
                await self._came.wait()
        except TimeoutError:
            pass
        finally:
            self.waiting -= 1

    def _tell(self) -> None:
        for told in self._told:
            told()
