"""Published multiple-choice results become rows whose one token has the options as alternatives."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from marginal.errors import ConfigurationError
from marginal.evaluation.runs import read_run
from marginal.policy.scores import judge
from marginal.tokens import Usage

LINE: dict[str, Any] = {
    "id": 7,
    "subject": "geography",
    "prompt": "Which is a river?\nA. Ebro\nB. Etna\nAnswer:",
    "gold": "B",
    "small": {"A": -1.2, "B": -0.4},
    "large": {"A": -0.1, "B": -2.4},
    "small_correct": 1,
    "large_correct": 0,
}


def written(directory: Path, *lines: dict[str, Any], name: str = "quiz_Tiny-1B__Huge-70B.jsonl.gz") -> Path:
    path = directory / name
    text = "".join(json.dumps(line) + "\n" for line in lines)
    path.write_bytes(gzip.compress(text.encode()))
    return path


def test_a_line_becomes_a_row(tmp_path: Path) -> None:
    [row] = read_run(written(tmp_path, LINE)).rows
    assert (row.id, row.task, row.choices, row.agrees) == ("7", "geography", ("A", "B"), False)
    assert (row.small.correct, row.large.correct) == (True, False)
    [token] = row.tokens
    assert (token.text, token.logprob) == ("B", -0.4)
    assert [(other.text, other.logprob) for other in token.alternatives] == [("B", -0.4), ("A", -1.2)]


def test_input_is_estimated_and_costs_and_times_are_unknown(tmp_path: Path) -> None:
    [row] = read_run(written(tmp_path, LINE)).rows
    assert row.small.usage == row.large.usage == Usage(input_tokens=11, output_tokens=1)
    assert (row.small.cost_nanos, row.large.seconds) == (0, 0.0)


def test_the_options_margin_is_a_score(tmp_path: Path) -> None:
    [row] = read_run(written(tmp_path, LINE)).rows
    score = judge("first_token_margin", row.tokens, choices=row.choices)
    assert score is not None
    assert 0.3 < score < 0.4


@pytest.mark.parametrize(
    ("name", "run", "models"),
    [
        ("quiz_Tiny-1B__Huge-70B.jsonl.gz", "quiz_Tiny-1B__Huge-70B", ("Tiny-1B", "Huge-70B")),
        ("Tiny-1B__Huge_v2.jsonl.gz", "Tiny-1B__Huge_v2", ("Tiny-1B", "Huge_v2")),
        ("quiz.jsonl.gz", "quiz", ("small", "large")),
    ],
)
def test_the_models_are_named_by_the_file(tmp_path: Path, name: str, run: str, models: tuple[str, str]) -> None:
    read = read_run(written(tmp_path, LINE, name=name), format="option-logits")
    assert (read.name, (read.header.small, read.header.large)) == (run, models)
    assert (read.header.labels, read.header.alternatives) == ("expected", 2)


def test_the_earlier_of_two_options_that_are_level_is_the_answer(tmp_path: Path) -> None:
    [row] = read_run(written(tmp_path, LINE | {"small": {"A": -0.7, "B": -0.7}})).rows
    assert row.tokens[0].text == "A"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"small": {"A": 0.5, "B": -1.0}}, "small.A: input should be less than or equal to 0"),
        ({"small": {"A": -0.5}}, "small: dictionary should have at least 2 items"),
        ({"large_correct": 2}, "large_correct: "),
        ({"id": 7}, "id: 7 is there twice"),
    ],
)
def test_a_bad_line_is_refused_with_its_number(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    path = written(tmp_path, LINE, LINE | {"id": 8} | changes)
    with pytest.raises(ConfigurationError) as refused:
        read_run(path)
    assert str(refused.value).startswith(f"{path}:2: {problem}")
