"""Keeps something in force up with its files: a change is taken once two looks have seen the same.

What is wrong is refused, said once, and what was in force stays.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Generic, Protocol, TypeVar

from marginal.errors import ConfigurationError
from marginal.settings.text_files import SettingsFile
from marginal.telemetry import names
from marginal.telemetry.logs import Log
from marginal.telemetry.metrics import Metrics

LOOK_SECONDS = 0.5

Seen = TypeVar("Seen")
Meaning = TypeVar("Meaning")


class Told(Protocol):
    """Who hears what became of a change: it is in force, or why it is not, the same reason once."""

    def accepted(self) -> None: ...

    def refused(self, why: str) -> None: ...


class Rereads:
    """Tells logs and metrics, by what the file holds: "tenants", "keys"."""

    def __init__(self, what: str, log: Log, metrics: Metrics) -> None:
        self._what = what
        self._log = log
        self._metrics = metrics

    def accepted(self) -> None:
        self._metrics.reread(self._what, accepted=True)
        self._log.info(names.FILE_REREAD, what=self._what)

    def refused(self, why: str) -> None:
        self._metrics.reread(self._what, accepted=False)
        self._log.warning(names.FILE_REFUSED, what=self._what, because=why, in_force=f"the {self._what} before")


class Followed(Generic[Seen, Meaning]):
    """One thing that is read from files: `look` reads, `parse` finds what that means, `take` puts it in force.

    The first two run in a thread: long files hold nobody up. Each may raise ConfigurationError.
    """

    def __init__(
        self,
        what: str,
        look: Callable[[], Seen],
        parse: Callable[[Seen], Meaning],
        take: Callable[[Meaning], object],
        told: Told,
    ) -> None:
        """Reads it and puts it in force, here and now. `what` is named when what goes wrong was not foreseen."""
        self._what = what
        self._look = look
        self._parse = parse
        self._take = take
        self._told = told
        self._refused = ""
        seen = look()
        take(parse(seen))
        self._in_force: Seen | None = seen
        self._before: Seen | None = seen

    async def follow(self) -> None:
        """Looks again and again, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look_again()

    async def look_again(self) -> None:
        """Takes what changed, when the look before saw the same already."""
        try:
            seen = await asyncio.to_thread(self._look)
        except ConfigurationError as error:
            self._before = self._in_force = None
            self._refuse(str(error))
            return
        settled, self._before = seen == self._before, seen
        if not settled or seen == self._in_force:
            return
        self._in_force = seen
        try:
            self._take(await asyncio.to_thread(self._parse, seen))
        except ConfigurationError as error:
            self._refuse(str(error))
        except Exception as error:  # whatever it is, the next version must still be looked at
            self._refuse(f"{self._what}: {type(error).__name__}")
        else:
            self._refused = ""
            self._told.accepted()

    def _refuse(self, why: str) -> None:
        if why != self._refused:
            self._refused = why
            self._told.refused(why)


def followed_file(
    what: str, file: SettingsFile[Meaning], take: Callable[[Meaning], None], log: Log, metrics: Metrics
) -> Followed[str, Meaning]:
    """Follows a settings file; `take` puts in force what it means."""
    return Followed(what, file.text, file.parse, take, Rereads(what, log, metrics))


@asynccontextmanager
async def following(*followed: Followed[Any, Any]) -> AsyncIterator[None]:
    """Follows all of them meanwhile."""
    tasks = [asyncio.create_task(one.follow()) for one in followed]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
