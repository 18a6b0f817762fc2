"""A ledger's store in a Valkey server that routers share: each call one atomic script, by the server's own clock.

The server must keep what it is told: `maxmemory-policy noeviction`, and an append-only file unless every restart shall
be a rebuild from the journals. Works on a cluster's node too, since all keys have one hash tag.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Self, TypeVar

from valkey.asyncio import Valkey

from marginal.errors import BudgetExceeded, InvalidRequest
from marginal.ledger.ports import DAY_SECONDS, Balance, Expired, Settled, StoreEmptied
from marginal.ledger.refusals import already_answered, in_progress, key_reused
from marginal.ledger.valkey_link import TIMEOUT_SECONDS, ValkeyLink
from marginal.routing.holds import Ask, Grant, HoldState, Scope, Window
from marginal.routing.records import DegradedReason
from marginal.routing.tenants import TENANT

NAME = "marginal"

BATCH = 200
"""Holds per script: some milliseconds of the server, in which nobody else is served."""

LEARNED_SECONDS = 90 * DAY_SECONDS
"""How long what was learned is kept: traffic of the season before teaches nothing."""

DEMAND_SECONDS = 15
"""How long a router that says nothing is believed to want what it said last."""

IDENTIFIER = re.compile(r"[A-Za-z0-9._:/-]{1,200}")
"""What may be part of a key as it is."""

_NOTHING = "-"
_SCOPES = {"F": Scope.FULL, "S": Scope.SMALL}
_STATES = {"H": HoldState.HELD, "E": HoldState.EXPIRED, "U": HoldState.UNSURE, "S": HoldState.SETTLED}
_WINDOWS = tuple(Window)

_Item = TypeVar("_Item")


class ValkeyStore:
    """A SharedStore over `scripts/*.lua`, which say how holds are kept there.

    Amounts are in nano-units and below `holds.MOST_NANOS`. Raises InvalidRequest for a tenant or a request id that
    cannot be part of a key.
    """

    def __init__(
        self,
        client: Valkey,
        *,
        name: str = NAME,
        timeout_seconds: float = TIMEOUT_SECONDS,
        now: Callable[[], float] | None = None,
    ) -> None:
        """`name` tells deployments apart that share a server; `now` replaces the server's clock, in tests."""
        self._link = ValkeyLink(client, f"{{{_identifier('name', name)}}}", timeout_seconds=timeout_seconds, now=now)
        self._epoch = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections."""
        await self._link.close()

    async def reserve(self, ask: Ask, *, lease_seconds: float) -> Grant:
        if not self._epoch:
            raise _emptied()
        words = (
            self._epoch,
            _identifier("request_id", ask.request_id),
            _tenant(ask.tenant),
            ask.small_nanos,
            ask.full_nanos,
            lease_seconds,
            *(ask.budget.limits.get(window, _NOTHING) for window in _WINDOWS),
            _hashed(ask.tenant, ask.key),
            _hashed(ask.fingerprint),
        )
        answer = await self._link.run("reserve", " ".join(map(str, words)))
        return _granted(answer.split(" "))

    async def progress(self, marks: Mapping[str, int], *, lease_seconds: float) -> None:
        for batch in _batches(tuple(marks.items())):
            told = (f"{_identifier('request_id', request_id)} {mark}" for request_id, mark in batch)
            await self._link.run("progress", lease_seconds, *told)

    async def settle(self, settled: Sequence[Settled]) -> None:
        for batch in _batches(settled):
            await self._link.run("settle", *map(_told, batch))

    async def expire(self, request_ids: Sequence[str] = ()) -> Sequence[Expired]:
        for named in _batches(request_ids):
            await self._link.run("expire", 0, *_identifiers(named))
        while await self._link.run("expire", BATCH) == BATCH:
            pass
        found: list[Expired] = []
        first = 0
        while await self._link.command("ZCARD", self._link.key("expired")) > first:
            page = await self._link.run("expired", first, first + BATCH - 1)
            found += (Expired(name, tenant, int(nanos), float(at)) for name, tenant, nanos, at in page)
            first += BATCH
        return found

    async def acknowledge(self, request_ids: Sequence[str]) -> None:
        for batch in _batches(request_ids):
            await self._link.run("acknowledge", *_identifiers(batch))

    async def states(self, request_ids: Sequence[str]) -> Mapping[str, HoldState]:
        found: dict[str, HoldState] = {}
        for batch in _batches(request_ids):
            letters = await self._link.run("states", *_identifiers(batch))
            found |= {name: _STATES[letter] for name, letter in zip(batch, letters, strict=True) if letter}
        return found

    async def balances(self, tenants: Sequence[str] = ()) -> Sequence[Balance]:
        asked = [_tenant(tenant) for tenant in tenants] or sorted(await self._link.run("tenants"))
        found: list[Balance] = []
        for batch in _batches(asked):
            names = ((tenant, window) for tenant in batch for window in _WINDOWS)
            rows = await self._link.run("balances", *batch)
            found += (
                Balance(tenant, window, period, int(committed), int(held))
                for (tenant, window), (period, committed, held) in zip(names, rows, strict=True)
            )
        return found if tenants else _spending(found)

    async def epoch(self) -> str:
        return str(await self._link.command("GET", self._link.key("epoch")) or "")

    async def found(self, epoch: str) -> str:
        await self._link.command("SET", self._link.key("epoch"), _identifier("epoch", epoch), "NX")
        return await self.epoch()

    def join(self, epoch: str) -> None:
        self._epoch = epoch

    async def save_learned(self, name: str, text: str) -> None:
        key = self._link.key("learned", _identifier("name", name))
        await self._link.command("SET", key, text, "EX", LEARNED_SECONDS)

    async def learned(self, name: str) -> str | None:
        text = await self._link.command("GET", self._link.key("learned", _identifier("name", name)))
        return None if text is None else str(text)

    async def exchange_demand(self, router: str, text: str) -> Sequence[str]:
        """Puts up one router's demand and gives what the others have put up in the last 15 seconds."""
        return [str(one) for one in await self._link.run("demand", DEMAND_SECONDS, _identifier("name", router), text)]


