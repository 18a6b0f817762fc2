"""What tests of stores share: a clock that is set, what is asked, and how a store is opened."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

from engines.valkey import ValkeyProcess
from marginal.ledger.memory import MemoryStore
from marginal.ledger.ports import Store
from marginal.ledger.valkey import ValkeyStore
from marginal.ledger.valkey_link import open_client
from marginal.routing.holds import NO_BUDGET, Ask, Budget, Window

LEASE = 30.0
HOUR, DAY = 3600.0, 86_400.0
EVENING = datetime(2026, 11, 24, 21, 59, tzinfo=UTC).timestamp()
"""A minute before an hour ends, two hours before a day does, and six days before the month."""

PATIENT_SECONDS = 5.0
"""A timeout for tests that are not about it, on a busy machine."""


class SetClock:
    """Shows what it was set to, in seconds since the Unix epoch."""

    def __init__(self, now: float = EVENING) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


async def open_store(kind: str, clock: SetClock, server: ValkeyProcess, closing: AsyncExitStack) -> Store:
    """A store with nothing in it, ready to reserve."""
    if kind == "memory":
        return MemoryStore(clock)
    server.empty()
    store = open_valkey(server, clock)
    closing.push_async_callback(store.close)
    store.join(await store.found("first"))
    return store


def open_valkey(
    server: ValkeyProcess | str,
    clock: SetClock | None = None,
    *,
    timeout_seconds: float = PATIENT_SECONDS,
    **files: Path,
) -> ValkeyStore:
    """A router's way to a server, or to a URL; without a clock by the server's own."""
    url = server if isinstance(server, str) else server.url
    client = open_client(url, timeout_seconds=timeout_seconds, **files)
    return ValkeyStore(client, timeout_seconds=timeout_seconds, now=clock)


def ask(
    request_id: str,
    *,
    full: int = 100,
    small: int = 10,
    tenant: str = "acme",
    budget: Budget = NO_BUDGET,
    key: str = "",
    fingerprint: str = "",
) -> Ask:
    return Ask(request_id, tenant, small, full, budget, key, fingerprint)


def limited(hour: int | None = None, day: int | None = None, month: int | None = None) -> Budget:
    limits = zip(Window, (hour, day, month), strict=True)
    return Budget({window: limit for window, limit in limits if limit is not None})


async def money(store: Store, tenant: str = "acme") -> Sequence[tuple[int, int]]:
    """What is committed and held in the hour, the day and the month of now."""
    return [(one.committed_nanos, one.held_nanos) for one in await store.balances([tenant])]
