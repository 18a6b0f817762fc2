"""Whom a call is billed to, by what is in its metadata."""

import pytest

from marginal.errors import InvalidRequest, NotAllowed, Unauthenticated
from marginal.transport.credentials import ONE_TENANT, Callers

KEY = "mk_5f0c2a9b71de_" + "s" * 43


def opened(key: str) -> str:
    """A keyring of one key."""
    if key != KEY:
        raise Unauthenticated("no")
    return "search"


KEYS = Callers(opened)
BEARER = ("authorization", f"Bearer {KEY}")


@pytest.mark.parametrize(
    "metadata",
    [
        [BEARER],
        [("authorization", f"bearer {KEY}")],
        [("x-api-key", KEY)],
        [BEARER, ("marginal-tenant", "search")],
        [("user-agent", "x"), BEARER, ("marginal-cost", "0"), ("cost-bin", b"\x00")],
    ],
)
def test_a_key_tells_the_tenant(metadata: list[tuple[str, str]]) -> None:
    assert KEYS.tenant(metadata) == "search"


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        [],
        [("marginal-tenant", "search")],
        [("authorization", KEY)],
        [("authorization", f"Basic {KEY}")],
        [("authorization", "Bearer")],
        [("authorization", "Bearer ")],
        [("authorization", f"Bearer {KEY} {KEY}")],
        [("x-api-key", f"Bearer {KEY}")],
        [BEARER, BEARER],
        [BEARER, ("x-api-key", KEY)],
        [("x-api-key", KEY), ("x-api-key", "another")],
        [("marginal-tenant", "no name"), ("authorization", "Bearer another")],
    ],
)
def test_without_one_good_key_nobody_is_told_apart(metadata: list[tuple[str, str]] | None) -> None:
    with pytest.raises(Unauthenticated):
        KEYS.tenant(metadata)


@pytest.mark.parametrize("callers", [KEYS, Callers(opened, trust_header=True)], ids=["keys", "headers trusted too"])
def test_with_keys_the_header_can_name_nobody_else(callers: Callers) -> None:
    with pytest.raises(NotAllowed, match="another tenant") as refused:
        callers.tenant([BEARER, ("marginal-tenant", "ads")])
    assert "search" not in str(refused.value)
    assert "ads" not in str(refused.value)


def test_without_keys_everything_is_one_tenants() -> None:
    assert ONE_TENANT.tenant([]) == "default"
    assert ONE_TENANT.tenant([("marginal-tenant", "default")]) == "default"
    with pytest.raises(NotAllowed):
        ONE_TENANT.tenant([("marginal-tenant", "ads")])


def test_a_header_is_believed_where_that_was_said() -> None:
    trusting = Callers(trust_header=True)
    assert trusting.tenant([("marginal-tenant", "ads")]) == "ads"
    assert trusting.tenant([]) == "default"


@pytest.mark.parametrize("name", ["", "A", "a b", "a:b", "{a}", "a\n", "x" * 10_000, "redis.call('flushall')"])
@pytest.mark.parametrize("callers", [ONE_TENANT, Callers(trust_header=True)])
def test_a16_what_could_be_no_name_is_refused(callers: Callers, name: str) -> None:
    with pytest.raises(InvalidRequest):
        callers.tenant([("marginal-tenant", name)])
