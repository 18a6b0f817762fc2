import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence import blind, spread, sure
from marginal.policy.evidence import (
    MOST_ALTERNATIVES,
    EvidenceGap,
    Gap,
    choice_margin,
    class_masses,
    class_shares,
    margin,
    negative_class_entropy,
    negative_entropy,
    open_logit_margin,
    open_margin,
)
from marginal.policy.scores import SCORES, judge
from marginal.tokens import Alternative, Token

MARGINS = st.floats(0.0, 1.0)
WINDOWS = st.integers(0, 6)
QUANTILES = st.floats(0.05, 0.95)
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


@given(NAMES, WINDOWS, st.booleans(), st.lists(tokens(), min_size=1, max_size=4), st.randoms())
def test_the_order_of_alternatives_does_not_matter(
    name: str, window: int, has_choices: bool, answer: list[Token], shuffler: random.Random
) -> None:
    def shuffled(token: Token) -> Token:
        other = shuffler.sample(token.alternatives, k=len(token.alternatives))
        return Token(token.text, token.logprob, tuple(other))

    choices = ("a", "b") if has_choices else ()
    one = judge(name, answer, window=window, choices=choices)
    other = judge(name, [shuffled(token) for token in answer], window=window, choices=choices)
    assert one == pytest.approx(other, abs=1e-12)


@given(NAMES, WINDOWS, QUANTILES, st.booleans(), st.lists(tokens(), min_size=1, max_size=8))
def test_a_score_lies_in_the_range_it_states(
    name: str, window: int, quantile: float, has_choices: bool, answer: list[Token]
) -> None:
    scale = SCORES[name].scale
    score = judge(name, answer, window=window, quantile=quantile, choices=("a", "b") if has_choices else ())
    assert score is not None
    assert scale.low <= score <= scale.high
    assert 0.0 <= scale.place(score) <= 1.0


@given(NAMES, st.floats(0.001, 0.999))
def test_a_place_on_a_scale_and_the_threshold_there_are_the_same(name: str, place: float) -> None:
    scale = SCORES[name].scale
    threshold = scale.at(place)
    assert scale.keep_all <= threshold <= scale.defer_all
    assert scale.place(threshold) == pytest.approx(place, abs=1e-9)


@given(tokens(), st.floats(0.05, 1.0))
def test_logit_margins_and_shares_of_classes_do_not_depend_on_a_common_factor(token: Token, factor: float) -> None:
    scaled = tuple(Alternative(other.text, other.logprob + math.log(factor)) for other in token.alternatives)
    other = Token(token.text, token.logprob, scaled)
    assert open_logit_margin(other) == pytest.approx(open_logit_margin(token), abs=1e-9)
    every = tuple(LETTERS[: len(token.alternatives)])
    assert class_shares(class_masses(other, every)) == pytest.approx(class_shares(class_masses(token, every)), abs=1e-9)


@given(tokens())
def test_the_logit_margin_is_the_logarithm_of_the_odds(token: Token) -> None:
    best, second = (math.exp(other.logprob) for other in token.alternatives[:2])
    assert open_logit_margin(token) == pytest.approx(min(100.0, math.log(best / second)))


@given(tokens())
def test_what_alternatives_leave_over_makes_less_sure(token: Token) -> None:
    shares = [math.exp(other.logprob) for other in token.alternatives]
    listed = math.fsum(share * math.log(share) for share in shares)
    assert negative_entropy(token) <= listed + 1e-9
    assert negative_entropy(token) >= -math.log(len(shares) + 1) - 1e-9


