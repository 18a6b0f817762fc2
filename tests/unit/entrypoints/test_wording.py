"""How decisions, amounts and margins are put into words and colours."""

import pytest

from marginal.entrypoints.wording import amounts, margin_style, printable, why
from marginal.policy.deferral import Decision, Reason, Verdict
from marginal.policy.evidence import Gap


def test_amounts_of_a_column_are_exact_and_have_the_same_decimals() -> None:
    assert amounts([950, 11_500, 12_450], "USD") == ["$0.00000095", "$0.00001150", "$0.00001245"]


def test_an_amount_has_at_least_two_decimals() -> None:
    assert amounts([0, 3_000_000_000], "EUR") == ["€0.00", "€3.00"]


def test_a_currency_without_a_sign_is_named() -> None:
    assert amounts([1_500_000_000], "CHF") == ["CHF 1.50"]


def test_the_smallest_amount_keeps_its_significant_digits() -> None:
    assert amounts([2_043_000, 20_930_000, 0], "USD", significant=3) == ["$0.00204", "$0.02093", "$0.00000"]


def test_a_kept_answer_names_its_score_and_threshold() -> None:
    decision = Decision(Verdict.KEEP, Reason.SCORE, "min_margin", 0.588, 0.18, 5)
    assert why(decision) == "min_margin 0.588 ≥ threshold 0.180: kept after 5 tokens"


def test_a_censored_score_is_told_as_a_bound() -> None:
    decision = Decision(Verdict.DEFER, Reason.SCORE, "min_margin", 0.01366, 0.18, 1, censored=True)
    assert why(decision) == "min_margin ≤ 0.014 < threshold 0.180: deferred after 1 token"


def test_a_bounded_score_says_that_a_choice_was_not_listed() -> None:
    decision = Decision(Verdict.KEEP, Reason.SCORE, "first_token_margin", 0.62, 0.18, 1, bounded=True)
    assert why(decision) == (
        "first_token_margin 0.620 ≥ threshold 0.180: kept after 1 token; "
        "one of the choices was not listed and counted with the most it can have"
    )


def test_a_score_close_to_the_threshold_is_told_with_the_digits_that_differ() -> None:
    decision = Decision(Verdict.DEFER, Reason.SCORE, "min_margin", 0.17999, 0.18, 2)
    assert why(decision).startswith("min_margin 0.17999 < threshold 0.18000:")


@pytest.mark.parametrize(
    ("decision", "words"),
    [
        (Decision(Verdict.KEEP, Reason.MODE), "the mode named the small tier"),
        (Decision(Verdict.DEFER, Reason.MODE), "the mode named the large tier"),
        (Decision(Verdict.DEFER, Reason.SMALL_UNAVAILABLE), "the small tier was not to be had"),
        (
            Decision(Verdict.DEFER, Reason.NO_SCORE, "min_margin", None, 0.18, gap=Gap.OUTSIDE_CHOICES),
            "no score, the answer begins none of the choices: deferred",
        ),
    ],
)
def test_a_decision_without_a_score_says_what_it_rests_on(decision: Decision, words: str) -> None:
    assert why(decision) == words


@pytest.mark.parametrize(("margin", "colour"), [(0.0, "#dc0028"), (0.5, "#dcc828"), (1.0, "#00c828")])
def test_margins_go_from_red_over_yellow_to_green(margin: float, colour: str) -> None:
    style = margin_style(margin)
    assert style.color is not None
    assert style.color.triplet is not None
    assert style.color.triplet.hex == colour


def test_a_token_without_a_margin_has_no_colour() -> None:
    assert margin_style(None).color is None


def test_a_model_cannot_send_commands_to_the_terminal() -> None:
    assert printable("a\x1b[2Jb\r\n\tc\x9b") == "a�[2Jb�\n\tc�"
