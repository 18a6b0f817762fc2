"""A33 to A35: tenants who would be expensive or teach others, and an engine that will not stop."""

import asyncio

import grpc
import pytest

from engines.callers import Seen
from integration.abuse.house import House, asking
from integration.abuse.unruly import BOASTING, ENDLESS, ONE_CHUNK, TIMES_TOO_MANY, UNSURE
from marginal.routing.tenant_limits import DEFERRAL_BURST
from marginal.v1 import router_pb2

MAX_TOKENS = 8
FLOOD = 60


async def test_a33_prompts_that_are_never_sure_defer_no_more_than_the_tenants_share(house: House) -> None:
    asked = house.tiers.large.asked
    seen = [await house.caller("greedy").call(asking(UNSURE)) for _ in range(FLOOD)]
    deferred = [each for each in seen if each.tier == "LARGE"]
    assert len(deferred) == house.tiers.large.asked - asked <= DEFERRAL_BURST + FLOOD * 0.1
    assert {each.degraded for each in seen if each.tier == "SMALL"} == {"DEFERRAL_CAP"}


async def test_a33_who_insists_is_told_to_come_back_later(house: House) -> None:
    seen = await house.caller("grounded").call(asking(UNSURE, on_degrade=router_pb2.ON_DEGRADE_FAIL))
    assert (seen.code, seen.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
    assert seen.retry_seconds == 1.0


@pytest.mark.parametrize(
    ("victim", "traffic"),
    [pytest.param("calm", UNSURE, id="A33-never-sure"), pytest.param("calmer", "sure", id="A34-always-sure")],
)
async def test_a_flood_of_one_tenant_moves_no_threshold_of_another(house: House, victim: str, traffic: str) -> None:
    before = await thresholds(house, victim, 4)
    flood = await thresholds(house, "crowd", FLOOD, traffic)
    after = await thresholds(house, victim, 4)
    assert [*before, *after] == await thresholds(house, f"{victim}-undisturbed", 8)
    assert abs(flood[-1] - flood[0]) > 0.05


async def thresholds(house: House, tenant: str, requests: int, traffic: str = "sure") -> list[float]:
    """What each of so many requests was compared with."""
    seen: list[Seen] = [await house.caller(tenant).call(asking(traffic, policy="learning")) for _ in range(requests)]
    return [each.threshold for each in seen]


@pytest.mark.parametrize("mode", ["SMALL_ONLY", "LARGE_ONLY", "AUTO"])
@pytest.mark.parametrize(
    "engine", [pytest.param(ENDLESS, id="A35-token-by-token"), pytest.param(ONE_CHUNK, id="A35-at-once")]
)
async def test_an_engine_that_writes_a_hundred_times_too_much_is_cut_off(house: House, engine: str, mode: str) -> None:
    tier = house.tiers.large if mode == "LARGE_ONLY" else house.tiers.small
    tier.cut.clear()
    written = tier.unruly
    seen = await house.caller("ads").call(
        asking(engine, max_tokens=MAX_TOKENS, mode=router_pb2.Mode.Value(f"MODE_{mode}"))
    )
    assert seen.final is not None
    assert (seen.text, seen.final.finish_reason) == ("w " * MAX_TOKENS, 2)
    if engine == ENDLESS:
        await asyncio.wait_for(tier.cut.wait(), 2.0)
        assert tier.unruly - written < MAX_TOKENS * TIMES_TOO_MANY / 2
    await house.settled()
    admitted, record = house.admitted()[seen.request_id], house.record(seen.request_id)
    assert record["total_nanos"] == seen.nanos <= admitted["held_nanos"]
    assert [each["output_tokens"] for each in record["attempts"]] == [MAX_TOKENS]


@pytest.mark.parametrize("mode", ["AUTO", "SMALL_ONLY"])
async def test_a35_an_engine_that_only_claims_to_have_written_more(house: House, mode: str) -> None:
    request = asking(BOASTING, max_tokens=MAX_TOKENS, mode=router_pb2.Mode.Value(f"MODE_{mode}"))
    seen = await house.caller("ads").call(request)
    await house.settled()
    assert seen.nanos <= house.admitted()[seen.request_id]["held_nanos"]
