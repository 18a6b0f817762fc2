"""A router that is killed at any step of a request's life, F35 and F36: what callers see, and what is on the books.

Both kinds of ledger tell the same story side by side: some requests, one of which comes to the step; SIGKILL; the same
router again, on the same journal. Every request that was let in has one final record then, nothing is held, and the
budgets are the sum of the records.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from engines.audit import Audit, audited, told_by
from engines.callers import Caller, Seen, asking
from engines.obedient import Tiers, obedient_tiers
from engines.services import Service
from engines.valkey import ValkeyProcess
from marginal.entrypoints.failpoints import VARIABLE
from marginal.entrypoints.processes import free_addresses
from marginal.ledger.valkey import ValkeyStore
from marginal.ledger.valkey_link import open_client
from marginal.routing.records import Settlement
from marginal.routing.terms import Step
from marginal.v1 import router_pb2

SURE, UNSURE, FAILING = "small:margin=0.9", "small:margin=0.05", "small:fail_at=3 large:fail_at=0"
REQUESTS = [
    *(asking(prompt) for prompt in (SURE, UNSURE, FAILING) * 2),
    asking(SURE, mode=router_pb2.MODE_SHADOW),
    asking(UNSURE, idempotency_key="a-key"),
]
BEFORE_ANY_TEXT = {Step.ADMITTED, Step.RESERVED, Step.SMALL_ASKED, Step.VERDICT}
"""The first request that reaches one of these is the first of all, and so nobody has got anything."""


@dataclass
class Story:
    """What callers saw before the crash, and the books after it."""

    seen: list[Seen]
    again: Seen
    audit: Audit
    end: int


@pytest.fixture(scope="module")
async def tiers() -> AsyncIterator[Tiers]:
    async with obedient_tiers() as both:
        yield both


@pytest.fixture(scope="module")
def valkey() -> Iterator[ValkeyProcess]:
    with ValkeyProcess("--appendonly", "yes") as server:
        yield server


@pytest.mark.timeout(300)
@pytest.mark.parametrize("step", [pytest.param(step, id=step.value) for step in Step])
async def test_a_router_killed_at_any_step_has_every_request_on_its_books_once(
    step: Step, tiers: Tiers, valkey: ValkeyProcess, tmp_path: Path
) -> None:
    for store in ("memory", "valkey"):
        tmp_path.joinpath(store).mkdir()
    shared = f"{valkey.url.rpartition('/')[0]}/{list(Step).index(step)}"
    for store, story in zip(
        ("memory", "valkey"),
        await asyncio.gather(
            _story(step, tiers, tmp_path / "memory", store=""), _story(step, tiers, tmp_path / "valkey", store=shared)
        ),
        strict=True,
    ):
        assert story.end == -signal.SIGKILL, store
        assert {seen.code.name for seen in story.seen} <= {"OK", "UNAVAILABLE"}, store
        assert step not in BEFORE_ANY_TEXT or all(seen.pieces == 0 for seen in story.seen), store
        assert story.audit.clean, (store, story.audit)
        for seen in story.seen:
            if seen.final is not None and seen.request_id:
                record = story.audit.record(seen.request_id)
                assert record["total_nanos"] >= seen.nanos, (store, record)
        assert story.again.code.name == "OK", store
        assert story.audit.record(story.again.request_id)["settlement"] == Settlement.SETTLED.value, store


async def _story(step: Step, tiers: Tiers, folder: Path, *, store: str) -> Story:
    journal, (admin,) = folder / "journal", free_addresses("127.0.0.1", 1)
    shared = ("--store", store) if store else ()
    own = ("--journal", str(journal), "--admin-listen", admin, *shared)
    with Service("router", folder, *tiers.arguments, *own) as router:
        router.start(**{VARIABLE: step.value})
        await router.serving()
        async with Caller(router.target) as caller:
            seen = await asyncio.gather(*map(caller.call, REQUESTS))
        end = await router.ended()
        router.start()
        await router.serving()
        async with Caller(router.target) as caller:
            again = await caller.call(asking(UNSURE))
        if store:
            await _forget_the_dead(store)
        return Story(seen, again, await audited(told_by(admin), journal), end)


async def _forget_the_dead(store: str) -> None:
    """Lets the lease run out of holds whose router died before it heard that it has them: it cannot know of them."""
    client = open_client(store)
    async with ValkeyStore(client) as holds:
        await asyncio.sleep(0.5)
        leased = await client.zrange("{marginal}:leases", 0, -1)
        await holds.expire([name.decode() if isinstance(name, bytes) else name for name in leased])
