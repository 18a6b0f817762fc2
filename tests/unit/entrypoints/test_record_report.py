"""A run in one table: shares over what is known, costs over all, and in words what the figures leave open."""

from dataclasses import replace
from pathlib import Path

from rich.console import Console

from marginal.entrypoints.record_report import Summary, summarise, table
from marginal.evaluation.results import Row, Run
from unit.evaluation.runs import HEADER, row


def graded(id_: str, *, small: bool | None, large: bool = True) -> Row:
    one = row(id_)
    return replace(one, small=replace(one.small, correct=small), large=replace(one.large, correct=large), agrees=small)


RUN = Run(HEADER, (graded("1", small=True), graded("2", small=False), graded("3", small=None)), "home")


def shown(summary: Summary) -> str:
    console = Console(width=100)
    with console.capture() as capture:
        console.print(table(summary))
    return capture.get()


def test_shares_are_of_what_is_known_and_costs_of_everything() -> None:
    summary = summarise(RUN, Path("home.jsonl"), resumed=2, failed=1)
    assert (summary.questions, summary.resumed, summary.failed, summary.agreement) == (3, 2, 1, 0.5)
    assert (summary.small.graded, summary.small.accuracy, summary.small.cost_nanos_per_1000) == (2, 0.5, 1_200_000)
    assert (summary.large.graded, summary.large.accuracy) == (3, 1.0)
    assert summary.as_json()["file"] == "home.jsonl"


def test_the_table_says_what_its_figures_leave_open() -> None:
    said = shown(summarise(RUN, Path("home.jsonl"), failed=1))
    assert said.startswith("3 questions in home.jsonl")
    assert "both answer the same to 50.0%" in said
    assert "1 small answers are not known" in said
    assert "1 questions got no answer and are left out" in said
    assert "right is what the large tier answers" not in said


def test_a_run_without_any_small_answer_has_no_share_of_them() -> None:
    summary = summarise(replace(RUN, header=replace(HEADER, labels="large"), rows=RUN.rows[2:]), Path("home.jsonl"))
    assert (summary.small.accuracy, summary.small.accuracy_interval, summary.agreement) == (None, None, None)
    assert "both answer the same" not in shown(summary)
    assert "right is what the large tier answers" in shown(summary)
