"""Reads journals again: one final record per request, and those that never got one.

Two passes, so that memory is about 200 bytes per request and never a record: the first finds which line of a request
counts, the second reads those lines. A line that cannot be understood is passed over and counted. A file that is
deleted meanwhile is passed over too, as if it had been before.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from marginal.ledger.journal_files import journal_files, last_written
from marginal.ledger.journal_lines import (
    ADMITTED,
    COST_RECORD,
    PROGRESS,
    Admitted,
    admitted_from,
    check_record,
    marks_from,
)
from marginal.ledger.sums import read_sums
from marginal.routing.records import Settlement

_OFFSET_BITS, _FILE_BITS = 40, 20
_PLACE_BITS = _OFFSET_BITS + _FILE_BITS
_PLACE = (1 << _PLACE_BITS) - 1
"""Where a line is: the file and its offset there. What a request's record is worth stands above that in one number."""

_OPEN = 2
SUREST = 4
"""What a record is worth that no other kind replaces."""

_SURENESS = {Settlement.EXPIRED.value: 1, Settlement.RECOVERED.value: 3, Settlement.SETTLED.value: SUREST}


@dataclass(slots=True)
class Reading:
    """What journals tell: `unfinished` are requests without a last record.

    A request that was answered before its shadow attempt ended is unfinished too, and has a record all the same.
    """

    lines: int = 0
    damaged: int = 0
    unfinished: dict[str, Admitted] = field(default_factory=dict)
    _files: list[Path] = field(default_factory=list)
    _best: dict[str, int] = field(default_factory=dict)

    @property
    def records(self) -> int:
        """How many requests have a record."""
        return len(self._best)

    def final_records(self) -> Iterator[Mapping[str, Any]]:
        """The record lines that count, one per request, in the order of the files. Raises OSError."""
        places = array("Q", sorted(best & _PLACE for best in self._best.values()))
        at = 0
        for number, path in enumerate(self._files):
            end = bisect_left(places, (number + 1) << _OFFSET_BITS, at)
            with suppress(FileNotFoundError), path.open("rb") as file:
                for place in places[at:end]:
                    file.seek(place - (number << _OFFSET_BITS))
                    yield from_json(file.readline())
            at = end

    def take(self, path: Path) -> None:
        """Reads one more file, later than those before in its directory. Raises OSError."""
        place = len(self._files) << _OFFSET_BITS
        self._files.append(path)
        with suppress(FileNotFoundError), path.open("rb") as file:
            for line in file:
                self.lines += 1
                try:
                    self._take_line(from_json(line), place)
                except (ValueError, TypeError, KeyError, AttributeError):
                    self.damaged += 1
                place += len(line)

    def _take_line(self, line: Mapping[str, Any], place: int) -> None:
        event = line["event"]
        if event == COST_RECORD:
            self._take_record(line, place)
        elif event == ADMITTED:
            request = admitted_from(line)
            if self._best.get(request.request_id, 0) >> _PLACE_BITS in (0, _OPEN):
                self.unfinished[request.request_id] = request
        elif event == PROGRESS:
            marks_from(line)

    def _take_record(self, line: Mapping[str, Any], place: int) -> None:
        check_record(line)
        request_id, is_open = line["request_id"], line.get("open", False)
        found = sureness(line) << _PLACE_BITS | place
        if found > self._best.get(request_id, 0):
            self._best[request_id] = found
        if not is_open:
            self.unfinished.pop(request_id, None)


def sureness(line: Mapping[str, Any]) -> int:
    """What a record's line is worth against others of its request. Raises KeyError."""
    return _OPEN if line.get("open", False) else _SURENESS[line["settlement"]]


def kept_since(directories: Sequence[Path]) -> float | None:
    """Records of requests that ended before then may be deleted, in seconds since the Unix epoch; None when none is.

    It is when the first request was admitted in the first file that is kept. Raises ConfigurationError, OSError.
    """
    deleted = [directory for directory in directories if read_sums(directory).upto]
    return max(map(_first_admitted, deleted), default=None)


def _first_admitted(directory: Path) -> float:
    for path in journal_files(directory):
        with suppress(FileNotFoundError), path.open("rb") as file:
            for text in file:
                with suppress(ValueError, TypeError, KeyError):
                    if (line := from_json(text))["event"] == ADMITTED:
                        return admitted_from(line).at
    return last_written(directory)


def read_journals(directories: Sequence[Path]) -> Reading:
    """Reads one or several routers' journals.

    Of several records of a request a SETTLED one counts before a RECOVERED one before an EXPIRED one, and of the
    same kind the last. Raises OSError.
    """
    reading = Reading()
    for directory in directories:
        for path in journal_files(directory):
            reading.take(path)
    return reading
