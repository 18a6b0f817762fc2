"""The limit of a tier: it grows while first chunks come soon, and shrinks when they come late."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from marginal.routing.concurrency import AdaptiveLimit, LimitRules

RULES = LimitRules(initial=8, minimum=2, maximum=40, round_answers=4, slack_seconds=0.0)
SOON, LATE = 0.1, 0.5


def rounds(limit: AdaptiveLimit, seconds: float, *, times: int = 1, under_way: int | None = None) -> None:
    """So many whole rounds of answers, every place used unless told otherwise."""
    for _ in range(times):
        for _ in range(max(RULES.round_answers, limit.limit // 2)):
            era = limit.begun(limit.limit if under_way is None else under_way)
            limit.answered(era, seconds)


def started() -> AdaptiveLimit:
    """A limit that knows what is usual and has stopped doubling."""
    limit = AdaptiveLimit(RULES)
    rounds(limit, SOON, times=2)
    rounds(limit, LATE)
    return limit


def test_it_starts_within_its_bounds() -> None:
    assert AdaptiveLimit(RULES).limit == 8
    assert AdaptiveLimit(replace(RULES, initial=100)).limit == 40
    assert AdaptiveLimit(replace(RULES, initial=1)).limit == 2


def test_at_first_it_doubles_while_all_comes_soon() -> None:
    limit = AdaptiveLimit(RULES)
    rounds(limit, SOON)
    assert limit.limit == 16
    rounds(limit, SOON)
    assert limit.limit == 32


def test_a_late_round_shrinks_it_by_a_share() -> None:
    limit = AdaptiveLimit(RULES)
    rounds(limit, SOON)
    rounds(limit, LATE)
    assert limit.limit == 14


def test_after_that_it_grows_one_by_one() -> None:
    limit = started()
    before = limit.limit
    rounds(limit, SOON, times=3)
    assert before + 3 <= limit.limit <= before + 5


def test_one_slow_answer_is_no_late_round() -> None:
    limit = started()
    before = limit.limit
    for seconds in (LATE, *([SOON] * limit.limit)):
        limit.answered(limit.begun(limit.limit), seconds)
    assert limit.limit >= before


def test_it_does_not_grow_while_nobody_needs_it() -> None:
    limit = AdaptiveLimit(RULES)
    rounds(limit, SOON, times=10, under_way=3)
    assert limit.limit == 8


def test_a_tier_that_says_it_is_full_shrinks_it_once_however_many_it_refused() -> None:
    limit = started()
    before = limit.limit
    eras = [limit.begun(limit.limit) for _ in range(20)]
    for era in eras:
        limit.dropped(era)
    assert limit.limit == int(0.9 * before)


def test_answers_to_attempts_from_before_it_shrank_count_for_nothing() -> None:
    limit = started()
    eras = [limit.begun(limit.limit) for _ in range(50)]
    limit.dropped(eras[0])
    shrunk = limit.limit
    for era in eras:
        limit.answered(era, LATE)
    assert limit.limit == shrunk


def test_overload_however_long_never_passes_for_usual() -> None:
    """Chunks that come a little late with every place used are just within bounds; what is late stays the same."""
    limit = started()
    rounds(limit, 1.4 * SOON, times=500)
    before = limit.limit
    rounds(limit, 1.7 * SOON)
    assert limit.limit < before


def test_a_tier_that_became_slower_for_good_is_served_again() -> None:
    limit = started()
    rounds(limit, LATE, times=40)
    assert limit.limit > RULES.minimum
    rounds(limit, LATE, times=10)
    assert limit.limit == RULES.maximum


def test_what_is_usual_follows_a_quiet_tier_both_ways() -> None:
    limit = started()
    rounds(limit, 1.4 * SOON, times=30, under_way=1)
    before = limit.limit
    rounds(limit, 1.9 * SOON)
    assert limit.limit >= before


@given(
    st.lists(
        st.tuples(st.sampled_from(("answered", "dropped")), st.floats(0.0, 1e6), st.integers(0, 500)), max_size=500
    )
)
def test_it_never_leaves_its_bounds(told: list[tuple[str, float, int]]) -> None:
    limit = AdaptiveLimit(RULES)
    for what, seconds, under_way in told:
        era = limit.begun(under_way)
        if what == "answered":
            limit.answered(era, seconds)
        else:
            limit.dropped(era)
        assert RULES.minimum <= limit.limit <= RULES.maximum
