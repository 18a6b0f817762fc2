"""What one router believes of the others' demand while they tell it, cannot be asked, or tell nonsense."""

import asyncio
import json

import pytest

from fakes import SteppingClock
from marginal.entrypoints.scaling import BACK_SECONDS, KEPT_SECONDS, Others, Scaling
from marginal.tokens import Tier
from unit.telemetry.spans import MemoryLog

UNKNOWN = "the demand of other routers is not known now"
DROPPED = "the last known demand of other routers is dropped"
UNREADABLE = "the demand of other routers cannot be read"
BACK = "the demand of other routers is known again"


class Believing:
    """One router's beliefs, its clock and its log."""

    def __init__(self) -> None:
        self.clock = SteppingClock()
        self.log = MemoryLog()
        self.others = Others(self.clock, self.log.logs.log)

    def wanted(self) -> tuple[float, float]:
        return self.others.wanted(Tier.SMALL), self.others.wanted(Tier.LARGE)

    def said(self) -> list[str]:
        return [line["event"] for line in self.log.events()]


@pytest.fixture
def router() -> Believing:
    return Believing()


def text(small: float, large: float = 0.0) -> str:
    return json.dumps({"small": small, "large": large})


def test_what_the_others_want_is_added_up(router: Believing) -> None:
    assert router.wanted() == (0.0, 0.0)
    router.others.told([text(12, 1), text(12, 0.5), text(12)])
    assert router.wanted() == (36.0, 1.5)
    router.others.told([text(3)])
    assert router.wanted() == (3.0, 0.0)
    assert router.said() == []


def test_the_last_known_is_kept_while_they_cannot_be_asked_and_then_dropped_which_is_said_once(
    router: Believing,
) -> None:
    router.others.told([text(12, 1)] * 3)
    for _ in range(int(KEPT_SECONDS)):
        router.others.missed("the budget store did not answer in time")
        assert router.wanted() == (36.0, 3.0)
        router.clock.now += 1.0
    for _ in range(3):
        router.others.missed("the budget store did not answer in time")
        assert router.wanted() == (0.0, 0.0)
    assert router.said() == [UNKNOWN, DROPPED]


def test_who_never_knew_anything_has_nothing_to_drop(router: Believing) -> None:
    router.others.missed("away")
    router.clock.now += KEPT_SECONDS
    router.others.missed("away")
    assert router.said() == [UNKNOWN]


def test_a_store_that_comes_back_empty_takes_nothing_away_until_everybody_had_time_to_tell_it(
    router: Believing,
) -> None:
    router.others.told([text(12)] * 3)
    router.others.missed("away")
    router.others.told([])
    assert router.wanted() == (36.0, 0.0)
    router.clock.now += BACK_SECONDS / 2
    router.others.told([text(12, 2)])
    assert router.wanted() == (36.0, 2.0)
    router.clock.now += BACK_SECONDS / 2
    router.others.told([text(10)] * 3)
    assert router.wanted() == (30.0, 0.0)
    assert router.said() == [UNKNOWN, BACK]


def test_each_absence_has_its_own_time_and_its_own_lines(router: Believing) -> None:
    for _ in range(2):
        router.others.told([text(5)])
        router.clock.now += BACK_SECONDS
        router.others.missed("away")
        router.clock.now += KEPT_SECONDS - 1.0
        router.others.missed("away")
        assert router.wanted() == (5.0, 0.0)
    assert router.said() == [UNKNOWN, BACK, UNKNOWN]


@pytest.mark.parametrize(
    "nonsense",
    [
        "",
        "{",
        "[]",
        "12",
        "null",
        '{"small": "many"}',
        '{"small": null}',
        '{"small": NaN}',
        '{"small": Infinity}',
        '{"small": -1}',
        f'{{"small": 1{"0" * 400}}}',
        '{"large": 1e300}',
        "[" * 100_000,
    ],
)
def test_a_text_that_makes_no_sense_is_passed_over_and_said_once(router: Believing, nonsense: str) -> None:
    for _ in range(3):
        router.others.told([text(4), nonsense, text(8)])
        assert router.wanted() == (12.0, 0.0)
    assert router.said() == [UNREADABLE]
    router.others.told([text(4)])
    router.others.told([nonsense, nonsense])
    assert [line.get("routers") for line in router.log.events()] == [1, 2]


def test_an_error_that_nobody_expected_is_said_with_where_it_was_raised_though_the_store_was_away_before(
    router: Believing,
) -> None:
    router.others.told([text(5)])
    router.others.missed("away")
    for _ in range(2):
        router.others.missed("ZeroDivisionError", error=ZeroDivisionError("a prompt"))
    assert router.wanted() == (5.0, 0.0)
    assert router.said() == [UNKNOWN, UNKNOWN]
    assert router.log.events()[1]["exception"] == "ZeroDivisionError"
    assert "a prompt" not in router.log.lines()[1]


class StoppedClock:
    """A clock that cannot be read any more."""

    def __call__(self) -> float:
        raise OSError("no clock")


async def test_a_scaler_that_cannot_look_any_more_stops_the_router_with_an_error() -> None:
    stop = asyncio.Event()
    scaling = Scaling(StoppedClock(), MemoryLog().logs.log)
    with pytest.raises(OSError, match="no clock"):
        async with scaling.watching({}, stop.set), asyncio.timeout(5):
            await stop.wait()
