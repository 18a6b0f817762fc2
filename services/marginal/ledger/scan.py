"""Reads a journal once, from its oldest line to its newest: memory is that of the requests that are not finished.

A line that cannot be understood is passed over and counted.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from marginal.ledger.journal_files import journal_groups
from marginal.ledger.journal_lines import (
    ADMITTED,
    COST_RECORD,
    PROGRESS,
    SUPERSEDED,
    Admitted,
    admitted_from,
    check_record,
    marks_from,
    settled_from,
    settlement_of,
    superseded_from,
)
from marginal.ledger.ports import Settled
from marginal.routing.records import Settlement


@dataclass(slots=True)
class Scan:
    """What became of requests in the lines so far.

    `unfinished` are requests without a last record, `marks` what those had cost, in nano-units; `answered` are the
    record lines of requests whose shadow attempt is under way, and `expired` what was reckoned of others' requests, as
    far as it is not known that their own routers told the truth; `superseded` are those of files before, where it is.
    `recovered` was reckoned of this router's own requests, and is finished.
    """

    lines: int = 0
    damaged: int = 0
    unfinished: dict[str, Admitted] = field(default_factory=dict)
    marks: dict[str, int] = field(default_factory=dict)
    answered: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    expired: dict[str, Settled] = field(default_factory=dict)
    superseded: set[str] = field(default_factory=set)
    recovered: dict[str, Settled] = field(default_factory=dict)

    def finished(self, files: Sequence[Path]) -> Iterator[Settled]:
        """Reads files, oldest first; gives what each request came to by its last record, once. Raises OSError."""
        for group in journal_groups(files):
            yield from self._finished_in(group)

    def _finished_in(self, group: Sequence[Path]) -> Iterator[Settled]:
        ended: set[str] = set()  # a line that is there again is in the same group
        for path in group:
            with path.open("rb") as file:
                for text in file:
                    self.lines += 1
                    try:
                        settled = self._take(from_json(text), ended)
                    except (ValueError, TypeError, KeyError, AttributeError):
                        self.damaged += 1
                        continue
                    if settled is not None:
                        yield settled

    def _take(self, line: Mapping[str, Any], ended: set[str]) -> Settled | None:
        event = line["event"]
        if event == COST_RECORD:
            return self._take_record(line, ended)
        if event == ADMITTED:
            request = admitted_from(line)
            if request.request_id not in ended and request.request_id not in self.expired:
                self.unfinished[request.request_id] = request
        elif event == PROGRESS:
            for request_id, nanos in marks_from(line).items():
                if request_id in self.unfinished:
                    self.marks[request_id] = max(nanos, self.marks.get(request_id, 0))
        elif event == SUPERSEDED:
            for request_id in superseded_from(line):
                if self.expired.pop(request_id, None) is None:
                    self.superseded.add(request_id)
        return None

    def _take_record(self, line: Mapping[str, Any], ended: set[str]) -> Settled | None:
        check_record(line)
        settled = settled_from(line)
        request_id = settled.request_id
        if request_id in ended:
            return None
        if line.get("open", False):
            self.answered[request_id] = line
            return None
        for known in (self.unfinished, self.marks, self.answered, self.expired):
            known.pop(request_id, None)
        settlement = settlement_of(line)
        if settlement is Settlement.EXPIRED:
            self.expired[request_id] = settled
            return None
        if settlement is Settlement.RECOVERED:
            self.recovered[request_id] = settled
        ended.add(request_id)
        return settled
