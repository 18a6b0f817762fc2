import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence import blind, spread, sure
from marginal.policy.deferral import Decision, Deferral, Reason, Verdict
from marginal.policy.evidence import Gap
from marginal.policy.scores import SCORES, judge
from marginal.tokens import EarlyStop, Token

UNDECIDED, KEEP, DEFER = Verdict.UNDECIDED, Verdict.KEEP, Verdict.DEFER
SURE, UNSURE = sure(0.9), sure(0.1)


def least(threshold: float, *, window: int = 4) -> Deferral:
    return Deferral(EarlyStop("min_margin", window, threshold))


def verdicts(deferral: Deferral, tokens: list[Token]) -> list[Verdict]:
    return [deferral.feed(token) for token in tokens]


def test_a_minimum_under_the_threshold_defers_at_that_very_token() -> None:
    assert verdicts(least(0.5), [SURE, UNSURE, SURE]) == [UNDECIDED, DEFER, DEFER]


def test_a_full_window_of_sure_tokens_keeps() -> None:
    assert verdicts(least(0.5, window=3), [SURE, SURE, SURE]) == [UNDECIDED, UNDECIDED, KEEP]


def test_a_short_answer_is_judged_when_it_ends() -> None:
    deferral = least(0.5)
    assert deferral.feed(SURE) is UNDECIDED
    assert deferral.finish().verdict is KEEP


def test_the_whole_answer_is_watched_when_the_window_is_zero() -> None:
    deferral = least(0.5, window=0)
    assert verdicts(deferral, [SURE] * 20) == [UNDECIDED] * 20
    assert deferral.finish().verdict is KEEP


def test_a_mean_falls_as_soon_as_the_rest_of_the_window_cannot_change_it() -> None:
    mean = Deferral(EarlyStop("mean_margin", 4, 0.6))
    assert verdicts(mean, [sure(0.1), sure(0.1)]) == [UNDECIDED, DEFER]
    mean = Deferral(EarlyStop("mean_margin", 4, 0.4))
    assert verdicts(mean, [sure(0.9), sure(0.9)]) == [UNDECIDED, KEEP]


def test_a_score_cut_short_by_its_verdict_is_censored() -> None:
    early = least(0.5)
    early.feed(UNSURE)
    assert early.finish().censored
    late = least(0.5, window=1)
    late.feed(UNSURE)
    assert not late.finish().censored


def test_a_score_equal_to_the_threshold_is_kept() -> None:
    deferral = Deferral(EarlyStop("min_margin", 1, 0.5))
    assert deferral.feed(spread({"a": 0.75, "b": 0.25})) is KEEP


def test_missing_evidence_is_no_score_and_the_policy_says_what_then() -> None:
    assert least(0.5).feed(blind()) is DEFER
    keeping = Deferral(EarlyStop("min_margin", 4, 0.5, defer_without_score=False))
    assert verdicts(keeping, [SURE, blind()]) == [UNDECIDED, KEEP]
    assert keeping.finish().reason is Reason.NO_SCORE
    assert keeping.finish().score is None
    assert keeping.finish().gap is Gap.MISSING


def test_an_empty_answer_has_no_score() -> None:
    assert least(0.5).finish() == Decision(DEFER, Reason.NO_SCORE, "min_margin", None, 0.5, 0, gap=Gap.NO_TOKENS)


def test_a_verdict_never_changes() -> None:
    deferral = least(0.5)
    deferral.feed(UNSURE)
    decided = deferral.finish()
    verdicts(deferral, [SURE] * 10)
    assert deferral.finish() == decided


def test_choices_are_judged_at_the_first_token() -> None:
    deferral = Deferral(EarlyStop("first_token_margin", 1, 0.5), choices=("yes", "no"))
    assert deferral.feed(spread({"yes": 0.3, "maybe": 0.6, "no": 0.02})) is KEEP


@given(
    st.sampled_from(sorted(SCORES)),
    st.integers(0, 5),
    st.floats(0.0, 1.0),
    st.booleans(),
    st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8),
)
def test_feeding_token_by_token_gives_the_verdict_of_the_whole_answer_at_once(
    name: str, window: int, place: float, exact: bool, margins: list[float]
) -> None:
    scale = SCORES[name].scale
    threshold = scale.low + place * (scale.high - scale.low)
    deferral = Deferral(EarlyStop(name, window, threshold, exact=exact))
    answer = [sure(margin) for margin in margins]
    verdicts(deferral, answer)
    final, decision = judge(name, answer, window=window), deferral.finish()
    assert final is not None
    assert abs(final - threshold) < 1e-9 or decision.verdict is (KEEP if final >= threshold else DEFER)
    assert not window or decision.tokens_seen <= window
    if exact:
        assert not decision.censored
        assert decision.score == final


def test_a_rule_that_learns_from_scores_waits_for_the_exact_one() -> None:
    exact = Deferral(EarlyStop("min_margin", 3, 0.5, exact=True))
    assert verdicts(exact, [UNSURE, SURE, sure(0.05)]) == [UNDECIDED, UNDECIDED, DEFER]
    assert exact.finish().score == pytest.approx(0.05)


@pytest.mark.parametrize("name", sorted(SCORES))
def test_at_one_end_of_its_scale_a_threshold_keeps_everything_and_past_the_other_nothing(name: str) -> None:
    scale = SCORES[name].scale
    assert Deferral(EarlyStop(name, 1, scale.keep_all)).feed(sure(0.0)) is KEEP
    assert Deferral(EarlyStop(name, 1, scale.defer_all)).feed(sure(1.0)) is DEFER
