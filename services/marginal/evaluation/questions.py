"""Questions to ask: one JSON object with id, task, request and answer on every line of a file, and maybe choices."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path

from marginal.errors import ConfigurationError
from marginal.evaluation.graders import Grader, exact


@dataclass(frozen=True, slots=True)
class Question:
    """A request, the task it belongs to, what counts as right, None when nobody said, and its classes, if any."""

    id: str
    task: str
    request: str
    answer: str | None = None
    choices: tuple[str, ...] = ()

    def graded(self, text: str, grader: Grader = exact) -> bool:
        """Whether `text` is the answer."""
        return self.answer is not None and grader(text, self.answer)


def read_questions(path: Path | Traversable, *, answers: bool = True) -> tuple[Question, ...]:
    """Reads a question file, every question with an answer when `answers`.

    Raises ConfigurationError naming the file and the line.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read as a question file: {_cause(error)}") from error
    questions = [
        _question(line, f"{path}:{number}", answers=answers) for number, line in enumerate(lines, 1) if line.strip()
    ]
    if not questions:
        raise ConfigurationError(f"{path} holds no question: give one JSON object per line")
    return tuple(questions)


def spread(questions: Sequence[Question], *, limit: int) -> tuple[Question, ...]:
    """At most `limit` >= 1 questions, every task in its share, the same ones every time, in the order of the file."""
    if limit >= len(questions):
        return tuple(questions)
    by_task = sorted(range(len(questions)), key=lambda position: (questions[position].task, position))
    chosen = sorted(by_task[turn * len(questions) // limit] for turn in range(limit))
    return tuple(questions[position] for position in chosen)


def section(questions: Sequence[Question], *, offset: int, limit: int | None) -> tuple[Question, ...]:
    """At most `limit` questions after the first `offset`, every task in its share in any section.

    It is drawn by the ids, so it does not depend on the file's order. Sections whose numbers do not overlap share no
    question: 0 to 700 for calibration leaves 700 onwards for a test.
    """
    by_task: dict[str, list[Question]] = defaultdict(list)
    for question in sorted(questions, key=lambda one: hashlib.sha256(one.id.encode()).digest()):
        by_task[question.task].append(question)
    turns = sorted(
        ((turn + 0.5) / len(some), task, turn) for task, some in by_task.items() for turn in range(len(some))
    )
    ordered = [by_task[task][turn] for _, task, turn in turns]
    return tuple(ordered[offset : None if limit is None else offset + limit])


def _question(line: str, place: str, *, answers: bool) -> Question:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ConfigurationError(f"{place}: not a JSON object: {_cause(error)}") from error
    if not isinstance(record, dict):
        raise ConfigurationError(f"{place}: not a JSON object with id, task, request and answer")
    return Question(
        id=_text(record, "id", place),
        task=_text(record, "task", place),
        request=_text(record, "request", place),
        answer=_text(record, "answer", place) if answers or record.get("answer") is not None else None,
        choices=_choices(record, place),
    )


def _text(record: dict[str, object], name: str, place: str) -> str:
    value = record.get(name)
    if name == "id" and isinstance(value, int):
        return str(value)
    if not isinstance(value, str):
        raise ConfigurationError(f"{place}: {name} is missing or no text")
    return value


def _choices(record: dict[str, object], place: str) -> tuple[str, ...]:
    values = record.get("choices") or []
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values) or len(values) == 1:
        raise ConfigurationError(f"{place}: choices are no list of two or more texts")
    return tuple(values)


def _cause(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
