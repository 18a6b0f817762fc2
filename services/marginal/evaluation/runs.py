"""Run files: what two models answered to the same requests, recorded once and replayed as often as wanted.

A run is JSON lines, a header and then a row per request, in the order of `run_lines.py`; `run.schema.json` is its
published schema. With a name that ends in .gz it is compressed. Other formats become the same values.
"""

import gc
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from marginal.errors import ConfigurationError
from marginal.evaluation import option_logits
from marginal.evaluation.results import Header, Row, Run, TierResult
from marginal.evaluation.run_files import Content, read_content, stem
from marginal.evaluation.run_lines import FORMAT, header_from_line, row_from_line

__all__ = ["AUTO", "FORMATS", "Header", "Recorded", "Row", "Run", "TierResult", "read_recorded", "read_run"]

AUTO, OPTION_LOGITS = "auto", "option-logits"
FORMATS = (AUTO, FORMAT, OPTION_LOGITS)
"""What `read_run` reads; auto tells them apart by the first line."""

Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class Recorded:
    """A run as far as it is recorded: which ids are done, its whole lines, and whether its end has to be repaired."""

    header: Header
    ids: frozenset[str]
    lines: tuple[bytes, ...]
    torn: bool


def read_run(path: Path, *, format: str = AUTO) -> Run:  # noqa: A002 (as the option is called)
    """Reads a whole run, at least one row. Raises ConfigurationError, "PATH:LINE: field: what is wrong"."""
    if format not in FORMATS:
        raise ConfigurationError(f"format: {format} is none of {', '.join(FORMATS)}")
    numbered = _whole_lines(path, read_content(path))
    if not numbered:
        raise ConfigurationError(f"{path}: is empty; a run begins with a header, see `marginal record --help`")
    with _without_collector():
        if (format if format != AUTO else _detected(path, numbered[0])) == OPTION_LOGITS:
            rows = _rows(path, numbered, option_logits.row)
            header = option_logits.header(stem(path), len(rows[0].choices))
        else:
            header = _at(path, numbered[0], header_from_line)
            rows = _rows(path, numbered[1:], row_from_line)
    if not rows:
        raise ConfigurationError(f"{path}: has a header and no row: nothing was recorded yet")
    return Run(header, rows, stem(path))


@contextmanager
def _without_collector() -> Iterator[None]:
    """Spares the cyclic collector a million new values that hold no cycle: it would look at them again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def read_recorded(path: Path) -> Recorded | None:
    """Reads what an interrupted recording left, None when the file is empty. Raises ConfigurationError."""
    content = read_content(path)
    rest_is_whole = _is_json(content.rest)
    lines = (*content.lines, content.rest) if rest_is_whole else content.lines
    numbered = _numbered(lines)
    if not numbered and not content.rest:
        return None
    with _without_collector():
        header = _at(path, numbered[0] if numbered else (1, content.rest), header_from_line)
        ids = frozenset(row.id for row in _rows(path, numbered[1:], row_from_line))
    return Recorded(header, ids, tuple(line for _, line in numbered), torn=content.cut or bool(content.rest))


def _whole_lines(path: Path, content: Content) -> list[tuple[int, bytes]]:
    """Every line that is not blank, with its number. Raises ConfigurationError for a file that ends in the middle."""
    lines = (*content.lines, content.rest)
    if content.cut or not _is_json(content.rest):
        raise ConfigurationError(
            f"{path}:{len(lines)}: the file ends in the middle of {'its gzip data' if content.cut else 'this line'}:"
            " it is still being recorded, or that was interrupted; the same `marginal record` again completes it"
        )
    return _numbered(lines)


def _numbered(lines: Iterable[bytes]) -> list[tuple[int, bytes]]:
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def _detected(path: Path, first: tuple[int, bytes]) -> str:
    number, line = first
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    if option_logits.looks_like(value):
        return OPTION_LOGITS
    if isinstance(value, dict) and value.get("format") == FORMAT:
        return FORMAT
    raise ConfigurationError(
        f'{path}:{number}: is no header: a run begins with {{"format": "{FORMAT}", ...}}, and this is no line of'
        f" {OPTION_LOGITS} either"
    )


def _rows(path: Path, numbered: Iterable[tuple[int, bytes]], read: Callable[[bytes], Row]) -> tuple[Row, ...]:
    """Reads the rows. Raises ConfigurationError, also for an id that was there before."""
    rows: dict[str, Row] = {}
    for number, line in numbered:
        row = _at(path, (number, line), read)
        if row.id in rows:
            raise ConfigurationError(f"{path}:{number}: id: {row.id} is there twice")
        rows[row.id] = row
    return tuple(rows.values())


def _at(path: Path, numbered: tuple[int, bytes], read: Callable[[bytes], Read]) -> Read:
    """What a line says, its errors with their place."""
    number, line = numbered
    try:
        return read(line)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}:{number}: {error}") from None


def _is_json(rest: bytes) -> bool:
    """Whether what follows the last end of a line is nothing, or a line that only lacks its end."""
    try:
        return not rest.strip() or isinstance(json.loads(rest), dict)
    except ValueError:
        return False
