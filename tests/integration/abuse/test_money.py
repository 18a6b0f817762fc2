"""A20 to A24: more than a tenant may spend, faster than it may ask, or the same thing twice."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from engines.callers import Seen
from integration.abuse import house as houses
from integration.abuse.house import LARGE_NANOS, SMALL_NANOS, House, asking
from integration.abuse.unruly import SLOW, UNSURE, Tiers
from marginal.ledger.leased import AWAY
from marginal.ledger.slices import SHARE
from marginal.v1 import router_pb2

LIMIT_NANOS = 1_010_100_000
"""Of the tenant "edge": an answer of the large tier leaves one percent, enough for 96 of the small one."""

SLICE_NANOS = int(LIMIT_NANOS * SHARE)
"""What more a router allows when a busy machine keeps its store from answering in time, as it says at its start."""


@pytest.fixture(scope="module")
async def alone(tiers: Tiers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """A router that keeps its budgets in its own memory."""
    async with houses.house(tmp_path_factory.mktemp("alone"), tiers, None) as house:
        yield house


async def test_a20_over_budget(house: House) -> None:
    seen = await house.caller("broke").call(asking())
    assert (seen.code, seen.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "BUDGET_EXCEEDED")
    assert (seen.quotas, seen.info["window"]) == (["budget:hour"], "hour")
    assert 0 <= int(seen.info["reset_seconds"]) <= 3_600
    assert (seen.pushback, seen.retry_seconds) == ("-1", None)
    assert seen.request_id not in house.admitted()


async def test_a20_what_still_covers_the_small_tier_is_served_by_it(house: House) -> None:
    asked = house.tiers.large.asked
    seen = await house.caller("poor").call(asking(UNSURE))
    assert (seen.tier, seen.degraded, seen.nanos) == ("SMALL", "BUDGET", SMALL_NANOS)
    assert house.tiers.large.asked == asked


async def test_a20_who_insists_on_the_large_tier_is_told_of_the_budget(house: House) -> None:
    seen = await house.caller("poor").call(asking(UNSURE, on_degrade=router_pb2.ON_DEGRADE_FAIL))
    assert (seen.code, seen.reason, seen.pushback) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "BUDGET_EXCEEDED",
        "-1",
    )
    assert len(seen.quotas) == 1


async def test_a21_over_rate(house: House) -> None:
    first, second = [await house.caller("hasty").call(asking()) for _ in range(2)]
    assert (first.code, second.code) == (grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert second.reason == "RATE_LIMITED"
    assert second.retry_seconds is not None
    assert 0.0 < second.retry_seconds <= 2.0
    assert second.pushback is None
    assert second.request_id not in house.admitted()


async def test_a21_too_many_at_a_time(house: House) -> None:
    seen = await asyncio.gather(*(house.caller("narrow").call(asking(SLOW)) for _ in range(4)))
    refused = [each for each in seen if each.code is not grpc.StatusCode.OK]
    assert {(each.reason, each.retry_seconds) for each in refused} == {("RATE_LIMITED", 1.0)}
    assert len(refused) == 3
    assert not {each.request_id for each in refused} & house.admitted().keys()


@pytest.mark.parametrize("store", ["valkey", "memory"])
async def test_a22_two_hundred_at_the_last_percent_of_a_budget(house: House, alone: House, store: str) -> None:
    here = house if store == "valkey" else alone
    first = await here.caller("edge").call(asking(mode=router_pb2.MODE_LARGE_ONLY))
    assert first.nanos == LARGE_NANOS
    seen = await asyncio.gather(*(patiently(here, asking(UNSURE if number % 2 else "sure")) for number in range(200)))
    await here.settled()
    answered = {each.request_id: each.nanos for each in seen if each.code is grpc.StatusCode.OK}
    assert {each.reason for each in seen} == {"", "BUDGET_EXCEEDED"}, {each.text for each in seen}
    paid = {request_id: nanos for request_id, nanos in here.spent("edge").items() if nanos}
    assert paid == answered | {first.request_id: LARGE_NANOS}
    most = LIMIT_NANOS + (SLICE_NANOS if AWAY in here.running.program.log_path.read_text() else 0)
    assert 0.995 * LIMIT_NANOS < sum(paid.values()) <= most
    assert not {each.request_id for each in seen if each.reason} & here.admitted().keys()


async def patiently(here: House, request: router_pb2.RouterServiceGenerateRequest) -> Seen:
    """Asks again for as long as there is no room: 200 are more than wait in line."""
    while True:
        seen = await here.caller("edge").call(request)
        if seen.reason != "OVERLOADED":
            return seen
        await asyncio.sleep(0.05)


async def test_a23_the_same_key_twice_at_a_time_is_charged_once(house: House) -> None:
    before = house.admitted().keys()
    seen = await asyncio.gather(*(house.caller().call(asking(SLOW, idempotency_key="a23")) for _ in range(2)))
    first, second = sorted(seen, key=lambda each: each.code is not grpc.StatusCode.OK)
    assert first.nanos == SMALL_NANOS
    assert (second.code, second.reason) == (grpc.StatusCode.ABORTED, "IN_PROGRESS")
    assert (second.info["request_id"], second.retry_seconds, second.pushback) == (first.request_id, 1.0, None)
    assert house.admitted().keys() - before == {first.request_id}


async def test_a23_the_same_key_again_is_told_that_it_was_answered(house: House) -> None:
    first, second = [await again(house, "a23-again") for _ in range(2)]
    assert first.code is grpc.StatusCode.OK
    assert (second.code, second.reason) == (grpc.StatusCode.ALREADY_EXISTS, "ALREADY_ANSWERED")
    assert (second.info["request_id"], second.pushback) == (first.request_id, "-1")
    assert second.request_id not in house.admitted()


async def again(house: House, key: str) -> Seen:
    """Asks under a key, once the store knows how the time before ended."""
    seen = await house.caller().call(asking(idempotency_key=key))
    await house.settled()
    return seen


async def test_a23_a_key_is_a_tenants_own(house: House) -> None:
    seen = [await house.caller(tenant).call(asking(idempotency_key="a23-own")) for tenant in ("search", "ads")]
    assert [each.code for each in seen] == [grpc.StatusCode.OK] * 2


OTHER = {
    "A24-another-prompt": asking("another question", idempotency_key="a24"),
    "A24-another-limit": asking(max_tokens=5, idempotency_key="a24"),
    "A24-another-mode": asking(mode=router_pb2.MODE_LARGE_ONLY, idempotency_key="a24"),
}


@pytest.mark.parametrize("other", OTHER.values(), ids=list(OTHER))
async def test_a_key_with_another_request(house: House, other: router_pb2.RouterServiceGenerateRequest) -> None:
    await again(house, "a24")
    seen = await house.caller().call(other)
    assert (seen.code, seen.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "IDEMPOTENCY_MISMATCH")
    assert (seen.fields, seen.pushback) == (["idempotency_key"], "-1")
    assert seen.request_id not in house.admitted()
    assert b"a24" not in seen.sent
