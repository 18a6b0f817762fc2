"""Every fault of an engine, F4 to F20, through every backend and a real router: what a caller sees, and the ledger."""

import asyncio
import time

import pytest

from contract.fault_cases import CASES, Case, wrong
from contract.faulty import BACKENDS, TIMEOUTS, Backend, ask
from dialects.answers import SLOW
from dialects.faults import RETRY_AFTER_SECONDS, VARIANTS
from dialects.server import DialectServer
from marginal.errors import Overloaded
from marginal.tokens import Generation, Message, Role, Sampling

STANDSTILL_AFTER_SECONDS, STANDSTILL_SECONDS = 0.25, 0.5
"""Of the event loop, in the midst of an answer: longer than an engine may be silent."""


@pytest.fixture(params=BACKENDS.values(), ids=BACKENDS.keys())
def backend(request: pytest.FixtureRequest) -> Backend:
    return request.param


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_fault_ends_as_the_catalogue_says_and_the_ledger_agrees_with_the_engine(
    backend: Backend, case: Case
) -> None:
    assert wrong(case, backend, await case.run(backend)) == []


async def test_without_a_fault_the_answer_is_whole_and_exactly_counted(backend: Backend) -> None:
    seen = await ask(backend, "")
    assert (seen.outcome, seen.difference, seen.input_difference) == ("small answer", 0, 0)
    assert seen.log[-1].finished


async def test_a_caller_who_hangs_up_stops_the_engine_and_is_billed_what_was_generated(backend: Backend) -> None:
    seen = await ask(backend, "", words="slowly", hang_up_after=2)
    assert seen.record.error == "Cancelled"
    assert (seen.difference, seen.input_difference) == (0, 0)
    assert seen.log[-1].cut == "disconnect"


async def test_how_long_to_leave_an_overloaded_engine_alone_is_handed_on(backend: Backend) -> None:
    async with DialectServer(backend.dialect) as server:
        server.inject("F8")
        model = backend.build(server.url, None, TIMEOUTS)
        with pytest.raises(Overloaded) as caught:
            [chunk async for chunk in model.generate(asking("hello"))]
        await model.close()
    assert caught.value.retry_seconds == RETRY_AFTER_SECONDS


def test_every_fault_has_a_case() -> None:
    shown = {case.fault.partition("/")[0] for case in CASES}
    assert shown == set(VARIANTS)


def asking(text: str, **sampling: object) -> Generation:
    return Generation((Message(Role.USER, text),), Sampling(**sampling), alternatives=3)


async def test_an_engine_is_not_blamed_for_the_time_in_which_the_router_itself_stood_still(backend: Backend) -> None:
    standstill = asyncio.get_running_loop().call_later(STANDSTILL_AFTER_SECONDS, time.sleep, STANDSTILL_SECONDS)
    seen = await ask(backend, "", words=SLOW)
    standstill.cancel()
    assert (seen.outcome, seen.difference, seen.input_difference) == ("small answer", 0, 0)