@given(NAMES, WINDOWS, QUANTILES, st.lists(tokens(), min_size=1, max_size=8))
def test_bounds_only_ever_shrink_and_hold_the_final_value(
    name: str, window: int, quantile: float, answer: list[Token]
) -> None:
    score = SCORES[name].start(window=window, quantile=quantile)
    low, high = SCORES[name].scale.low, SCORES[name].scale.high
    for token in answer[: score.window or None]:
        score.observe(token)
        assert low - 1e-12 <= score.bounds.low <= score.bounds.high <= high + 1e-12
        low, high = score.bounds.low, score.bounds.high
        final = score.final()
        assert low - 1e-12 <= final <= high + 1e-12


@given(NAMES, st.integers(1, 6), st.lists(MARGINS, min_size=6, max_size=6))
def test_a_full_window_is_exact_and_equals_the_final_value(name: str, window: int, margins: list[float]) -> None:
    score = SCORES[name].start(window=window)
    for each in margins[: score.window]:
        score.observe(sure(each))
    assert score.bounds.exact
    assert score.bounds.low == score.final()


def test_the_least_margin_is_the_minimum_and_the_mean_is_the_mean() -> None:
    margins = [0.9, 0.2, 0.7]
    least, mean = SCORES["min_margin"].start(window=3), SCORES["mean_margin"].start(window=3)
    for each in margins:
        least.observe(sure(each))
        mean.observe(sure(each))
    assert least.final() == pytest.approx(0.2)
    assert mean.final() == pytest.approx(0.6)


def test_a_quantile_is_the_nearest_rank() -> None:
    answer = [sure(margin) for margin in (0.9, 0.2, 0.7, 0.4)]
    for quantile, expected in ((0.1, 0.2), (0.25, 0.2), (0.26, 0.4), (0.5, 0.4), (0.75, 0.7), (0.9, 0.9)):
        assert judge("quantile_margin", answer, quantile=quantile) == pytest.approx(expected)


def test_the_content_margin_waits_for_a_letter_or_a_digit() -> None:
    answer = [sure(0.1, text="\n"), sure(0.2, text='"'), sure(0.7, text="42"), sure(0.1, text="x")]
    assert judge("first_content_margin", answer) == pytest.approx(0.7)
    assert judge("first_content_margin", answer, window=3) == pytest.approx(0.7)
    assert judge("first_content_margin", answer, window=2) is None
    assert judge("first_content_margin", answer[:2]) is None


def test_the_mean_logprob_is_of_the_generated_tokens() -> None:
    chosen = [Token("a", -0.5), Token("b", -1.5)]
    assert judge("mean_logprob", chosen) == pytest.approx(-1.0)
    assert judge("mean_logprob", [Token("a", -9999.0)]) == -100.0
    assert judge("mean_logprob", [Token("a", None)]) is None
    assert judge("mean_logprob", [Token("a", math.nan)]) is None


def test_every_score_says_what_it_is_and_where_it_comes_from() -> None:
    for kind in SCORES.values():
        assert kind.says
        assert kind.source
        assert kind.scale.low < kind.scale.high
        assert 1 <= kind.alternatives <= MOST_ALTERNATIVES


@pytest.mark.parametrize("name", sorted(SCORES))
def test_a_score_never_sees_more_tokens_than_its_window(name: str) -> None:
    score = SCORES[name].start(window=2)
    for _ in range(score.window):
        score.observe(sure(0.5))
    assert score.bounds.exact
    assert score.window == (1 if SCORES[name].one_token else 2)


def test_the_first_token_score_looks_at_one_token_whatever_the_window() -> None:
    assert SCORES["first_token_margin"].start(window=7).window == 1


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
    assert choice_margin(class_masses(token, ("yes", "no"))) == pytest.approx((0.3 - 0.1) / 0.4)


def test_every_beginning_of_a_choice_counts_for_it() -> None:
    token = spread({" Pos": 0.4, "positive": 0.2, "neg": 0.2})
    assert choice_margin(class_masses(token, ("positive", "negative"))) == pytest.approx((0.6 - 0.2) / 0.8)


def test_choices_that_begin_alike_cannot_be_told_apart() -> None:
    assert choice_margin(class_masses(spread({"turn": 0.9, "x": 0.1}), ("turn on", "turn off"))) == 0.0


