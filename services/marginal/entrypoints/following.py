"""Keeps something in force up with its files: a change is taken once two looks have seen the same.

What is wrong is refused, said once, and what was in force stays.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

from marginal.errors import ConfigurationError
from marginal.settings.text_files import SettingsFile
from marginal.telemetry import names
from marginal.telemetry.logs import Log
from marginal.telemetry.metrics import Metrics

LOOK_SECONDS = 0.5

Seen = TypeVar("Seen")
Meaning = TypeVar("Meaning")


class Followed(Generic[Seen]):
    """One thing that is read from files: `look` reads it, `take` puts it in force; both raise ConfigurationError."""

    def __init__(
        self, what: str, look: Callable[[], Seen], take: Callable[[Seen], object], *, log: Log, metrics: Metrics
    ) -> None:
        """Reads it and puts it in force. `what` names it in logs and metrics: "tenants", "keys"."""
        self._what = what
        self._look = look
        self._take = take
        self._log = log
        self._metrics = metrics
        self._refused = ""
        seen = look()
        take(seen)
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
            self._take(seen)
        except ConfigurationError as error:
            self._refuse(str(error))
        except Exception as error:  # whatever it is, the next version must still be looked at
            self._refuse(f"{self._what}: {type(error).__name__}")
        else:
            self._accepted()

    def _accepted(self) -> None:
        self._refused = ""
        self._metrics.reread(self._what, accepted=True)
        self._log.info(names.FILE_REREAD, what=self._what)

    def _refuse(self, why: str) -> None:
        if why == self._refused:
            return
        self._refused = why
        self._metrics.reread(self._what, accepted=False)
        self._log.warning(names.FILE_REFUSED, what=self._what, because=why, in_force=f"the {self._what} before")


def followed_file(
    what: str, file: SettingsFile[Meaning], take: Callable[[Meaning], None], log: Log, metrics: Metrics
) -> Followed[str]:
    """Follows a settings file; `take` puts in force what it means."""
    return Followed(what, file.text, lambda text: take(file.parse(text)), log=log, metrics=metrics)


@asynccontextmanager
async def following(*followed: Followed[Any]) -> AsyncIterator[None]:
    """Follows all of them meanwhile."""
    tasks = [asyncio.create_task(one.follow()) for one in followed]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
