import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence import blind, spread, sure
from marginal.policy.scores import SCORES, EvidenceGap, choice_margin, margin, open_margin
from marginal.tokens import Alternative, Token

MARGINS = st.floats(0.0, 1.0)
WINDOWS = st.integers(0, 6)
LETTERS = "abcdefghijkl"
NAMES = st.sampled_from(sorted(SCORES))


@st.composite
def tokens(draw: st.DrawFn) -> Token:
    weights = draw(st.lists(st.floats(1e-6, 1.0), min_size=2, max_size=12))
    total = sum(weights) * draw(st.floats(1.0, 3.0))
    ranked = sorted((weight / total for weight in weights), reverse=True)
    return spread({LETTERS[index]: share for index, share in enumerate(ranked)})


@given(tokens())
def test_a_margin_lies_between_zero_and_one(token: Token) -> None:
    assert 0.0 <= margin(token) <= 1.0
    assert 0.0 <= open_margin(token) <= 1.0


@given(tokens(), st.randoms())
def test_the_order_of_alternatives_does_not_matter(token: Token, shuffler: random.Random) -> None:
    shuffled = list(token.alternatives)
    shuffler.shuffle(shuffled)
    other = Token(token.text, token.logprob, tuple(shuffled))
    assert margin(other) == margin(token)
    assert choice_margin(other, ("a", "b")) == choice_margin(token, ("a", "b"))


@given(NAMES, WINDOWS, st.lists(tokens(), min_size=1, max_size=8))
def test_bounds_only_ever_shrink_and_hold_the_final_value(name: str, window: int, answer: list[Token]) -> None:
    score = SCORES[name](window=window)
    low, high = 0.0, 1.0
    for token in answer[: score.window or None]:
        score.observe(token)
        assert low - 1e-12 <= score.bounds.low <= score.bounds.high <= high + 1e-12
        low, high = score.bounds.low, score.bounds.high
        final = score.final()
        assert final is not None
        assert low - 1e-12 <= final <= high + 1e-12


@given(NAMES, st.integers(1, 6), st.lists(MARGINS, min_size=6, max_size=6))
def test_a_full_window_is_exact_and_equals_the_final_value(name: str, window: int, margins: list[float]) -> None:
    score = SCORES[name](window=window)
    for each in margins[: score.window]:
        score.observe(sure(each))
    assert score.bounds.exact
    assert score.bounds.low == score.final()


def test_the_least_margin_is_the_minimum_and_the_mean_is_the_mean() -> None:
    margins = [0.9, 0.2, 0.7]
    least, mean = SCORES["min_margin"](window=3), SCORES["mean_margin"](window=3)
    for each in margins:
        least.observe(sure(each))
        mean.observe(sure(each))
    assert least.final() == pytest.approx(0.2)
    assert mean.final() == pytest.approx(0.6)


def test_the_first_token_score_looks_at_one_token_whatever_the_window() -> None:
    assert SCORES["first_token_margin"](window=7).window == 1


def test_near_duplicates_of_the_top_token_are_no_competitors() -> None:
    token = spread({" the": 0.4, "The": 0.3, " th": 0.1, " a": 0.05})
    assert open_margin(token) == pytest.approx(0.35)
    assert margin(token) == pytest.approx(0.1)


def test_ending_the_answer_is_a_competitor_like_any() -> None:
    assert open_margin(spread({"yes": 0.6, "Yes": 0.2, "": 0.1, "no": 0.05})) == pytest.approx(0.5)


def test_without_a_distinct_competitor_in_the_top_ten_the_least_of_them_bounds_it() -> None:
    token = spread({"no": 0.6, "No": 0.2, " no": 0.1})
    assert open_margin(token) == pytest.approx(0.5)


def test_only_the_ten_most_probable_are_searched_for_a_competitor() -> None:
    surface = {" " * index + "yes": 0.09 - index * 0.001 for index in range(10)}
    assert open_margin(spread({**surface, "no": 0.05})) == pytest.approx(0.09 - 0.081)


def test_choices_are_compared_with_each_other_only() -> None:
    token = spread({"yes": 0.3, "maybe": 0.5, "no": 0.1})
    assert choice_margin(token, ("yes", "no")) == pytest.approx((0.3 - 0.1) / 0.4)


def test_every_beginning_of_a_choice_counts_for_it() -> None:
    token = spread({" Pos": 0.4, "positive": 0.2, "neg": 0.2})
    assert choice_margin(token, ("positive", "negative")) == pytest.approx((0.6 - 0.2) / 0.8)


def test_choices_that_begin_alike_cannot_be_told_apart() -> None:
    assert choice_margin(spread({"turn": 0.9, "x": 0.1}), ("turn on", "turn off")) == 0.0


def test_a_choice_outside_the_alternatives_is_bounded_by_the_least_of_them() -> None:
    token = spread({"yes": 0.7, "maybe": 0.1})
    assert choice_margin(token, ("yes", "no")) == pytest.approx((0.7 - 0.1) / 0.8)


def test_a_choice_outside_the_alternatives_is_bounded_by_what_they_leave_over() -> None:
    token = spread({"yes": 0.79, "maybe": 0.2})
    assert choice_margin(token, ("yes", "no")) == pytest.approx((0.79 - 0.01) / 0.8)


@given(tokens())
def test_truncated_alternatives_never_make_choices_look_surer(token: Token) -> None:
    choices = tuple(LETTERS[: len(token.alternatives)])
    cut = Token(token.text, token.logprob, token.alternatives[:2])
    assert choice_margin(cut, choices) <= choice_margin(token, choices) + 1e-9


@pytest.mark.parametrize(
    "token",
    [
        blind(),
        Token("a", -0.1, (Alternative("a", -0.1),)),
        Token("a", -0.1, (Alternative("a", math.nan), Alternative("b", -2.0))),
        Token("a", -0.1, (Alternative("a", -0.1), Alternative("b", -math.inf))),
        Token("a", 0.3, (Alternative("a", 0.3), Alternative("b", -2.0))),
    ],
    ids=["none", "only one", "nan", "minus infinity", "a probability over one"],
)
def test_missing_or_impossible_evidence_is_no_score(token: Token) -> None:
    for name in SCORES:
        with pytest.raises(EvidenceGap):
            SCORES[name](window=1).observe(token)


def test_an_answer_outside_the_choices_is_no_score() -> None:
    with pytest.raises(EvidenceGap):
        choice_margin(spread({"maybe": 0.9, "yes": 0.09}), ("yes", "no"))
