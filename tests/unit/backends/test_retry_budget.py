"""Retries are a share of the requests, whatever fails."""

from hypothesis import given
from hypothesis import strategies as st

from marginal.backends.retry_budget import RetryBudget


def taken(budget: RetryBudget, now: float, wanted: int) -> int:
    return sum(budget.take(now) for _ in range(wanted))


def test_a_fifth_of_the_requests_of_the_window_may_be_repeated() -> None:
    budget = RetryBudget()
    for number in range(1000):
        budget.requested(number / 100)
    assert taken(budget, 9.99, 1000) == 200


def test_whatever_the_traffic_one_a_second_may_be() -> None:
    budget = RetryBudget()
    budget.requested(0.0)
    assert taken(budget, 0.0, 100) == 10
    assert taken(budget, 9.999, 1) == 0
    assert taken(budget, 10.0, 100) == 10


def test_what_is_older_than_the_window_is_forgotten() -> None:
    budget = RetryBudget()
    for _ in range(1000):
        budget.requested(0.0)
    assert taken(budget, 0.0, 150) == 150
    assert taken(budget, 10.0, 1000) == 10


@given(st.lists(st.tuples(st.floats(0, 0.5), st.integers(0, 3)), max_size=200))
def test_no_retry_is_allowed_beyond_what_the_requests_of_its_window_pay_for(calls: list[tuple[float, int]]) -> None:
    budget, now, requests, retries = RetryBudget(), 0.0, list[float](), list[float]()
    for seconds, wanted in calls:
        now += seconds
        budget.requested(now)
        requests.append(now)
        allowed = taken(budget, now, wanted)
        retries += [now] * allowed
        retried, asked = (sum(time > now - 10.0 for time in times) for times in (retries, requests))
        assert not allowed or retried <= max(10.0, 0.2 * asked)
