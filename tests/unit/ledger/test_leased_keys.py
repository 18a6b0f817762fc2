"""What a router knows of idempotency keys while the shared store is away."""

from collections.abc import AsyncIterator

import pytest

from marginal.errors import AlreadyAnswered, InProgress, KeyReused
from marginal.ledger.known_keys import KnownKeys
from marginal.ledger.ports import REMEMBERED_SECONDS, Settled
from marginal.routing.holds import Ask
from unit.ledger.test_leased import ARouter, FragileStore

NOW = 1_000.0


def ask(name: str, *, fingerprint: str = "this") -> Ask:
    return Ask(name, "acme", 5, 40, key="key", fingerprint=fingerprint)


def settled(name: str, *, answered: bool) -> Settled:
    return Settled(name, "acme", 10, NOW, answered=answered, key="key")


@pytest.fixture
async def router() -> AsyncIterator[ARouter]:
    """One whose store goes away when its first request is under way."""
    store = FragileStore()
    router = ARouter(store)
    async with router.leased.running():
        await router.goes(joined=True)
        await router.leased.reserve(ask("first"), lease_seconds=60.0)
        store.away = True
        yield router


async def test_a_request_under_way_is_still_known(router: ARouter) -> None:
    with pytest.raises(InProgress) as refused:
        await router.leased.reserve(ask("second"), lease_seconds=60.0)
    assert refused.value.request_id == "first"


async def test_an_answered_request_is_not_made_again(router: ARouter) -> None:
    await router.leased.settle([settled("first", answered=True)])
    with pytest.raises(AlreadyAnswered):
        await router.leased.reserve(ask("second"), lease_seconds=60.0)


async def test_a_request_that_failed_may_be_made_again(router: ARouter) -> None:
    await router.leased.settle([settled("first", answered=False)])
    await router.leased.reserve(ask("second"), lease_seconds=60.0)
    with pytest.raises(InProgress, match="first request"):
        await router.leased.reserve(ask("third"), lease_seconds=60.0)


async def test_another_request_under_the_same_key_is_refused(router: ARouter) -> None:
    with pytest.raises(KeyReused):
        await router.leased.reserve(ask("second", fingerprint="that"), lease_seconds=60.0)


async def test_a_request_that_was_lent_to_is_known_when_the_store_is_back() -> None:
    store = FragileStore()
    store.away = True
    router = ARouter(store)
    async with router.leased.running():
        await router.leased.reserve(ask("first"), lease_seconds=60.0)
        store.away = False
        await router.goes(joined=True)
        with pytest.raises(InProgress):
            await router.leased.reserve(ask("second"), lease_seconds=60.0)


def test_keys_are_forgotten_when_a_store_would_have() -> None:
    keys = KnownKeys()
    keys.granted(ask("first"), NOW)
    keys.check(ask("second"), NOW + REMEMBERED_SECONDS + 1)


def test_the_oldest_keys_make_room() -> None:
    keys = KnownKeys(most=1)
    keys.granted(ask("first"), NOW)
    keys.granted(Ask("other", "acme", 5, 40, key="other"), NOW)
    keys.check(ask("second"), NOW)
