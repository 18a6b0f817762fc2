"""A13 to A16 and A25: callers who are nobody, who say that they are somebody else, or who tell what to charge."""

import base64
import hashlib
import hmac
import json
import time
from statistics import median
from typing import Any

import grpc
import pytest
from typer.testing import CliRunner

from engines.callers import Caller, Metadata, Request, Seen
from integration.abuse.house import House, asking, until
from marginal.entrypoints import keys as keys_command
from marginal.routing.keyring import REFUSAL
from marginal.settings.keys_file import minted

NO_MESSAGE = b"\xff\xff\xff"
TENANT = "search"
NOW = int(time.time())

SPACIOUS = 6_000
"""Bytes of metadata that always come through: gRPC refuses above 8 kB now and then, and above 16 kB always."""


def bearer(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),)


def part(content: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()


def jwt(*, alg: str = "HS256", secret: bytes = b"secret", **claims: Any) -> Metadata:
    """A token of another system, as well-formed as they come."""
    payload = {"sub": TENANT, "aud": "marginal", "exp": NOW + 3600, **claims}
    told = f"{part({'alg': alg, 'typ': 'JWT'})}.{part({k: v for k, v in payload.items() if v is not None})}"
    signature = b"" if alg == "none" else hmac.digest(secret, told.encode(), hashlib.sha256)
    return bearer(f"{told}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}")


NOBODY: dict[str, Metadata] = {
    "A13-no-credentials": (),
    "A13-a-tenant-is-no-credential": (("marginal-tenant", TENANT),),
    "A13-malformed": bearer("mk_"),
    "A13-unknown-key": bearer(minted(TENANT, now=0.0)[0]),
    "A13-another-scheme": (("authorization", f"Basic {minted(TENANT, now=0.0)[0]}"),),
    "A13-two-keys": (*bearer("a"), ("x-api-key", "b")),
    "A13-expired-jwt": jwt(exp=NOW - 3600),
    "A13-6-kB-of-key": bearer("k" * SPACIOUS),
    "A15-jwt-without-signature": jwt(alg="none"),
    "A15-jwt-signed-with-a-public-key": jwt(secret=b"-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----"),
    "A15-jwt-for-another-audience": jwt(aud="billing"),
    "A15-jwt-not-valid-yet": jwt(nbf=NOW + 3600),
    "A15-jwt-without-an-end": jwt(exp=None),
}


def comparable(seen: Seen) -> dict[str, Any]:
    """All that a caller can tell one refusal from another by; only the date is left out."""
    trailers = {key: value for key, value in seen.trailers.items() if key != "date"}
    return {**vars(seen), "trailers": trailers, "sent": b""}


@pytest.fixture
async def nobody(house: House) -> Caller:
    return house.caller("")


@pytest.mark.parametrize("said", NOBODY.values(), ids=list(NOBODY))
@pytest.mark.parametrize("request_", [asking(), NO_MESSAGE], ids=["", "unread"])
async def test_nobody_gets_the_same_answer_whatever_is_wrong(
    house: House, nobody: Caller, said: Metadata, request_: Request | bytes
) -> None:
    before, asked = house.admitted().keys(), house.tiers.asked
    seen = await nobody.call(request_, *said)
    assert (seen.code, seen.text, seen.reason) == (grpc.StatusCode.UNAUTHENTICATED, REFUSAL, "UNAUTHENTICATED")
    assert (seen.info, seen.fields, seen.retry_seconds, seen.pushback) == ({}, [], None, "-1")
    assert comparable(seen) == comparable(await nobody.call(asking()))
    assert TENANT.encode() not in seen.sent
    assert (house.admitted().keys(), house.tiers.asked) == (before, asked)


async def test_a13_it_takes_as_long_to_refuse_a_key_that_exists(house: House, nobody: Caller) -> None:
    near = f"{house.keys[TENANT][:-1]}{'A' if house.keys[TENANT][-1] != 'A' else 'B'}"
    seconds: dict[str, list[float]] = {"nothing like a key": [], near: []}
    for _ in range(60):
        for key, times in seconds.items():
            began = time.perf_counter()
            await nobody.call(asking(), *bearer(key))
            times.append(time.perf_counter() - began)
    unknown, known = map(median, seconds.values())
    assert abs(unknown - known) < 0.5 * max(unknown, known)


async def test_a14_a_key_speaks_for_its_own_tenant_alone(house: House) -> None:
    before = house.admitted().keys()
    seen = await house.caller().call(asking(), ("marginal-tenant", "ads"))
    assert (seen.code, seen.reason) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_ALLOWED")
    assert (seen.pushback, b"ads" in seen.sent) == ("-1", False)
    assert house.admitted().keys() == before


async def test_a14_a_tenant_in_the_body_is_not_even_read(house: House) -> None:
    unknown_field = b"\xa2\x06\x03ads"
    seen = await house.caller().call(asking().SerializeToString() + unknown_field)
    assert house.admitted()[seen.request_id]["tenant"] == TENANT


async def test_a14_a_policy_that_is_not_the_tenants_is_refused(house: House) -> None:
    seen = await house.caller("restricted").call(asking(policy="plain"))
    assert (seen.code, seen.reason, seen.pushback) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_ALLOWED", "-1")
    assert seen.request_id not in house.admitted()


INJECTIONS = {
    "colon": "a:b",
    "braces": "{a}",
    "a-glob": "*",
    "another-command": "a FLUSHALL",
    "lua": "a';redis.call('FLUSHALL')--",
    "a-path": "../../etc/passwd",
    "upper-case": "Search",
    "6-kB": "a" * SPACIOUS,
    "nothing": "",
}


@pytest.mark.parametrize("name", [pytest.param(name, id=f"A16-{which}") for which, name in INJECTIONS.items()])
async def test_a_tenant_that_could_be_taken_for_something_else(house: House, name: str) -> None:
    assert house.valkey is not None
    with house.valkey.client() as client:
        before = set(client.scan_iter())
        seen = await house.caller().call(asking(), ("marginal-tenant", name))
        assert (seen.code, seen.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
        assert seen.fields == ["marginal-tenant"]
        assert set(client.scan_iter()) == before
    assert not name or name.encode() not in seen.sent
    assert seen.request_id not in house.admitted()


@pytest.mark.parametrize("name", [pytest.param(name, id=f"A16-{which}") for which, name in INJECTIONS.items()])
def test_no_key_is_given_to_such_a_tenant(house: House, name: str) -> None:
    done = CliRunner().invoke(
        keys_command.app, ["create", "--keys-file", str(house.directory / "new.jsonl"), "--", name]
    )
    assert done.exit_code != 0
    assert not (house.directory / "new.jsonl").exists()


CLAIMS = {
    "A25-no-cost": ("marginal-cost", "0"),
    "A25-no-tokens": ("marginal-usage", '{"output_tokens":0}'),
    "A25-the-large-tier": ("marginal-tier", "large"),
    "A25-a-verdict": ("marginal-route", "DEFER"),
    "A25-an-id": ("marginal-request-id", "mine"),
    "A25-a-tenant-in-baggage": ("baggage", "marginal.tenant=ads"),
    "A25-a-policy": ("marginal-policy", "learning"),
    "A25-who-it-came-for": ("x-forwarded-user", "ads"),
}


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=list(CLAIMS))
async def test_what_a_caller_claims_changes_nothing(house: House, claim: tuple[str, str]) -> None:
    plain, claiming = [await house.caller().call(asking(), *claims) for claims in ((), (claim,))]
    await until(lambda: claiming.request_id in house.admitted())
    records = [told(house.record(seen.request_id)) for seen in (plain, claiming)]
    assert records[0] == records[1]
    assert claiming.request_id != "mine"


def told(record: Any) -> dict[str, Any]:
    """What a record says of who, how and how much."""
    decided = record["decision"]["verdict"]
    return {key: record[key] for key in ("tenant", "policy", "tier", "total_nanos", "error")} | {"verdict": decided}
