"""A tier's places and the short line in front of them: who waits, who goes next, who is sent away.

A line does not add capacity, it only evens out arrivals: it is short, nobody stands in it for long, and whoever is sent
away hears so at once. There are no polls: a place that is given back is handed to whoever goes next.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from marginal.errors import Overloaded
from marginal.routing.requests import Criticality

Waiter = asyncio.Future[bool]
"""Resolves to whether a place was handed over; if not, its owner is sent away."""


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

    At most `seconds`, and `deadline_share` of what is left of the request's time; at most `per_place` waiters for each
    place. `newest_first` serves the one who came last: under overload the oldest is the one who will be given up on
    anyway. `retry_seconds` is what those sent away are told.
    """

    seconds: float = 0.3
    deadline_share: float = 0.25
    per_place: float = 1.0
    newest_first: bool = True
    retry_seconds: float = 1.0


class Line:
    """Waiters in the order they go: critical ones first; each step takes the same time however many there are."""

    def __init__(self, *, newest_first: bool) -> None:
        self._newest_first = newest_first
        self._critical: OrderedDict[Waiter, None] = OrderedDict()
        self._sheddable: OrderedDict[Waiter, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._critical) + len(self._sheddable)

    def join(self, waiter: Waiter, criticality: Criticality) -> None:
        """Stands a waiter in the line."""
        (self._critical if criticality is Criticality.CRITICAL else self._sheddable)[waiter] = None

    def leave(self, waiter: Waiter) -> None:
        """Takes a waiter out, if it is in."""
        self._critical.pop(waiter, None)
        self._sheddable.pop(waiter, None)

    def first(self) -> Waiter:
        """Takes out who goes next. Raises KeyError when nobody waits."""
        return (self._critical or self._sheddable).popitem(last=self._newest_first)[0]

    def last(self) -> Waiter:
        """Takes out who would go last. Raises KeyError when nobody waits."""
        return (self._sheddable or self._critical).popitem(last=not self._newest_first)[0]


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

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return len(self._line)

    @property
    def full(self) -> bool:
        """Whether somebody who came now might be sent away: there is no place, and no room in the line."""
        return self.under_way >= self.limit.limit and len(self._line) >= self._room

    @property
    def _room(self) -> int:
        return int(self._rules.per_place * self.limit.limit)

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
            self._send_away(self._line.last())
        seconds = min(self._rules.seconds, self._rules.deadline_share * timeout)
        timer = None if waiter.done() else loop.call_later(seconds, self._send_away, waiter)
        try:
            handed_over = await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled() and waiter.result():
                self._give_back()
            raise
        finally:
            self._line.leave(waiter)
            if timer is not None:
                timer.cancel()
        if not handed_over:
            raise Overloaded("there is no room now", retry_seconds=self._rules.retry_seconds)

    def _send_away(self, waiter: Waiter) -> None:
        self._line.leave(waiter)
        if not waiter.done():
            waiter.set_result(False)

    def _give_back(self) -> None:
        self.under_way -= 1
        self.hand_out()
