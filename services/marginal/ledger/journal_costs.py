"""What journals say that requests have cost, read once: a record that a surer one replaces is taken back again.

Memory is about 200 bytes per request and never a record.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from marginal.ledger.costs import CostTally
from marginal.ledger.journal_files import journal_files
from marginal.ledger.journal_lines import ADMITTED, COST_RECORD, PROGRESS, check_record
from marginal.ledger.reading import sureness
from marginal.routing.spending import CostQuery, CostSummary

SKEW_SECONDS = 3_600.0
"""How far the clock that says when a request was admitted may be from the clock of the journal's files."""

Watch = Callable[[int], None]
"""Is told how many more bytes were read; what it raises ends the reading."""

_BEGINS = 32
_RECORD, _OTHERS = f'"{COST_RECORD}"'.encode(), tuple(f'"{event}"'.encode() for event in (ADMITTED, PROGRESS))
_OFFSET_BITS = 40
_WATCHED_BYTES = 1_000_000


def files_since(directories: Sequence[Path], since: float | None) -> Sequence[Path]:
    """The files that may hold records of requests admitted since then. Raises OSError."""
    written = 0.0 if since is None else since - SKEW_SECONDS
    return [path for directory in directories for path in journal_files(directory, since=written)]


def journal_costs(files: Sequence[Path], query: CostQuery, *, watch: Watch = lambda _: None) -> CostSummary:
    """Sums up the final record of every request. Raises OSError."""
    tally, best, damaged = CostTally(query), dict[str, tuple[int, int]](), 0
    for place, text in _lines(files, watch):
        begins = text[:_BEGINS]
        if _RECORD not in begins:
            damaged += not _readable(text, begins)
            continue
        try:
            line = from_json(text)
            check_record(line)
            found = sureness(line), place
            before = best.get(line["request_id"])
            if before is None or found > before:
                tally.add(line)
                best[line["request_id"]] = found
                if before is not None:
                    tally.take_back(_line_at(files, before[1]))
        except (ValueError, TypeError, KeyError):
            damaged += 1
    return tally.summary(damaged=damaged)


def journal_record(
    files: Sequence[Path], request_id: str, *, watch: Watch = lambda _: None
) -> Mapping[str, Any] | None:
    """The record line that counts of one request, None when there is none. Raises OSError."""
    needle, best, worth = f'"{request_id}"'.encode(), None, -1
    for _, text in _lines(files, watch):
        if needle in text and _RECORD in text[:_BEGINS]:
            try:
                line = from_json(text)
                if line["request_id"] == request_id and sureness(line) >= worth:
                    best, worth = line, sureness(line)
            except (ValueError, TypeError, KeyError):
                continue
    return best


def _lines(files: Sequence[Path], watch: Watch) -> Iterator[tuple[int, bytes]]:
    """Every line with its place, later ones with a greater one."""
    for number, path in enumerate(files):
        offset, told = 0, 0
        with path.open("rb") as file:
            for text in file:
                yield number << _OFFSET_BITS | offset, text
                offset += len(text)
                if offset - told >= _WATCHED_BYTES:
                    watch(offset - told)
                    told = offset
        watch(offset - told)


def _line_at(files: Sequence[Path], place: int) -> Mapping[str, Any]:
    with files[place >> _OFFSET_BITS].open("rb") as file:
        file.seek(place & ((1 << _OFFSET_BITS) - 1))
        line: Mapping[str, Any] = from_json(file.readline())
    return line


def _readable(text: bytes, begins: bytes) -> bool:
    if any(event in begins for event in _OTHERS):
        return True
    try:
        return isinstance(from_json(text), dict)
    except ValueError:
        return False
