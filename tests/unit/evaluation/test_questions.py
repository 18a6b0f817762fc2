"""The question file: what is read, what is refused, and which questions a limit takes."""

import json
from collections import Counter
from pathlib import Path

import pytest

from marginal.errors import ConfigurationError
from marginal.evaluation.questions import Question, read_questions, section, spread


def question(number: int, *, task: str = "timer") -> Question:
    return Question(str(number), task, f"set {number} minutes", f"timer {number} min")


def written(directory: Path, *lines: str) -> Path:
    path = directory / "questions.jsonl"
    path.write_text("\n".join(lines), "utf-8")
    return path


def test_every_line_is_a_question_and_blank_lines_are_none(tmp_path: Path) -> None:
    line = json.dumps({"id": 7, "task": "timer", "request": "five minutes", "answer": "timer 5 min"})
    assert read_questions(written(tmp_path, line, "", line))[0] == Question("7", "timer", "five minutes", "timer 5 min")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "not a JSON object"),
        ("[]", "not a JSON object"),
        ('{"id": "1", "task": "timer", "request": "x"}', "answer is missing"),
        ('{"id": "1", "task": 3, "request": "x", "answer": "y"}', "task is missing or no text"),
    ],
)
def test_a_bad_line_is_refused_with_its_number(tmp_path: Path, line: str, problem: str) -> None:
    good = '{"id": "1", "task": "timer", "request": "x", "answer": "y"}'
    with pytest.raises(ConfigurationError, match=rf"questions\.jsonl:2: .*{problem}"):
        read_questions(written(tmp_path, good, line))


def test_a_missing_or_an_empty_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"absent\.jsonl cannot be read"):
        read_questions(tmp_path / "absent.jsonl")
    with pytest.raises(ConfigurationError, match="holds no question"):
        read_questions(written(tmp_path, ""))


def test_an_answer_is_right_when_it_is_the_same_text_white_space_around_it_aside() -> None:
    assert question(5).graded(" timer 5 min\n")
    assert not question(5).graded("timer 5 Min")


def test_a_limit_takes_every_task_in_its_share_in_the_order_of_the_file() -> None:
    questions = [question(number, task="timer" if number % 4 else "add") for number in range(100)]
    taken = spread(questions, limit=20)
    assert Counter(one.task for one in taken) == {"timer": 15, "add": 5}
    assert list(taken) == sorted(taken, key=lambda one: int(one.id))


def test_a_limit_beyond_the_file_takes_all_of_it() -> None:
    questions = [question(number) for number in range(3)]
    assert spread(questions, limit=300) == tuple(questions)


def test_a_question_may_have_choices_and_may_lack_an_answer_when_none_is_needed(tmp_path: Path) -> None:
    path = written(tmp_path, '{"id": "1", "task": "quiz", "request": "x", "choices": ["A", "B"]}')
    assert read_questions(path, answers=False) == (Question("1", "quiz", "x", None, ("A", "B")),)
    with pytest.raises(ConfigurationError, match=r"questions\.jsonl:1: answer is missing"):
        read_questions(path)


@pytest.mark.parametrize("choices", ['"A"', '["A"]', '["A", 2]'])
def test_choices_that_are_no_list_of_texts_are_refused(tmp_path: Path, choices: str) -> None:
    path = written(tmp_path, f'{{"id": "1", "task": "quiz", "request": "x", "answer": "A", "choices": {choices}}}')
    with pytest.raises(ConfigurationError, match=r"questions\.jsonl:1: choices are no list"):
        read_questions(path)


def test_sections_that_do_not_overlap_share_no_question_and_have_every_task_in_its_share() -> None:
    questions = [question(number, task="timer" if number % 4 else "add") for number in range(1000)]
    first = section(questions, offset=0, limit=700)
    rest = section(questions, offset=700, limit=None)
    assert len(first) == 700
    assert {one.id for one in (*first, *rest)} == {one.id for one in questions}
    assert Counter(one.task for one in first) == {"timer": 525, "add": 175}
    assert Counter(one.task for one in rest) == {"timer": 225, "add": 75}


def test_a_section_does_not_depend_on_the_order_of_the_file() -> None:
    questions = [question(number) for number in range(50)]
    assert section(questions[::-1], offset=10, limit=5) == section(questions, offset=10, limit=5)


def test_a_question_without_an_answer_has_no_right_one() -> None:
    assert not Question("1", "quiz", "x").graded("")
