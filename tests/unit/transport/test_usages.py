"""What a model service remembers of its generations, and for whom."""

import asyncio
import contextlib

import pytest

from marginal.errors import InvalidRequest
from marginal.tokens import Usage
from marginal.transport.usages import MOST_CHARACTERS, Usages

USED = Usage(7, 3)


async def test_who_asks_too_early_waits_until_the_generation_has_ended() -> None:
    usages = Usages()
    usages.begin("one")
    asking = [asyncio.create_task(usages.of("one")) for _ in range(2)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in asking)
    usages.end("one", USED)
    assert await asyncio.gather(*asking) == [USED, USED]
    assert await usages.of("one") == USED


async def test_who_stops_asking_disturbs_nobody() -> None:
    usages = Usages()
    usages.begin("one")
    impatient, patient = (asyncio.create_task(usages.of("one")) for _ in range(2))
    await asyncio.sleep(0)
    impatient.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await impatient
    usages.end("one", USED)
    assert await patient == USED


@pytest.mark.parametrize("generation_id", ["", "another's"])
async def test_one_that_is_not_known_is_refused(generation_id: str) -> None:
    usages = Usages()
    usages.begin("")
    usages.end("", USED)
    with pytest.raises(InvalidRequest, match="generation_id: is no generation's that is remembered"):
        await usages.of(generation_id)


async def test_only_the_latest_are_remembered() -> None:
    usages = Usages(remembered=2)
    for name in ("one", "two", "three"):
        usages.begin(name)
        usages.end(name, USED)
    assert await usages.of("two") == await usages.of("three") == USED
    with pytest.raises(InvalidRequest):
        await usages.of("one")


async def test_nobody_can_take_the_id_of_another() -> None:
    usages = Usages()
    usages.begin("one")
    with pytest.raises(InvalidRequest, match="is another generation's"):
        usages.begin("one")
    usages.end("one", USED)
    with pytest.raises(InvalidRequest, match="is another generation's"):
        usages.begin("one")


async def test_an_id_of_any_length_is_not_kept() -> None:
    with pytest.raises(InvalidRequest, match="65 characters"):
        Usages().begin("x" * (MOST_CHARACTERS + 1))
