"""A router whose journal is tiny: its oldest files go, and its budgets and costs stay right, over a crash as well."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engines.audit import told_by
from engines.callers import Caller, asking
from engines.obedient import Tiers, obedient_tiers
from integration.houses import SURE, UNSURE, House, house_of, until
from marginal.ledger.journal_files import bytes_of, journal_files
from marginal.ledger.reading import read_journals
from marginal.ledger.retention import DELETED
from marginal.routing.holds import Window

REQUESTS, CONCURRENCY = 120, 8
JOURNAL_BYTES = 64_000
TENANT = "acme"


@pytest.fixture
async def tiers() -> AsyncIterator[Tiers]:
    async with obedient_tiers() as both:
        yield both


async def spent(house: House) -> dict[Window, int]:
    told = await told_by(house.admin)()
    assert {one.held_nanos for one in told} <= {0}
    return {one.window: one.committed_nanos for one in told if one.tenant == TENANT}


async def costs(journal: Path) -> tuple[int, int]:
    """Requests and nano-units as `marginal costs` shows them."""
    program = (sys.executable, "-P", "-m", "marginal.entrypoints.cli", "costs", "--journal", str(journal), "--json")
    process = await asyncio.create_subprocess_exec(*program, stdout=PIPE, stderr=PIPE)
    out, error = await process.communicate()
    assert process.returncode == 0, error.decode()
    (total,) = json.loads(out)["totals"]
    return total["requests"], total["total_nanos"]


async def ask_many(house: House) -> list[int]:
    """What each of so many requests cost; the journal can be read meanwhile, and is soon as small as it must be."""
    numbers, nanos = iter(range(REQUESTS)), list[int]()

    async def work() -> None:
        async with Caller(house.router.target, tenant=TENANT) as caller:
            for number in numbers:
                seen = await caller.call(asking(UNSURE if number % 2 else SURE, max_tokens=6))
                assert seen.status == "OK"
                nanos.append(seen.nanos)

    await asyncio.gather(*(work() for _ in range(CONCURRENCY)), costs(house.journal))
    await until(lambda: bytes_of(house.journal.iterdir()) <= JOURNAL_BYTES)
    return nanos


async def test_a_tiny_journal_keeps_budgets_and_costs_right_over_a_crash(tiers: Tiers, tmp_path: Path) -> None:
    (tmp_path / "tenants.toml").write_text(f"[tenants.{TENANT}.budget]\nper_month = 1.0\n")
    limits = ("--journal-bytes", str(JOURNAL_BYTES), "--journal-days", "1")
    tenants = ("--tenants-file", str(tmp_path / "tenants.toml"), "--trust-tenant-header")
    house = house_of(tmp_path, tiers, *limits, *tenants)
    with house.router:
        house.router.start()
        await house.router.serving()
        async with Caller(house.router.target, tenant=TENANT) as caller:
            first = await caller.call(asking(SURE, max_tokens=6))
        nanos = [first.nanos, *await ask_many(house)]
        await until(lambda: house.router.logged(DELETED))
        before = await spent(house)
        assert before[Window.MONTH] == sum(nanos)
        house.router.kill()
        kept = {line["request_id"]: line["total_nanos"] for line in read_journals([house.journal]).final_records()}
        assert 0 < len(kept) < len(nanos)
        assert await costs(house.journal) == (len(kept), sum(kept.values()))
        house.router.start()
        await house.router.serving()
        assert (await spent(house))[Window.MONTH] == before[Window.MONTH]
        again = await ask_many(house)
        assert (await spent(house))[Window.MONTH] == sum(nanos) + sum(again)
    deleted = house.router.logged(DELETED)
    assert sum(entry["bytes"] for entry in deleted) > JOURNAL_BYTES // 2
    assert len(journal_files(house.journal)) > 1
