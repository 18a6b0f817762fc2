"""Callers of all kinds at several routers, whatever happens to those, and what each was told."""

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from marginal.v1 import router_pb2
from tests.engines.callers import Caller, Request, Seen, asking

WAIT_SECONDS = 8.0
"""How long a caller waits for an answer."""

THINK_SECONDS = 0.15
AGAIN_SECONDS = 0.5
"""The same, after an answer that was none."""


@dataclass(frozen=True, slots=True)
class Told:
    """What one call was told: its tenant, the kind of request, its idempotency key, and how it ended."""

    tenant: str
    kind: str
    key: str
    status: str
    request_id: str = ""
    nanos: int | None = None

    @property
    def answered(self) -> bool:
        return self.nanos is not None


@dataclass
class Load:
    """Callers, each of which names a router and asks, over and over, until it is stopped."""

    lot: random.Random
    targets: Sequence[str]
    tenant_now: Callable[[], str]
    told: list[Told] = field(default_factory=list)
    stopped: bool = False

    async def run(self, callers: int) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(callers):
                tasks.create_task(self._caller(number))

    async def _caller(self, number: int) -> None:
        lot = random.Random(self.lot.random())  # noqa: S311
        count, last = 0, (Request(), "", "")
        async with AsyncExitStack() as stack:
            lines: dict[tuple[str, str], Caller] = {}
            while not self.stopped:
                count += 1
                kind = lot.choices(tuple(KINDS), tuple(KINDS.values()))[0]
                tenant = self.tenant_now()
                if kind == "again" and last[1]:
                    request, key, tenant = last
                else:
                    request, key = _request(kind, f"question {number}-{count}"), ""
                    if kind in {"keyed", "again"}:
                        key = request.idempotency_key = f"key-{number}-{count}"
                        last = (request, key, tenant)
                where = (lot.choice(self.targets), tenant)
                if where not in lines:
                    lines[where] = await stack.enter_async_context(Caller(where[0], tenant=tenant))
                leaves_after = lot.randrange(4) if kind == "leaving" else None
                seen = await lines[where].call(request, timeout=WAIT_SECONDS, leaves_after=leaves_after)
                self.told.append(_told(tenant, kind, key, seen))
                await asyncio.sleep(lot.uniform(0.0, THINK_SECONDS if seen.final else AGAIN_SECONDS))


KINDS = {"plain": 6.0, "large": 1.0, "insisting": 1.0, "shadow": 1.0, "leaving": 2.0, "keyed": 1.0, "again": 1.0}
"""How often each kind of request is made."""


def _request(kind: str, prompt: str) -> Request:
    modes = {"large": router_pb2.MODE_LARGE_ONLY, "shadow": router_pb2.MODE_SHADOW}
    on_degrade = router_pb2.ON_DEGRADE_FAIL if kind == "insisting" else router_pb2.ON_DEGRADE_UNSPECIFIED
    return asking(prompt, mode=modes.get(kind, router_pb2.MODE_AUTO), on_degrade=on_degrade)


def _told(tenant: str, kind: str, key: str, seen: Seen) -> Told:
    nanos = seen.nanos if seen.final is not None else None
    return Told(tenant, kind, key, seen.status, seen.request_id, nanos)
