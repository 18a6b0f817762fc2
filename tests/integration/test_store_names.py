"""Two deployments on one Valkey, told apart by `--store-name` alone: neither spends, learns or wants for the other."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from engines.audit import audited, told_by
from engines.callers import Caller, asking
from engines.obedient import Tiers, obedient_tiers
from engines.valkey import ValkeyProcess
from integration.houses import SURE, House, house_of, until
from marginal.entrypoints.processes import free_addresses
from marginal.ledger.leased import JOINED
from marginal.routing.holds import Window
from marginal.tokens import Tier
from marginal.transport.scaler import demand_at

NAMES = ("llm/marginal", "llm/marginal-2")
TENANT = "acme"
SLOW = "small:margin=0.9,tokens=200,delay_ms=50"
TENANTS = """
[tenants.acme.budget]
per_month = 1.0
"""


@pytest.fixture
async def tiers() -> AsyncIterator[Tiers]:
    async with obedient_tiers() as both:
        yield both


def named(folder: Path, tiers: Tiers, store: str, name: str, scaler: str) -> House:
    folder.mkdir()
    (folder / "tenants.toml").write_text(TENANTS)
    shared = ("--store", store, "--store-name", name, "--failure-mode", "closed", "--scaler-listen", scaler)
    return house_of(folder, tiers, *shared, "--tenants-file", str(folder / "tenants.toml"), "--trust-tenant-header")


async def test_two_names_on_one_server_share_no_budget_no_key_and_no_demand(tiers: Tiers, tmp_path: Path) -> None:
    scalers = free_addresses("127.0.0.1", 2)
    with ExitStack() as stack:
        store = stack.enter_context(ValkeyProcess())
        houses = [
            named(tmp_path / str(place), tiers, store.url, name, scalers[place]) for place, name in enumerate(NAMES)
        ]
        for house in houses:
            stack.enter_context(house.router).start()
        for house in houses:
            await house.router.serving()
            await until(lambda house=house: house.router.logged(JOINED))
        targets = [house.router.target for house in houses]
        async with Caller(targets[0], tenant=TENANT) as first, Caller(targets[1], tenant=TENANT) as second:
            paid = asking(SURE, max_tokens=6, idempotency_key="the-same")
            seen = [await caller.call(paid) for caller in (first, second)]
            assert [one.status for one in seen] == ["OK", "OK"]
            spent = [one.nanos for one in seen]
            assert (await first.call(paid)).status == "ALREADY_EXISTS ALREADY_ANSWERED"
        async with Caller(targets[0], tenant="others") as busy:
            call = asyncio.create_task(busy.call(asking(SLOW, max_tokens=200)))
            await asyncio.sleep(3.0)
            wanted = [await demand_at(scaler, Tier.SMALL) for scaler in scalers]
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
        assert wanted[0] > 0.2
        assert wanted[1] < 0.05
        for house, nanos in zip(houses, spent, strict=True):
            audit = await audited(told_by(house.admin), house.journal)
            assert audit.clean, audit
            months = {one.tenant: one for one in await told_by(house.admin)() if one.window is Window.MONTH}
            assert months[TENANT].committed_nanos == nanos
            assert ("others" in months) == (house is houses[0])
        with store.client() as client:
            keys = set(client.scan_iter())
    tags = {f"{{{name}}}" for name in NAMES}
    assert {key.partition(":")[0] for key in keys} == tags
    for tag in tags:
        assert {f"{tag}:epoch", f"{tag}:demand"} <= keys


async def test_a_name_that_no_key_can_have_is_refused_with_its_option(tiers: Tiers, tmp_path: Path) -> None:
    router = named(tmp_path / "house", tiers, "valkey://127.0.0.1:1", "{marginal}", "").router
    with router:
        router.start()
        assert await router.ended() == 2
    assert "--store-name {marginal}: it may have letters, digits and ._:/- only" in router.errors_path.read_text()
