"""The paper's rule, decision for decision, against an independent transcription."""

from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from marginal.policy.horizon import Horizon, Route
from unit.policy import published

SPENT = {Route.EXHAUSTED: published.EXHAUSTED, Route.LARGE_DIRECTLY: published.DIRECT}
MARGINS = st.one_of(st.floats(0.0, 1.0), st.sampled_from([0.0, 0.25, 0.5, 1.0]))


@st.composite
def streams(draw: st.DrawFn) -> dict:
    """A stream of margins with budget and costs: fixed ones, or each query's own as in the time and token modes."""
    queries = draw(st.integers(1, 120))
    cost1 = draw(st.floats(0.01, 2.0))
    cost2 = cost1 * draw(st.floats(1.0, 50.0))
    budget = cost1 + draw(st.floats(0.0, 1.2)) * (cost2 - cost1)
    own = draw(st.booleans())
    factors = st.lists(st.floats(0.2, 3.0), min_size=queries, max_size=queries) if own else st.just([1.0] * queries)
    return {
        "margins": draw(st.lists(MARGINS, min_size=queries, max_size=queries)),
        "budget": budget,
        "cost1": cost1,
        "cost2": cost2,
        "costs1": [cost1 * factor for factor in draw(factors)],
        "costs2": [cost2 * factor for factor in draw(factors)],
        "large_is_better": draw(st.booleans()),
    }


def decided(
    margins: Sequence[float],
    *,
    budget: float,
    cost1: float,
    cost2: float,
    costs1: Sequence[float],
    costs2: Sequence[float],
    large_is_better: bool,
) -> tuple[list[str], float]:
    """The same by our rule."""
    horizon = Horizon(
        budget, small_cost=cost1, large_cost=cost2, requests=len(margins), large_is_better=large_is_better
    )
    answered = []
    for margin, small, large in zip(margins, costs1, costs2, strict=True):
        route = horizon.route
        if route in SPENT:
            answered.append(SPENT[route])
            horizon.pay(large if route is Route.LARGE_DIRECTLY else 0.0)
        elif horizon.score(margin, cost=small):
            answered.append(published.LARGE)
            horizon.pay(large)
        else:
            answered.append(published.SMALL)
        horizon.passed()
    return answered, horizon.remaining


@settings(max_examples=600, deadline=None)
@given(streams())
@example(
    {
        "margins": [0.5] * 60,
        "budget": 2.0,
        "cost1": 1.0,
        "cost2": 1.0,
        "costs1": [1.0] * 60,
        "costs2": [1.0] * 60,
        "large_is_better": False,
    }
)
def test_every_decision_is_the_published_one(stream: dict) -> None:
    assert decided(**stream) == published.cascade(**stream)


@pytest.mark.parametrize(
    ("budget", "margins", "expected"),
    [
        (1.0, [0.1] * 40, {published.SMALL}),
        (10.0, [0.1] * 40, {published.DIRECT}),
    ],
    ids=["no more than the small tier costs", "enough for the large tier always"],
)
def test_reserves_decide_before_the_score_does(budget: float, margins: list[float], expected: set[str]) -> None:
    each = [1.0] * len(margins)
    answered, _ = decided(
        margins, budget=budget, cost1=1.0, cost2=10.0, costs1=each, costs2=[10.0] * len(margins), large_is_better=True
    )
    assert set(answered) == expected


def test_the_first_twenty_scores_are_never_deferred() -> None:
    each = [1.0] * 40
    answered, _ = decided(
        [0.1] * 40, budget=9.0, cost1=1.0, cost2=10.0, costs1=each, costs2=[10.0] * 40, large_is_better=True
    )
    assert published.LARGE not in answered[:20]
    assert published.DIRECT in answered


def test_what_costs_more_than_expected_can_exhaust_the_budget() -> None:
    dear = [30.0] * 40
    answered, left = decided(
        [0.1] * 40, budget=3.0, cost1=1.0, cost2=10.0, costs1=dear, costs2=dear, large_is_better=True
    )
    assert answered[-1] == published.EXHAUSTED
    assert left < 1.0
