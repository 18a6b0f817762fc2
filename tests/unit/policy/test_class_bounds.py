"""What is said of scores over a class set when a class is outside the alternatives."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence import spread, sure
from marginal.policy.deferral import Decision, Deferral, Reason, Verdict
from marginal.policy.evidence import EvidenceGap, choice_margin, class_masses
from marginal.policy.scores import SCORES, judge
from marginal.tokens import EarlyStop, Token

CHOICES = ("yes", "no", "either")
ALL = spread({"yes": 0.7, "no": 0.2, "either": 0.06, "maybe": 0.04})
OVER_CHOICES = sorted(name for name, kind in SCORES.items() if kind.read_choices)


def cut(token: Token, count: int) -> Token:
    ranked = sorted(token.alternatives, key=lambda other: -other.logprob)
    return Token(token.text, token.logprob, tuple(ranked[:count]))


def decided(name: str, *answer: Token, choices: tuple[str, ...] = CHOICES, threshold: float | None = None) -> Decision:
    rule = EarlyStop(name, len(answer), SCORES[name].scale.keep_all if threshold is None else threshold, exact=True)
    deferral = Deferral(rule, choices=choices)
    for token in answer:
        deferral.feed(token)
    return deferral.finish()


@st.composite
def answers(draw: st.DrawFn, *, spellings: int = 1) -> tuple[Token, tuple[str, ...]]:
    """A whole distribution over classes and other texts, and the classes; a class has up to so many spellings."""
    choices = tuple(f"c{number}" for number in range(draw(st.integers(2, 5))))
    texts = [" " * space + name for name in choices for space in range(draw(st.integers(1, spellings)))]
    texts += [f"x{number}" for number in range(draw(st.integers(0, 4)))]
    weights = draw(st.lists(st.floats(1e-4, 1.0), min_size=len(texts), max_size=len(texts)))
    return spread({text: weight / sum(weights) for text, weight in zip(texts, weights, strict=True)}), choices


@pytest.mark.parametrize("name", OVER_CHOICES)
def test_a_score_says_that_a_class_is_outside_the_alternatives(name: str) -> None:
    assert decided(name, cut(ALL, 2)).bounded
    assert not decided(name, cut(ALL, 3)).bounded


@pytest.mark.parametrize("verdict", [Verdict.KEEP, Verdict.DEFER])
def test_kept_or_deferred_the_decision_says_so(verdict: Verdict) -> None:
    threshold = 0.0 if verdict is Verdict.KEEP else 0.9
    decision = decided("first_token_margin", cut(ALL, 2), threshold=threshold)
    assert (decision.verdict, decision.reason, decision.bounded) == (verdict, Reason.SCORE, True)


def test_a_score_that_reads_no_classes_bounds_none() -> None:
    assert not decided("mean_logprob", cut(ALL, 2)).bounded
    assert not decided("first_token_margin", cut(ALL, 2), choices=()).bounded


def test_without_a_score_there_is_nothing_to_be_bounded() -> None:
    outside = decided("first_token_margin", spread({"maybe": 0.9, "yes": 0.05}))
    assert (outside.reason, outside.bounded) == (Reason.NO_SCORE, False)


def test_the_classes_of_the_first_position_bound_a_score_over_many() -> None:
    assert decided("mean_margin", cut(ALL, 2), sure(0.4), sure(0.5)).bounded
    assert not decided("mean_margin", ALL, cut(ALL, 2), sure(0.5)).bounded


def test_a_class_set_is_bounded_wherever_the_answer_begins_to_say_something() -> None:
    assert decided("first_content_margin", spread({"\n": 0.9, "yes": 0.1}), cut(ALL, 2)).bounded
    assert not decided("first_content_margin", spread({"\n": 0.9, "yes": 0.1}), ALL).bounded


@pytest.mark.parametrize("name", OVER_CHOICES)
@given(answers(), st.integers(2, 5))
def test_a_bounded_score_is_a_lower_bound_when_a_class_begins_with_one_token(
    name: str, answer: tuple[Token, tuple[str, ...]], count: int
) -> None:
    token, choices = answer
    whole, bounded = judge(name, [token], choices=choices), judge(name, [cut(token, count)], choices=choices)
    assert whole is not None
    assert bounded is not None
    assert bounded <= whole + 1e-9
    assert class_masses(cut(token, count), choices).bounded or bounded == pytest.approx(whole)


@given(answers(spellings=4), st.integers(2, 8))
def test_spellings_out_of_sight_make_a_margin_surer_by_no_more_than_is_said(
    answer: tuple[Token, tuple[str, ...]], count: int
) -> None:
    token, choices = answer
    whole, seen = class_masses(token, choices), class_masses(cut(token, count), choices)
    left_over = max(0.0, 1.0 - math.fsum(math.exp(other.logprob) for other in cut(token, count).alternatives))
    limit = 2.0 * left_over / (math.fsum(seen.listed) + left_over) if left_over else 0.0
    assert choice_margin(seen) <= choice_margin(whole) + limit + 1e-9


def test_a_margin_can_look_surer_than_it_is_when_a_rival_has_spellings_out_of_sight() -> None:
    token = spread({"yes": 0.5, "x": 0.1, "no": 0.1, " no": 0.1, "No": 0.1, "NO": 0.1})
    assert choice_margin(class_masses(cut(token, 2), ("yes", "no"))) > choice_margin(class_masses(token, ("yes", "no")))


def test_nothing_is_known_of_classes_that_no_alternative_begins() -> None:
    token = Token("yes", -0.1, spread({"maybe": 0.6, "perhaps": 0.3}).alternatives)
    masses = class_masses(token, CHOICES)
    assert (masses.listed, masses.unlisted, masses.bounded) == ([], 3, True)
    assert choice_margin(masses) == 0.0


def test_an_answer_outside_the_class_set_has_no_masses() -> None:
    with pytest.raises(EvidenceGap):
        class_masses(spread({"maybe": 0.6, "yes": 0.3}), CHOICES)
