"""The time of a tier is divided evenly among the attempts under way at each moment."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marginal.routing.busy import BusyTime

SECONDS = st.floats(0.0, 1_000.0)
ATTEMPTS = st.lists(st.tuples(SECONDS, SECONDS), min_size=1, max_size=40)
START = 1e6
"""A clock that has run for days."""


def shares(attempts: list[tuple[float, float]]) -> list[int]:
    """What each attempt, a beginning and a length in seconds, is told at its end."""
    moments = sorted(
        moment
        for number, (begins, lasts) in enumerate(attempts)
        for moment in ((START + begins, 0, number), (START + begins + lasts, 1, number))
    )
    busy, began, told = BusyTime(), dict[int, float](), dict[int, int]()
    for now, is_end, number in moments:
        if is_end:
            told[number] = busy.end(began[number], now)
        else:
            began[number] = busy.begin(now)
    return [told[number] for number in range(len(attempts))]


def covered(attempts: list[tuple[float, float]]) -> float:
    """Seconds in which at least one attempt was under way."""
    total, until = 0.0, 0.0
    for begins, ends in sorted((START + begins, START + begins + lasts) for begins, lasts in attempts):
        total += max(0.0, ends - max(begins, until))
        until = max(until, ends)
    return total


def test_an_attempt_alone_has_all_the_time_it_takes() -> None:
    assert shares([(1.0, 0.25)]) == [250_000]


def test_two_at_once_have_half_of_it_each() -> None:
    assert shares([(0.0, 1.0), (0.0, 1.0)]) == [500_000, 500_000]


def test_an_attempt_that_another_joins_shares_from_then_on() -> None:
    assert shares([(0.0, 3.0), (1.0, 1.0)]) == [2_500_000, 500_000]


def test_the_time_in_which_nobody_asks_is_nobodys() -> None:
    assert shares([(0.0, 1.0), (500.0, 1.0)]) == [1_000_000, 1_000_000]


@given(ATTEMPTS)
def test_all_shares_add_up_to_the_time_in_which_at_least_one_was_under_way(attempts: list[tuple[float, float]]) -> None:
    assert sum(shares(attempts)) == pytest.approx(covered(attempts) * 1e6, abs=len(attempts))


@given(ATTEMPTS)
def test_no_share_is_negative_or_more_than_the_attempt_took(attempts: list[tuple[float, float]]) -> None:
    for share, (_, lasts) in zip(shares(attempts), attempts, strict=True):
        assert 0 <= share <= lasts * 1e6 + 1


def test_the_share_so_far_is_known_while_the_attempt_goes_on() -> None:
    busy = BusyTime()
    first = busy.begin(0.0)
    busy.begin(2.0)
    assert busy.share(first, 4.0) == 3_000_000


def test_a_clock_that_goes_back_takes_nothing_away() -> None:
    busy = BusyTime()
    began = busy.begin(5.0)
    assert busy.end(began, 4.0) == 0


def test_the_usual_share_is_the_mean_of_those_that_ended() -> None:
    busy = BusyTime()
    assert busy.usual_micros == 0
    for now in (0.0, 10.0):
        busy.end(busy.begin(now), now + 1.0 + now / 5)
    assert busy.usual_micros == 2_000_000