def test_a_choice_outside_the_alternatives_is_bounded_by_the_least_of_them() -> None:
    token = spread({"yes": 0.7, "maybe": 0.1})
    assert choice_margin(class_masses(token, ("yes", "no"))) == pytest.approx((0.7 - 0.1) / 0.8)


def test_a_choice_outside_the_alternatives_is_bounded_by_what_they_leave_over() -> None:
    token = spread({"yes": 0.79, "maybe": 0.2})
    assert choice_margin(class_masses(token, ("yes", "no"))) == pytest.approx((0.79 - 0.01) / 0.8)


@given(tokens())
def test_truncated_alternatives_never_make_choices_look_surer(token: Token) -> None:
    choices = tuple(LETTERS[: len(token.alternatives)])
    cut = Token(token.text, token.logprob, token.alternatives[:2])
    assert choice_margin(class_masses(cut, choices)) <= choice_margin(class_masses(token, choices)) + 1e-9


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (blind(), Gap.MISSING),
        (Token("a", None, (Alternative("a", -0.1),)), Gap.TRUNCATED),
        (Token("a", math.nan, (Alternative("a", math.nan), Alternative("b", -2.0))), Gap.NOT_FINITE),
        (Token("a", 0.3, (Alternative("a", 0.3), Alternative("b", -2.0))), Gap.NOT_FINITE),
        (Token("a", math.inf, (Alternative("a", math.inf), Alternative("b", -math.inf))), Gap.NOT_FINITE),
    ],
    ids=["none", "only one", "nan", "a probability over one", "both infinities"],
)
def test_missing_or_impossible_evidence_is_no_score_with_a_reason(token: Token, reason: Gap) -> None:
    for name in SCORES:
        with pytest.raises(EvidenceGap) as raised:
            SCORES[name].start(window=1).observe(token)
        assert raised.value.reason in (reason, Gap.MISSING)


def test_an_alternative_that_sampling_has_cut_counts_as_next_to_nothing() -> None:
    cut = Token("a", -0.1, (Alternative("a", -0.1), Alternative("b", -math.inf)))
    assert margin(cut) == pytest.approx(math.exp(-0.1))
    assert open_logit_margin(cut) == pytest.approx(99.9)


@given(st.integers(2, 64), st.lists(st.floats(0.001, 1.0), min_size=2, max_size=20), st.floats(0.1, 1.0))
def test_class_shares_sum_to_one_and_their_entropy_stays_in_range(
    classes: int, weights: list[float], listed: float
) -> None:
    total = math.fsum(weights) / listed
    names = [f"c{index:02d}" for index in range(max(classes, len(weights)))]
    token = spread({name: weight / total for name, weight in zip(names, sorted(weights)[::-1], strict=False)})
    shares = class_shares(class_masses(token, names))
    assert math.fsum(shares) == pytest.approx(1.0)
    assert shares == sorted(shares, reverse=True)
    assert SCORES["entropy"].scale.low - 1e-9 <= negative_class_entropy(class_masses(token, names)) <= 0.0


@pytest.mark.parametrize(("quantile", "count", "rank"), [(0.07, 100, 7), (0.28, 25, 7), (0.55, 100, 55), (0.14, 50, 7)])
def test_a_quantile_is_not_led_astray_by_rounding(quantile: float, count: int, rank: int) -> None:
    answer = [sure(index / count) for index in range(count)]
    assert judge("quantile_margin", answer, quantile=quantile) == pytest.approx((rank - 1) / count)


def test_an_answer_outside_the_choices_is_no_score() -> None:
    with pytest.raises(EvidenceGap) as raised:
        choice_margin(class_masses(spread({"maybe": 0.9, "yes": 0.09}), ("yes", "no")))
    assert raised.value.reason is Gap.OUTSIDE_CHOICES
