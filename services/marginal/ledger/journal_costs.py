"""What journals say that requests have cost, read once: a record that a surer one replaces is taken back again.

Memory is about 200 bytes per request, and the records that a surer one may replace. A file that is deleted meanwhile is
passed over.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from marginal.ledger.costs import CostTally
from marginal.ledger.journal_files import SKEW_SECONDS, journal_files
from marginal.ledger.journal_lines import ADMITTED, COST_RECORD, PROGRESS, check_record
from marginal.ledger.reading import SUREST, sureness
from marginal.routing.spending import CostQuery, CostSummary

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
    unsure: dict[str, Mapping[str, Any]] = {}
    for place, text in _lines(files, watch):
        begins = text[:_BEGINS]
        if _RECORD not in begins:
            damaged += not _readable(text, begins)
            continue
        try:
            line = from_json(text)
            check_record(line)
            request_id, found = line["request_id"], (sureness(line), place)
            before = best.get(request_id)
            if before is None or found > before:
                earlier = unsure.pop(request_id, None)
                if before is not None and earlier is None and (earlier := _line_at(files, before[1])) is None:
                    continue  # it was sure, and its file is deleted by now: this one says the same
                tally.add(line)
                best[request_id] = found
                if found[0] < SUREST:
                    unsure[request_id] = line
                if earlier is not None:
                    tally.take_back(earlier)
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
        with suppress(FileNotFoundError), path.open("rb") as file:
            for text in file:
                yield number << _OFFSET_BITS | offset, text
                offset += len(text)
                if offset - told >= _WATCHED_BYTES:
                    watch(offset - told)
                    told = offset
        watch(offset - told)


def _line_at(files: Sequence[Path], place: int) -> Mapping[str, Any] | None:
    """The line at a place, None when its file is deleted by now."""
    try:
        with files[place >> _OFFSET_BITS].open("rb") as file:
            file.seek(place & ((1 << _OFFSET_BITS) - 1))
            line: Mapping[str, Any] = from_json(file.readline())
    except FileNotFoundError:
        return None
    return line


def _readable(text: bytes, begins: bytes) -> bool:
    if any(event in begins for event in _OTHERS):
        return True
    try:
        return isinstance(from_json(text), dict)
    except ValueError:
        return False
