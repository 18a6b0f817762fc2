"""The files of a journal directory: their names, their order, and the torn end that a crash may leave.

A directory holds `journal-00000001.jsonl`, `journal-00000002.jsonl` and so on, JSON lines of UTF-8, the newest last.
"""

import mmap
import os
import re
from collections.abc import Sequence
from pathlib import Path

from pydantic_core import from_json

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
    return [path for path in files if path.stat().st_mtime >= since]


def last_written(directory: Path) -> float:
    """When the newest file was last written, in seconds since the Unix epoch; 0 when there is none. Raises OSError."""
    return max((path.stat().st_mtime for path in journal_files(directory)), default=0.0)


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
