"""What is said about a file that is not as it should be: field, line and what it takes."""

from collections.abc import Callable, Sequence

from pydantic import ValidationError

from marginal.errors import ConfigurationError
from marginal.settings.lines import FieldLines

MOST_COMPLAINTS = 10


def complained(
    error: ValidationError, text: str, *, named: Callable[[Sequence[str]], Sequence[str]] = tuple
) -> ConfigurationError:
    """One sentence about what pydantic found in a TOML text, the first ten problems of it.

    `named` makes the field as it stands in the file of where pydantic was in its tables.
    """
    lines, problems = FieldLines(text), error.errors()
    said = []
    for problem in problems[:MOST_COMPLAINTS]:
        message = problem["msg"].removeprefix("Value error, ")
        field = named([str(part) for part in problem["loc"] if part != "[key]"])
        said.append(_with_line(field, f"{message[0].lower()}{message[1:]}", lines))
    more = [f"and {len(problems) - len(said)} more"] if len(problems) > len(said) else []
    return ConfigurationError("; ".join((*said, *more)))


def placed(error: ConfigurationError, text: str) -> ConfigurationError:
    """The same error, "field: problem", with the line of its field."""
    field, _, problem = str(error).partition(": ")
    return ConfigurationError(_with_line(field.split("."), problem, FieldLines(text)))


def _with_line(field: Sequence[str], problem: str, lines: FieldLines) -> str:
    line = lines.of(field)
    return f"{'.'.join(field)}{f' (line {line})' if line else ''}: {problem}"