def _granted(answer: Sequence[str]) -> Grant:
    """The grant in an answer of `reserve.lua`, or the error it stands for."""
    match answer:
        case ["granted", scope, held, admitted, short]:
            blocked = DegradedReason.BUDGET if scope == "S" else None
            lacking = _WINDOWS[int(short) - 1] if int(short) else None
            return Grant(int(held), _SCOPES[scope], float(admitted), blocked, lacking)
        case ["exceeded", place, now]:
            window, at = _WINDOWS[int(place) - 1], float(now)
            raise BudgetExceeded(window.value, reset_seconds=window.ends(at) - at)
        case ["in_progress", request_id]:
            raise in_progress(request_id)
        case ["answered", request_id]:
            raise already_answered(request_id)
        case ["reused"]:
            raise key_reused()
    raise _emptied()


def _emptied() -> StoreEmptied:
    return StoreEmptied("the budget store is not in the epoch that was joined: it must be told what was spent first")


def _told(settled: Settled) -> str:
    words = (
        _identifier("request_id", settled.request_id),
        _tenant(settled.tenant),
        settled.nanos,
        f"{settled.admitted_at:.6f}",
        int(settled.answered),
        int(settled.final),
        _hashed(settled.tenant, settled.key),
    )
    return " ".join(map(str, words))


def _spending(balances: Iterable[Balance]) -> Sequence[Balance]:
    """Those of tenants that have money in the month, which is the last of each three."""
    found = list(balances)
    months = {one.tenant for one in found if one.window is Window.MONTH and (one.committed_nanos or one.held_nanos)}
    return [one for one in found if one.tenant in months]


def _batches(items: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    return (items[first : first + BATCH] for first in range(0, len(items), BATCH))


def _identifiers(names: Iterable[str]) -> Iterator[str]:
    return (_identifier("request_id", name) for name in names)


def _identifier(field: str, text: str) -> str:
    if not IDENTIFIER.fullmatch(text):
        raise InvalidRequest(field, "it may have letters, digits and ._:/- only, 200 at most")
    return text


def _tenant(name: str) -> str:
    if not TENANT.fullmatch(name):
        raise InvalidRequest("tenant", "it is no tenant's name")
    return name


def _hashed(*texts: str) -> str:
    """A name for what callers sent, which tells nothing of it; "-" when there is nothing."""
    if not texts[-1]:
        return _NOTHING
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:32]
