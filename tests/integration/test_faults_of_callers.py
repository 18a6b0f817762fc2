"""Faults of callers, by the numbers of the catalogue: F21 to F26.

Each row asserts what its caller sees, and after every row each request has one final record and the ledger agrees with
the journal to the nano-unit.
"""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from engines.callers import asking, taken
from engines.obedient import WIDE, Tiers, obedient_tiers
from integration.houses import DEADLINE_SECONDS, STALL_SECONDS, SURE, UNSURE, House, house_of, until

ENDLESS = "small:tokens=2000,delay_ms=20"
LATE_LARGE = f"{UNSURE} large:first_delay_ms=20000"


@pytest.fixture(scope="module")
async def tiers() -> AsyncIterator[Tiers]:
    async with obedient_tiers() as both:
        yield both


@pytest.fixture(scope="module")
async def house(tiers: Tiers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    built = house_of(tmp_path_factory.mktemp("faults"), tiers)
    with built.router as router:
        router.start()
        await router.serving()
        yield built


async def f21_hangs_up_while_nothing_comes(house: House) -> str:
    async with house.caller() as caller:
        call = caller.begun(asking(LATE_LARGE))
        await until(lambda: house.tiers.large.active)
        call.cancel()
        await house.idle()
    return "Cancelled"


async def f21_hangs_up_between_two_pieces(house: House) -> str:
    async with house.caller() as caller:
        seen = await caller.call(asking(ENDLESS, max_tokens=2000), leaves_after=3)
        await house.idle()
    assert seen.pieces == 3
    return "Cancelled"


async def f21_hangs_up_on_what_it_has_not_read(house: House) -> str:
    async with house.caller() as caller:
        call = caller.begun(asking(f"{WIDE} small:tokens=1000,delay_ms=1", max_tokens=1000))
        await call.read()
        await asyncio.sleep(STALL_SECONDS / 2)  # its window is full, and the router waits in a write
        call.cancel()
        await house.idle()
    return "Cancelled"


VANISHING = """
import sys, time, grpc
from marginal.v1 import router_pb2, router_pb2_grpc, generation_pb2
stub = router_pb2_grpc.RouterServiceStub(grpc.insecure_channel(sys.argv[1]))
request = router_pb2.RouterServiceGenerateRequest(
    prompt=sys.argv[2], sampling=generation_pb2.Sampling(max_tokens=2000)
)
for response in stub.Generate(request, timeout=600):
    print("reading", flush=True)
"""


async def _vanished(house: House, how: signal.Signals, prompt: str) -> str:
    """A caller in a process of its own, which is ended or frozen while it is being answered."""
    caller = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", VANISHING, house.router.target, prompt), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert caller.stdout is not None
        await caller.stdout.readline()
        caller.send_signal(how)
        await house.idle()
    finally:
        if caller.returncode is None:
            caller.kill()
        await caller.wait()
    return "Cancelled"


async def f22_is_killed(house: House) -> str:
    return await _vanished(house, signal.SIGKILL, ENDLESS)


async def f22_freezes_and_answers_no_ping(house: House) -> str:
    return await _vanished(house, signal.SIGSTOP, ENDLESS)


async def f23_does_not_read(house: House) -> str:
    async with house.caller() as caller:
        call = caller.begun(asking(f"{WIDE} small:tokens=1000,delay_ms=1", max_tokens=1000))
        await call.read()
        await house.idle()
        assert (await taken(call)).status == "DEADLINE_EXCEEDED SLOW_CONSUMER"
    return "SlowConsumer"


async def f24_has_too_little_time_for_any_tier(house: House) -> None:
    asked = house.tiers.small.asked
    async with house.caller() as caller:
        await caller.call(asking(SURE))  # the connection is there
        seen = await caller.call(asking(SURE), timeout=0.19)
    assert seen.status in {"DEADLINE_EXCEEDED DEADLINE_TOO_SHORT", "DEADLINE_EXCEEDED"}  # a busy machine tells too late
    assert house.tiers.small.asked == asked + 1


async def f25_has_too_little_time_for_the_large_tier(house: House) -> None:
    async with house.caller() as caller:
        seen = await caller.call(asking(UNSURE), timeout=4.0)
    assert (seen.status, seen.tier, seen.degraded) == ("OK", "SMALL", "DEADLINE")


async def f26_has_no_deadline(house: House) -> None:
    async with house.caller() as caller:
        seen = await caller.call(asking(SURE), timeout=None)
        own = await caller.call(asking(SURE), timeout=DEADLINE_SECONDS / 2)
        longer = await caller.call(asking(SURE), timeout=DEADLINE_SECONDS * 1000)
    assert (seen.status, seen.trailers["marginal-deadline-seconds"]) == ("OK", "30")
    assert longer.trailers["marginal-deadline-seconds"] == "30"
    assert "marginal-deadline-seconds" not in own.trailers


Row = Callable[[House], Awaitable[str | None]]
ROWS: dict[str, Row] = {
    "F21 hangs up while nothing comes": f21_hangs_up_while_nothing_comes,
    "F21 hangs up between two pieces": f21_hangs_up_between_two_pieces,
    "F21 hangs up on what it has not read": f21_hangs_up_on_what_it_has_not_read,
    "F22 is killed": f22_is_killed,
    "F22 freezes": f22_freezes_and_answers_no_ping,
    "F23 does not read": f23_does_not_read,
    "F24 has no time for any tier": f24_has_too_little_time_for_any_tier,
    "F25 has no time for the large tier": f25_has_too_little_time_for_the_large_tier,
    "F26 has no deadline": f26_has_no_deadline,
}


@pytest.mark.parametrize("row", [pytest.param(row, id=name) for name, row in ROWS.items()])
async def test_a_caller_that(row: Row, house: House) -> None:
    before = set((await house.audited()).records)
    error = await row(house)
    audit = await house.audited()
    new = [record for request_id, record in audit.records.items() if request_id not in before]
    assert all(record["settlement"] == "settled" for record in new)
    if error is not None:
        [record] = new
        assert record["error"] == error
        assert record["total_nanos"] > 0
        assert record["attempts"][-1]["outcome"] in {"failed", "aborted"}
