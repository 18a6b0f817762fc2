"""How an answer is shown, and what it is as JSON."""

import json
from dataclasses import replace
from io import StringIO

from rich.console import Console

from marginal.entrypoints.ask import answer_as_json, attempts_table, summary
from marginal.policy.deferral import Decision, Reason, Verdict
from marginal.routing.records import Attempt, DegradedReason, Outcome
from marginal.tokens import FinishReason, Tier, Usage
from marginal.transport.router_client import Answer

ANSWER = Answer(
    request_id="r1",
    tier=Tier.LARGE,
    finish=FinishReason.STOP,
    decision=Decision(Verdict.DEFER, Reason.SCORE, "min_margin", 0.014, 0.18, 2, censored=True),
    policy="default",
    policy_version="1",
    degraded=None,
    attempts=(
        Attempt(Tier.SMALL, "home-small", Outcome.ABORTED, Usage(11, 2), 950, 0.0046),
        Attempt(Tier.LARGE, "home-large", Outcome.KEPT, Usage(11, 3), 11_500, 0.0061),
    ),
    total_nanos=12_450,
    always_large_nanos=11_500,
    currency="USD",
    trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
)


def shown(answer: Answer, *, width: int = 80) -> list[str]:
    file = StringIO()
    console = Console(file=file, width=width)
    console.print(summary(answer))
    console.print(attempts_table(answer))
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_the_tables_fit_eighty_columns_line_by_line() -> None:
    assert shown(ANSWER) == [
        "tier    large (home-large)",
        "why     min_margin ≤ 0.014 < threshold 0.180: deferred after 2 tokens",
        "policy  default (1)",
        "extra   $0.00000095, 8% more than always-large",
        "trace   4bf92f3577b34da6a3ce929d0e0e4736",
        "attempt       model       outcome  tokens in  out         cost   ms",
        "small         home-small  aborted         11    2  $0.00000095  4.6",
        "large         home-large  kept            11    3  $0.00001150  6.1",
        "total                                              $0.00001245",
        "always-large                                       $0.00001150",
    ]


def test_a_score_over_choices_of_which_one_was_not_listed_says_so() -> None:
    bounded = Decision(Verdict.KEEP, Reason.SCORE, "first_token_margin", 0.5, 0.18, 1, bounded=True)
    assert "one of the choices was not listed" in " ".join(shown(replace(ANSWER, decision=bounded), width=160))


def test_a_degraded_answer_says_so_and_why() -> None:
    degraded = replace(ANSWER, tier=Tier.SMALL, degraded=DegradedReason.LARGE_UNAVAILABLE)
    assert "degraded  the large tier was not to be had: this is the small answer" in shown(degraded)


def test_what_was_saved_is_told_as_money_and_as_a_share() -> None:
    kept = replace(ANSWER, attempts=(replace(ANSWER.attempts[0], outcome=Outcome.KEPT),), total_nanos=950)
    assert "saved   $0.00001055, 92% less than always-large" in shown(kept)


def test_an_answer_cut_at_the_most_tokens_says_so() -> None:
    assert "tier    large (home-large), cut at the most tokens allowed" in shown(
        replace(ANSWER, finish=FinishReason.LENGTH)
    )


def test_json_has_plain_names_and_numbers() -> None:
    parsed = json.loads(json.dumps(answer_as_json("42", ANSWER)))
    assert parsed["text"] == "42"
    assert parsed["tier"] == "large"
    assert parsed["decision"]["verdict"] == "defer"
    assert parsed["decision"]["threshold"] == 0.18
    assert parsed["decision"]["bounded"] is False
    assert [attempt["cost_nanos"] for attempt in parsed["attempts"]] == [950, 11_500]
    assert (parsed["saved_nanos"], parsed["total_nanos"]) == (-950, 12_450)


def test_json_has_no_trace_id_when_tracing_is_off() -> None:
    assert answer_as_json("", replace(ANSWER, trace_id=""))["trace_id"] is None
