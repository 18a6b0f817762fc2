"""Endpoints that fail go out, longer each time, and come back by one trial; never all of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marginal.backends.ejection import Ejection, EjectionRules, Ticket


def fail(ejection: Ejection, endpoint: int, now: float, *, times: int = 3) -> float | None:
    """What the last of so many failures in a row puts it out for."""
    seconds = None
    for _ in range(times):
        seconds = ejection.failed(ejection.begun(endpoint, now), now)
    return seconds


def succeed(ejection: Ejection, endpoint: int, now: float) -> None:
    ticket = ejection.begun(endpoint, now)
    ejection.answered(ticket)
    ejection.succeeded(ticket)


def test_three_faults_in_a_row_put_an_endpoint_out_for_a_second() -> None:
    ejection = Ejection(2, EjectionRules())
    assert fail(ejection, 0, 10.0, times=2) is None
    assert ejection.open(10.0) == (0, 1)
    assert fail(ejection, 0, 10.0, times=1) == 1.0
    assert ejection.open(10.0) == ejection.open(10.999) == (1,)
    assert ejection.open(11.0) == (0, 1)


def test_a_success_in_between_starts_the_count_anew() -> None:
    ejection = Ejection(2, EjectionRules())
    fail(ejection, 0, 0.0, times=2)
    succeed(ejection, 0, 0.0)
    assert fail(ejection, 0, 0.0, times=2) is None
    assert ejection.open(0.0) == (0, 1)


def test_after_its_time_one_request_tries_it_and_further_ones_wait_for_what_that_says() -> None:
    ejection = Ejection(2, EjectionRules())
    fail(ejection, 0, 0.0)
    trial = ejection.begun(0, 1.0)
    assert trial.trial
    assert ejection.open(1.0) == (1,)
    assert ejection.answered(trial)
    assert ejection.open(1.0) == (0, 1)


def test_a_failed_trial_puts_it_out_for_longer_each_time_and_a_minute_at_most() -> None:
    ejection, now, seconds = Ejection(2, EjectionRules()), 0.0, []
    fail(ejection, 0, now)
    for times in range(1, 70):
        now += min(times, 60.0)
        assert ejection.open(now) == (0, 1)
        seconds.append(ejection.failed(ejection.begun(0, now), now))
    assert seconds == [min(float(times), 60.0) for times in range(2, 71)]


def test_a_trial_that_answers_and_then_breaks_puts_it_out_again_for_longer() -> None:
    ejection = Ejection(2, EjectionRules())
    fail(ejection, 0, 0.0)
    trial = ejection.begun(0, 1.0)
    ejection.answered(trial)
    assert ejection.failed(trial, 1.0) == 2.0


def test_a_whole_answer_makes_the_past_forgotten() -> None:
    ejection = Ejection(2, EjectionRules())
    fail(ejection, 0, 0.0)
    ejection.failed(ejection.begun(0, 1.0), 1.0)
    succeed(ejection, 0, 3.0)
    assert fail(ejection, 0, 3.0, times=2) is None
    assert fail(ejection, 0, 3.0, times=1) == 1.0


def test_a_trial_that_says_nothing_leaves_room_for_another() -> None:
    ejection = Ejection(2, EjectionRules())
    fail(ejection, 0, 0.0)
    ejection.dropped(ejection.begun(0, 1.0))
    assert ejection.begun(0, 1.0).trial


def test_old_news_changes_nothing() -> None:
    ejection = Ejection(2, EjectionRules())
    old = [ejection.begun(0, 0.0) for _ in range(3)]
    fail(ejection, 0, 0.0)
    assert ejection.failed(old[0], 5.0) is None
    assert not ejection.answered(old[1])
    ejection.succeeded(old[2])
    assert ejection.open(0.5) == (1,)


@pytest.mark.parametrize(("endpoints", "most"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2)])
def test_at_most_half_are_put_out(endpoints: int, most: int) -> None:
    ejection = Ejection(endpoints, EjectionRules())
    out = [fail(ejection, index, 0.0) for index in range(endpoints - 1)]
    assert sum(seconds is not None for seconds in out) == most
    assert len(ejection.open(0.0)) == endpoints - most


def test_when_all_would_be_out_all_are_in_and_one_that_answers_ends_the_panic() -> None:
    ejection = Ejection(4, EjectionRules())
    for index in range(4):
        fail(ejection, index, 0.0)
    assert ejection.open(0.0) == (0, 1, 2, 3)
    succeed(ejection, 3, 0.0)
    assert ejection.open(0.0) == (2, 3)


def test_in_a_panic_faults_of_those_that_are_out_do_not_make_it_longer() -> None:
    ejection = Ejection(2, EjectionRules())
    for index in range(2):
        fail(ejection, index, 0.0)
    assert fail(ejection, 0, 0.5, times=20) is None
    assert fail(ejection, 0, 1.0, times=1) == 2.0


def test_an_endpoint_that_names_a_time_is_left_alone_until_then_and_it_is_no_fault() -> None:
    ejection = Ejection(2, EjectionRules())
    for _ in range(5):
        ejection.paused(ejection.begun(0, 0.0), 0.0, 7.0)
    assert ejection.open(6.9) == (1,)
    assert ejection.open(7.0) == (0, 1)
    assert ejection.paused_seconds(0.0) == 0.0


def test_a_shorter_pause_does_not_end_a_longer_one_and_none_is_endless() -> None:
    ejection = Ejection(1, EjectionRules())
    ejection.paused(ejection.begun(0, 0.0), 0.0, 1e9)
    ejection.paused(ejection.begun(0, 0.0), 0.0, 1.0)
    assert ejection.paused_seconds(100.0) == 500.0
    assert ejection.open(599.0) == ()
    assert ejection.open(600.0) == (0,)


def test_a_pause_is_kept_even_when_nobody_else_is_left() -> None:
    ejection = Ejection(2, EjectionRules())
    ejection.paused(ejection.begun(1, 0.0), 0.0, 5.0)
    fail(ejection, 0, 0.0)
    assert ejection.open(0.5) == (0,)


EVENTS = st.lists(
    st.tuples(
        st.integers(0, 3), st.sampled_from(["begun", "answered", "succeeded", "failed", "dropped"]), st.floats(0, 2)
    ),
    max_size=80,
)


@given(EVENTS)
def test_whatever_happens_half_of_the_endpoints_may_be_asked_unless_they_are_paused(
    events: list[tuple[int, str, float]],
) -> None:
    ejection, now, tickets = Ejection(4, EjectionRules()), 0.0, list[Ticket]()
    for endpoint, event, seconds in events:
        now += seconds
        if event == "begun" or not tickets:
            tickets.append(ejection.begun(endpoint, now))
            continue
        ticket = tickets.pop(endpoint % len(tickets))
        if event == "answered":
            ejection.answered(ticket)
            tickets.append(ticket)
        elif event == "succeeded":
            ejection.answered(ticket)
            ejection.succeeded(ticket)
        elif event == "failed":
            ejection.failed(ticket, now)
        else:
            ejection.dropped(ticket)
        assert len(ejection.open(now)) >= 2
    for ticket in tickets:
        ejection.dropped(ticket)
    assert ejection.open(now + 60.0) == (0, 1, 2, 3)
