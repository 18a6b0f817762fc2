"""The files of a journal directory: their names, their order, and the torn end that a crash may leave.

A directory holds `journal-00000001.jsonl`, `journal-00000002.jsonl` and so on, JSON lines of UTF-8, the newest last.
"""

import fcntl
import mmap
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic_core import from_json

from marginal.errors import ConfigurationError
from marginal.ledger.journal_lines import AGAIN

SKEW_SECONDS = 3_600.0
"""How far the clock that says when a request was admitted may be from the clock of the journal's files."""

_NAME = re.compile(r"journal-(\d{8,})\.jsonl")


def journal_file(directory: Path, number: int) -> Path:
    """The path of a journal's file; the first has number 1."""
    return directory / f"journal-{number:08d}.jsonl"


def journal_number(path: Path) -> int:
    """The number of a journal's file, 0 when it is none."""
    found = _NAME.fullmatch(path.name)
    return int(found[1]) if found else 0


def journal_files(directory: Path, *, since: float = 0.0) -> Sequence[Path]:
    """A journal's files, oldest first, without those that were last written before `since`. Raises OSError."""
    files = sorted(filter(journal_number, directory.iterdir()), key=journal_number)
    return [path for path in files if (found := _found(path)) is not None and found.st_mtime >= since]


def bytes_of(files: Iterable[Path]) -> int:
    """How many bytes files have; one that was deleted meanwhile has none. Raises OSError."""
    return sum(found.st_size for path in files if (found := _found(path)) is not None)


def journal_groups(files: Sequence[Path]) -> Sequence[Sequence[Path]]:
    """The same files, those together that may have the same lines: no line is in two groups. Raises OSError."""
    groups: list[list[Path]] = []
    for path in files:
        since, group = _again_since(path), [path]
        while groups and journal_number(groups[-1][-1]) >= since:
            group = [*groups.pop(), *group]
        groups.append(group)
    return groups


def locked(directory: Path) -> int:
    """The open directory of one process, locked as long as it is open. Raises ConfigurationError, OSError."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ConfigurationError(
            f"journal: {directory}: another router writes here: give every router a directory of its own"
        ) from None
    return descriptor


def sync_directory(directory: Path) -> None:
    """Names of files that are in a directory now are on the disk for good. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def last_written(directory: Path) -> float:
    """When the newest file was last written, in seconds since the Unix epoch; 0 when there is none. Raises OSError."""
    files = map(_found, journal_files(directory))
    return max((found.st_mtime for found in files if found is not None), default=0.0)


def cut_torn_end(path: Path) -> int:
    """Cuts off what a crash left behind the last whole line; gives the bytes cut. Raises OSError."""
    with path.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            return 0
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            whole = _end_of_whole_lines(content)
        if whole < size:
            file.truncate(whole)
            os.fsync(file.fileno())
        return size - whole


def _again_since(path: Path) -> int:
    """The number that the file's `again` line names, else its own."""
    with path.open("rb") as file:
        first = file.readline()
    try:
        line = from_json(first)
        return int(line["since"]) if line["event"] == AGAIN else journal_number(path)
    except (ValueError, TypeError, KeyError):
        return journal_number(path)


def _found(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _end_of_whole_lines(content: mmap.mmap) -> int:
    end = content.rfind(b"\n") + 1
    while end:
        begin = content.rfind(b"\n", 0, end - 1) + 1
        if is_line(content[begin:end]):
            break
        end = begin
    return end


def is_line(line: bytes) -> bool:
    """Whether it is a JSON object."""
    try:
        return isinstance(from_json(line), dict)
    except ValueError:
        return False
