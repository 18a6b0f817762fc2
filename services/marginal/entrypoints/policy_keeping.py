"""Keeps a router's policies up with their file, and what their rules learn in a state file and in the routers' store.

A file that changes is put in force all at once; one that is wrong is refused, and what was in force stays. The state
file is written whole beside its place and moved there, so a crash leaves the last good one. It is what a router starts
from while the store is away; of both, what rests on more lessons counts.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from marginal.entrypoints.following import Followed, following
from marginal.errors import ConfigurationError
from marginal.ledger.ports import StoreAway
from marginal.ledger.shared_learning import LearnedTexts, Lessons, SharedLearning
from marginal.routing.book import PolicyBook
from marginal.routing.overview import Source
from marginal.routing.policies import Policies
from marginal.settings.policy_file import policies_file
from marginal.telemetry import names
from marginal.telemetry.logs import Log
from marginal.telemetry.metrics import Metrics
from marginal.whole_files import write_whole

SAVE_SECONDS = 5.0
STATE_VERSION = 1
BUNDLED = "bundled"
ANEW = "thresholds start anew"


class PolicyKeeper:
    """The policy book of one router, with the file it comes from and the one it is remembered in.

    What became of a change of the first it is `Told`.
    """

    def __init__(self, policy_file: Path | None, state_file: Path | None, *, log: Log, metrics: Metrics) -> None:
        """Reads both. Raises ConfigurationError for a bad policy file; a bad state file is told and set aside."""
        self._state_file = state_file
        self._log = log
        self._metrics = metrics
        self._saved = 0
        file = policies_file(policy_file)
        self.book = PolicyBook(file.read())
        self._lessons = Lessons(self.book)
        self._unshared = False
        self.source = Source(str(policy_file or BUNDLED), time.time())
        self._followed = (
            [Followed(f"policy file {policy_file}", file.text, file.parse, self._take, self)] if policy_file else []
        )
        self._restore()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follows the file and saves the state meanwhile, and once more at the end."""
        saving = asyncio.create_task(self._save_again())
        try:
            async with following(*self._followed):
                yield
        finally:
            saving.cancel()
            await asyncio.gather(saving, return_exceptions=True)
            await self.save()

    @asynccontextmanager
    async def sharing(self, texts: LearnedTexts) -> AsyncIterator[None]:
        """Goes on from what other routers have learnt and lets them know meanwhile; a store that is away may come."""
        shared = SharedLearning(texts, self._lessons)
        await self._exchange(shared)
        task = asyncio.create_task(self._exchange_again(shared))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self._exchange(shared)

    async def _exchange_again(self, shared: SharedLearning) -> None:
        while True:
            await asyncio.sleep(SAVE_SECONDS)
            await self._exchange(shared)

    async def _exchange(self, shared: SharedLearning) -> None:
        """Tells of a store that is away once, and that it is back."""
        try:
            taken = await shared.exchange()
        except StoreAway as error:
            if not self._unshared:
                self._log.warning("thresholds are not shared now", because=str(error))
            self._unshared = True
            return
        if taken or self._unshared:
            self._log.info("thresholds shared", learners=taken)
        self._unshared = False

    def _take(self, policies: Policies) -> None:
        """Puts policies in force. Raises ConfigurationError for another currency: budgets are counted in the first."""
        if policies.currency != self.book.policies.currency:
            raise ConfigurationError(
                f"policy file {self.source.name}: currency: is {policies.currency}, but budgets are counted in"
                f" {self.book.policies.currency}: restart the router"
            )
        self.book.replace(policies)

    def accepted(self) -> None:
        self.source = Source(self.source.name, time.time())
        self._metrics.reloaded(accepted=True)
        versions = {name: policy.version for name, policy in self.book.policies.by_name.items()}
        self._log.info(names.POLICIES_RELOADED, file=self.source.name, versions=versions)

    def refused(self, why: str) -> None:
        self.source = replace(self.source, refused=why)
        self._metrics.reloaded(accepted=False)
        self._log.warning(names.POLICIES_REFUSED, because=why, in_force="the policies before")

    def _restore(self) -> None:
        if self._state_file is None or not self._state_file.exists():
            return
        try:
            saved = json.loads(self._state_file.read_text("utf-8"))
            if saved["version"] != STATE_VERSION:
                raise ValueError
            restored = self._lessons.restore(saved["learners"])
        except OSError as error:
            self._log.warning(ANEW, file=str(self._state_file), because=error.strerror)
        except (ArithmeticError, AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
            with suppress(OSError):
                self._state_file.replace(self._state_file.with_suffix(".unreadable"))
            self._log.warning(ANEW, file=str(self._state_file), because=f"not one of ours: {type(error).__name__}")
        else:
            self._log.info("thresholds restored", file=str(self._state_file), learners=restored)

    async def _save_again(self) -> None:
        while self._state_file is not None:
            await asyncio.sleep(SAVE_SECONDS)
            await self.save()

    async def save(self) -> None:
        """Writes the state file, when there is one and something was learnt since."""
        if self._state_file is None or self._saved == (lessons := self.book.lessons):
            return
        state: dict[str, Any] = {"version": STATE_VERSION, "learners": self._lessons.snapshot()}
        try:
            await asyncio.to_thread(_write_state, self._state_file, state)
        except OSError as error:
            self._log.warning("thresholds were not saved", file=str(self._state_file), because=error.strerror)
            return
        self._saved = lessons


def _write_state(path: Path, state: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(state))
