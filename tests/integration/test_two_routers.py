"""Two routers at one store, and a tenant who can pay for half of what it asks: it gets that half, not a nano-unit more.

The failure mode is `closed`: a store that a busy machine lets wait makes callers come again, and lends nothing.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from engines.audit import audited, told_by
from engines.callers import Caller, Request, Seen, asking
from engines.obedient import Tiers, obedient_tiers
from engines.services import Service
from engines.valkey import ValkeyProcess
from integration.houses import POLICIES, SURE, UNSURE, until
from marginal.entrypoints.processes import free_addresses
from marginal.ledger.leased import JOINED
from marginal.ledger.reading import read_journals
from marginal.routing.holds import Window

TENANT = "half"
REQUESTS, CONCURRENCY = 960, 64
TOKENS = 6
SMALL_NANOS, LARGE_NANOS = 10_000, 100_000
"""Of a token that is written; what is read costs next to nothing."""

LIMIT_NANOS = REQUESTS * TOKENS * (SMALL_NANOS + LARGE_NANOS) // 2 // 2
"""Half the requests are answered by each tier, and the budget pays for half of that."""

TENANTS = f"""
[tenants.{TENANT}.budget]
per_month = {LIMIT_NANOS / 1e9:.9f}
"""


@pytest.fixture
async def tiers() -> AsyncIterator[Tiers]:
    async with obedient_tiers() as both:
        yield both


@pytest.mark.timeout(300)
async def test_two_routers_together_spend_a_budget_and_never_more(tiers: Tiers, tmp_path: Path) -> None:
    policies, tenants = tmp_path / "policies.toml", tmp_path / "tenants.toml"
    policies.write_text(POLICIES)
    tenants.write_text(TENANTS)
    admins, journals = free_addresses("127.0.0.1", 2), [tmp_path / "first", tmp_path / "second"]
    with ExitStack() as stack:
        store = stack.enter_context(ValkeyProcess())
        shared = ("--store", store.url, "--failure-mode", "closed")
        told = ("--policy-file", str(policies), "--tenants-file", str(tenants), "--trust-tenant-header")
        told = (*tiers.arguments, *shared, *told)
        routers = [
            Service("router", tmp_path, *told, "--journal", str(journal), "--admin-listen", admin)
            for journal, admin in zip(journals, admins, strict=True)
        ]
        for router in routers:
            stack.enter_context(router).start()
        for router in routers:
            await router.serving()
            await until(lambda router=router: router.logged(JOINED))
        seen = await _traffic(routers)
        audit = await audited(told_by(admins[0]), *journals)
        balances = {(one.tenant, one.window): one.committed_nanos for one in await told_by(admins[1])()}
    assert audit.clean, audit
    outcomes = Counter((one.status, one.degraded if one.final else "") for one in seen)
    assert outcomes["OK", "UNSPECIFIED"]
    assert outcomes["RESOURCE_EXHAUSTED BUDGET_EXCEEDED", ""]
    assert {status for status, _ in outcomes} == {"OK", "RESOURCE_EXHAUSTED BUDGET_EXCEEDED"}, outcomes
    assert {why for _, why in outcomes} <= {"", "UNSPECIFIED", "BUDGET", "OVERLOADED"}, outcomes
    spent = audit.total_nanos
    assert balances[TENANT, Window.MONTH] == spent == sum(one.nanos for one in seen if one.final)
    assert 0.9 * LIMIT_NANOS <= spent <= LIMIT_NANOS, f"{spent / LIMIT_NANOS:.4f} of the budget"
    assert all(read_journals([journal]).records for journal in journals)


async def _traffic(routers: list[Service]) -> list[Seen]:
    """So many requests at a time, every other one at the other router; whoever is told UNAVAILABLE comes again."""
    seen: list[Seen] = []
    numbers = iter(range(REQUESTS))

    async def work(callers: list[Caller]) -> None:
        for number in numbers:
            request = asking(UNSURE if number // 2 % 2 else SURE, max_tokens=TOKENS)
            seen.append(await _admitted(callers[number % 2], request))

    async with Caller(routers[0].target, tenant=TENANT) as first, Caller(routers[1].target, tenant=TENANT) as second:
        await asyncio.gather(*(work([first, second]) for _ in range(CONCURRENCY)))
    return seen


async def _admitted(caller: Caller, request: Request) -> Seen:
    """What a caller sees who comes again while there is no room, or no word from the store."""
    for _ in range(300):
        seen = await caller.call(request)
        if seen.code.name != "UNAVAILABLE":
            break
        await asyncio.sleep(0.1)
    return seen
