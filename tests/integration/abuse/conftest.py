from collections.abc import AsyncIterator

import pytest

from engines.valkey import ValkeyProcess
from integration.abuse import house as houses
from integration.abuse.house import House
from integration.abuse.unruly import Tiers, unruly_tiers


@pytest.fixture(scope="session")
async def tiers() -> AsyncIterator[Tiers]:
    async with unruly_tiers() as both:
        yield both


@pytest.fixture(scope="session")
async def shared(tiers: Tiers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """A router that keeps its budgets in a Valkey server."""
    with ValkeyProcess() as valkey:
        async with houses.house(tmp_path_factory.mktemp("shared"), tiers, valkey) as house:
            yield house


@pytest.fixture
async def house(shared: House) -> AsyncIterator[House]:
    """The same; after every row its books must add up."""
    yield shared
    await shared.settled()
