"""Questions with known answers: one JSON object with id, task, request and answer on every line of a file."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib.resources.abc import Traversable
from pathlib import Path

from marginal.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Question:
    """A request, the task it belongs to, and the only text that counts as right."""

    id: str
    task: str
    request: str
    answer: str

    def graded(self, text: str) -> bool:
        """Whether `text` is the answer, white space around it aside."""
        return text.strip() == self.answer.strip()


def read_questions(path: Path | Traversable) -> tuple[Question, ...]:
    """Reads a question file. Raises ConfigurationError naming the file and the line."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read as a question file: {_cause(error)}") from error
    questions = [_question(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
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


def _question(line: str, place: str) -> Question:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ConfigurationError(f"{place}: not a JSON object: {_cause(error)}") from error
    if not isinstance(record, dict):
        raise ConfigurationError(f"{place}: not a JSON object with id, task, request and answer")
    values = {field.name: _text(record, field.name, place) for field in fields(Question)}
    return Question(**values)


def _text(record: dict[str, object], name: str, place: str) -> str:
    value = record.get(name)
    if name == "id" and isinstance(value, int):
        return str(value)
    if not isinstance(value, str):
        raise ConfigurationError(f"{place}: {name} is missing or no text")
    return value


def _cause(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
