"""A tier's places and the short line in front of them: who waits, who goes next, who is sent away.

A line does not add capacity, it only evens out arrivals: it is short, nobody stands in it for long, and whoever is sent
away hears so at once. There are no polls: a place that is given back is handed to whoever goes next.
"""

import asyncio
import math
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from marginal.errors import Overloaded
from marginal.routing.requests import Criticality

Waiter = asyncio.Future[bool]
"""Resolves to whether a place was handed over; if not, its owner is sent away."""

GO_FIRST = (Criticality.CRITICAL, Criticality.SHEDDABLE)


class Limit(Protocol):
    """How many places there are; it learns from what becomes of those who had one."""

    @property
    def limit(self) -> int: ...
    def begun(self, under_way: int) -> int: ...
    def answered(self, era: int, seconds: float) -> None: ...
    def dropped(self, era: int) -> None: ...


@dataclass(frozen=True, slots=True)
class WaitingRules:
    """How long the line is and how long one stands in it.

    At most `seconds`, and `deadline_share` of what is left of the request's time; only `hasty_seconds` when one as
    critical was sent away in the last `calm_seconds`: in overload it is better to hear so at once. At most `per_place`
    waiters for each place. `newest_first` serves the one who came last; `retry_seconds` is told to those sent away.
    """

    seconds: float = 0.3
    deadline_share: float = 0.25
    hasty_seconds: float = 0.02
    calm_seconds: float = 1.0
    per_place: float = 4.0
    newest_first: bool = False
    retry_seconds: float = 1.0


class Line:
    """Waiters in the order they go: critical ones first; each step takes the same time however many there are."""

    def __init__(self, *, newest_first: bool) -> None:
        self._newest_first = newest_first
        self._waiters: dict[Criticality, OrderedDict[Waiter, None]] = {each: OrderedDict() for each in GO_FIRST}

    def __len__(self) -> int:
        return sum(map(len, self._waiters.values()))

    def join(self, waiter: Waiter, criticality: Criticality) -> None:
        """Stands a waiter in the line."""
        self._waiters[criticality][waiter] = None

    def is_anyone_after(self, criticality: Criticality) -> bool:
        """Whether somebody less critical waits."""
        return criticality is Criticality.CRITICAL and bool(self._waiters[Criticality.SHEDDABLE])

    def leave(self, waiter: Waiter, criticality: Criticality) -> None:
        """Takes a waiter out, if it is in."""
        self._waiters[criticality].pop(waiter, None)

    def first(self) -> Waiter:
        """Takes out who goes next. Raises StopIteration when nobody waits."""
        waiting = next(filter(None, (self._waiters[each] for each in GO_FIRST)))
        return waiting.popitem(last=self._newest_first)[0]

    def last(self) -> tuple[Waiter, Criticality]:
        """Takes out who would go last. Raises StopIteration when nobody waits."""
        criticality = next(each for each in reversed(GO_FIRST) if self._waiters[each])
        return self._waiters[criticality].popitem(last=not self._newest_first)[0], criticality


class Place:
    """One attempt's place at a tier; it tells the limit what the tier showed."""

    def __init__(self, places: "Places", era: int) -> None:
        self._places = places
        self._era = era

    def answered(self, seconds: float) -> None:
        """Tells that the first chunk came, and after how long."""
        self._places.limit.answered(self._era, seconds)
        self._places.hand_out()

    def dropped(self) -> None:
        """Tells that the tier had no room, or was silent for so long that it was given up."""
        self._places.limit.dropped(self._era)


class Places:
    """The places of one tier, as many as its limit says."""

    def __init__(self, limit: Limit, rules: WaitingRules) -> None:
        self.limit = limit
        self.under_way = 0
        """Places taken; more than the limit only while it has just shrunk."""
        self._rules = rules
        self._line = Line(newest_first=rules.newest_first)
        self._sent_away_at = dict.fromkeys(GO_FIRST, -math.inf)

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return len(self._line)

    @property
    def full(self) -> bool:
        """Whether there is no place and the line is as long as it may be."""
        return self.under_way >= self.limit.limit and len(self._line) >= self._room

    def full_for(self, criticality: Criticality) -> bool:
        """Whether one who came now would be sent away at once: it is full, and nobody less critical waits."""
        return self.full and not self._line.is_anyone_after(criticality)

    @property
    def _room(self) -> int:
        return math.ceil(self._rules.per_place * self.limit.limit)

    @asynccontextmanager
    async def place(self, criticality: Criticality, timeout: float) -> AsyncIterator[Place]:
        """Holds a place, after a wait in line when there is none; `timeout` is what is left of the request's seconds.

        Raises Overloaded when the wait is over or the line too long.
        """
        if self.under_way < self.limit.limit:
            self.under_way += 1
        else:
            await self._wait(criticality, timeout)
        try:
            yield Place(self, self.limit.begun(self.under_way))
        finally:
            self._give_back()

    def hand_out(self) -> None:
        """Gives free places to those who go next."""
        while self._line and self.under_way < self.limit.limit:
            waiter = self._line.first()
            if not waiter.done():  # cancelled just now, and not yet gone
                self.under_way += 1
                waiter.set_result(True)

    async def _wait(self, criticality: Criticality, timeout: float) -> None:
        """Waits until a place has been handed over; however it ends otherwise, none is kept."""
        loop = asyncio.get_running_loop()
        waiter: Waiter = loop.create_future()
        self._line.join(waiter, criticality)
        if len(self._line) > self._room:
            self._send_away(*self._line.last())
        timer = loop.call_later(self._patience(criticality, timeout), self._send_away, waiter, criticality)
        try:
            handed_over = await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled() and waiter.result():
                self._give_back()
            raise
        finally:
            timer.cancel()
            self._line.leave(waiter, criticality)
        if not handed_over:
            raise Overloaded("there is no room now", retry_seconds=self._rules.retry_seconds)

    def _patience(self, criticality: Criticality, timeout: float) -> float:
        rules, now = self._rules, asyncio.get_running_loop().time()
        hasty = now - self._sent_away_at[criticality] < rules.calm_seconds
        return min(rules.hasty_seconds if hasty else rules.seconds, rules.deadline_share * timeout)

    def _send_away(self, waiter: Waiter, criticality: Criticality) -> None:
        self._line.leave(waiter, criticality)
        if not waiter.done():
            self._sent_away_at[criticality] = asyncio.get_running_loop().time()
            waiter.set_result(False)

    def _give_back(self) -> None:
        self.under_way -= 1
        self.hand_out()
