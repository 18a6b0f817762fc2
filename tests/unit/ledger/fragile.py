"""A shared store that goes away on command, with or without having done what it was asked."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from marginal.ledger.memory import MemoryStore
from marginal.ledger.ports import Balance, Expired, Settled, StoreAway, StoreEmptied
from marginal.routing.holds import Ask, Grant, HoldState, Window

NOW = 1_785_585_600.0  # 2026-08-01T12:00:00Z


class FragileStore:
    """One store that several routers may share: give each its own `Connection`."""

    def __init__(self) -> None:
        self.inner = MemoryStore(lambda: NOW)
        self.epoch = ""
        self.learned: dict[str, str] = {}
        self.away = False
        self.does_it_all_the_same = False
        self.refuses_writes = False
        self.seconds = 0.0
        self.calls = 0

    def restart_empty(self) -> None:
        self.inner, self.epoch, self.learned = MemoryStore(lambda: NOW), "", {}

    async def money(self, tenant: str = "acme") -> tuple[int, int]:
        """What a tenant has spent this month and what is held for it, looked up behind the routers' backs."""
        balances = await self.inner.balances([tenant])
        [month] = [one for one in balances if one.window is Window.MONTH]
        return month.committed_nanos, month.held_nanos


class Connection:
    """A SharedStore as one router sees it."""

    def __init__(self, store: FragileStore) -> None:
        self._store = store
        self._joined = ""

    async def _do(self, doing: Any, *, writes: bool = True) -> Any:
        self._store.calls += 1
        away = self._store.away or (writes and self._store.refuses_writes)
        if not away or self._store.does_it_all_the_same:
            done = await doing
        else:
            doing.close()
        if self._store.seconds:
            await asyncio.sleep(self._store.seconds)
        if away:
            raise StoreAway("the fake is away")
        return done

    async def reserve(self, ask: Ask, *, lease_seconds: float) -> Grant:
        if not self._store.away and self._joined != self._store.epoch:
            raise StoreEmptied("another epoch")
        grant: Grant = await self._do(self._store.inner.reserve(ask, lease_seconds=lease_seconds))
        return grant

    async def progress(self, marks: Mapping[str, int], *, lease_seconds: float) -> None:
        await self._do(self._store.inner.progress(marks, lease_seconds=lease_seconds))

    async def settle(self, settled: Sequence[Settled]) -> None:
        await self._do(self._store.inner.settle(settled))

    async def expire(self, request_ids: Sequence[str] = ()) -> Sequence[Expired]:
        expired: Sequence[Expired] = await self._do(self._store.inner.expire(request_ids))
        return expired

    async def acknowledge(self, request_ids: Sequence[str]) -> None:
        await self._do(self._store.inner.acknowledge(request_ids))

    async def states(self, request_ids: Sequence[str]) -> Mapping[str, HoldState]:
        states: Mapping[str, HoldState] = await self._do(self._store.inner.states(request_ids), writes=False)
        return states

    async def balances(self, tenants: Sequence[str] = ()) -> Sequence[Balance]:
        balances: Sequence[Balance] = await self._do(self._store.inner.balances(tenants), writes=False)
        return balances

    async def epoch(self) -> str:
        await self._do(asyncio.sleep(0), writes=False)
        return self._store.epoch

    async def found(self, epoch: str) -> str:
        await self._do(asyncio.sleep(0))
        self._store.epoch = self._store.epoch or epoch
        return self._store.epoch

    def join(self, epoch: str) -> None:
        self._joined = epoch

    async def save_learned(self, name: str, text: str) -> None:
        await self._do(asyncio.sleep(0))
        self._store.learned[name] = text

    async def learned(self, name: str) -> str | None:
        await self._do(asyncio.sleep(0), writes=False)
        return self._store.learned.get(name)
