"""Records a run: a row is on disk before the next is written, and an interrupted run goes on where it ended."""

import fcntl
import gzip
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from marginal.errors import ConfigurationError
from marginal.evaluation.results import Header, Row
from marginal.evaluation.run_files import compressed
from marginal.evaluation.run_lines import header_to_line, row_to_line
from marginal.evaluation.runs import read_recorded


class RunWriter:
    """Appends rows to a run file; `done` are the ids of those that were there. Use it as a context manager."""

    def __init__(self, path: Path, header: Header) -> None:
        """Begins the file, or goes on with a run of the same header, its time aside; a torn last line is removed.

        Raises ConfigurationError when it cannot be written, holds something else, or is being written by another.
        """
        self._path = path
        try:
            self._raw = path.open("ab")
        except OSError as error:
            raise _unwritable(path, error) from error
        try:
            self.done = self._taken_up(header)
            self._file: IO[bytes] | gzip.GzipFile = self._raw
            if compressed(path):
                self._file = gzip.GzipFile(mode="ab", fileobj=self._raw)
        except BaseException:
            self._raw.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._raw.close()

    def append(self, row: Row) -> None:
        """Writes one row. Raises ConfigurationError when the disk takes no more."""
        try:
            self._file.write(row_to_line(row).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise _unwritable(self._path, error) from error

    def _taken_up(self, header: Header) -> frozenset[str]:
        """The ids that are there, after the file was begun or repaired."""
        _hold(self._raw, self._path)
        recorded = read_recorded(self._path)
        if recorded is None:
            self._replace([header_to_line(header).encode()])
            return frozenset()
        _refuse_other(self._path, recorded.header, header)
        if recorded.torn:
            self._replace(recorded.lines)
        return recorded.ids

    def _replace(self, lines: Iterable[bytes]) -> None:
        """Puts a file with these lines in the place of the old one, in one step, and holds it from then on."""
        plain = b"".join(line + b"\n" for line in lines)
        beside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            with beside.open("wb") as file:
                file.write(gzip.compress(plain) if compressed(self._path) else plain)
            new = beside.open("ab")
            _hold(new, self._path)
            beside.replace(self._path)
        except OSError as error:
            raise _unwritable(self._path, error) from error
        self._raw.close()
        self._raw = new


def _hold(file: IO[bytes], path: Path) -> None:
    """Keeps others from writing while it is open: two recordings of one run would write every row twice."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigurationError(f"{path}: is being recorded by another process") from None


def _refuse_other(path: Path, recorded: Header, wanted: Header) -> None:
    """Raises ConfigurationError naming the first field that differs; rows of both would not be comparable."""
    then, now = _settings(recorded), _settings(wanted)
    for field, value in then.items():
        if value != now[field]:
            raise ConfigurationError(
                f"{path}: was recorded with {field} {value}, not {now[field]}:"
                " go on with the same, or name another file with --output"
            )


def _settings(header: Header) -> dict[str, Any]:
    """Every field that rows depend on, by its name in the file."""
    values = asdict(header)
    sampling = values.pop("sampling")
    del values["created"]
    return values | {f"sampling.{name}": value for name, value in sampling.items()}


def _unwritable(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(f"{path}: cannot be written, {(error.strerror or 'no reason').lower()}")
