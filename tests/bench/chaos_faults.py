"""What is done to a deployment at random, from a seed: processes killed or frozen, a store emptied, and put right.

Two of them are at work at a time: one at the tiers, one at the routers and their store. What is told to callers while a
fault lasts is billed to a tenant of its name, so that the books show each fault's difference.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

from tests.engines.services import Service
from tests.engines.valkey import ValkeyProcess

CALM = "calm"
LEASE_SECONDS = 60.0
"""How long a router may be silent before its holds expire."""

Fault = Callable[[], AbstractAsyncContextManager[None]]


@dataclass
class Faults:
    """Faults by their names, the shortest and longest they last, in seconds; `lasting` are those of now."""

    lot: random.Random
    kinds: dict[str, tuple[float, float, Fault]]
    times: dict[str, int] = field(default_factory=dict)
    lasting: list[str] = field(default_factory=list)

    @property
    def now(self) -> str:
        """What a request that begins now is billed to."""
        return self.lasting[-1] if self.lasting else CALM

    async def happen(self, names: Sequence[str], *, weights: Sequence[float], until: float) -> None:
        """One fault of these after the other, with some quiet in between; none that would last too long."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.lot.uniform(0.5, 4.0))
            [name] = self.lot.choices(names, weights)
            shortest, longest, fault = self.kinds[name]
            seconds = self.lot.uniform(shortest, longest)
            if loop.time() + shortest > until:
                return
            if loop.time() + seconds > until:
                continue
            self.times[name] = self.times.get(name, 0) + 1
            self.lasting.append(name)
            try:
                async with fault():
                    await asyncio.sleep(seconds)
            finally:
                self.lasting.remove(name)


def faults(
    lot: random.Random, *, routers: Sequence[Service], small: Service, large: Service, store: ValkeyProcess
) -> Faults:
    """All that is done to these."""
    return Faults(
        lot,
        {
            "small-killed": (0.2, 2.0, partial(_killed, small)),
            "small-frozen": (0.5, 5.0, partial(_frozen, small)),
            "large-killed": (0.2, 2.0, partial(_killed, large)),
            "large-frozen": (0.5, 5.0, partial(_frozen, large)),
            "router-killed": (0.0, 1.5, lambda: _killed(lot.choice(routers))),
            "router-frozen": (0.5, 5.0, lambda: _frozen(lot.choice(routers))),
            "router-frozen-long": (LEASE_SECONDS + 5.0, LEASE_SECONDS + 10.0, lambda: _frozen(lot.choice(routers))),
            "store-killed": (0.2, 3.0, partial(_store_killed, store)),
            "store-frozen": (0.2, 3.0, partial(_store_frozen, store)),
            "store-emptied": (1.0, 2.0, partial(_store_emptied, store)),
        },
    )


AT_TIERS = ("small-killed", "small-frozen", "large-killed", "large-frozen")
AT_MONEY = (
    *("router-killed", "router-frozen", "router-frozen-long"),
    *("store-killed", "store-frozen", "store-emptied"),
)
MONEY_WEIGHTS = (4.0, 3.0, 0.3, 4.0, 4.0, 3.0)


@asynccontextmanager
async def _killed(service: Service) -> AsyncIterator[None]:
    service.kill()
    yield
    service.start()
    await service.serving()


@asynccontextmanager
async def _frozen(service: Service) -> AsyncIterator[None]:
    with service.frozen():
        yield


@asynccontextmanager
async def _store_killed(store: ValkeyProcess) -> AsyncIterator[None]:
    await asyncio.to_thread(store.stop)
    yield
    await asyncio.to_thread(store.start)


@asynccontextmanager
async def _store_frozen(store: ValkeyProcess) -> AsyncIterator[None]:
    with store.frozen():
        yield


@asynccontextmanager
async def _store_emptied(store: ValkeyProcess) -> AsyncIterator[None]:
    await asyncio.to_thread(store.empty)
    yield
