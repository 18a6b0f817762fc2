"""How long a journal is kept: its oldest files are summed up and deleted when it is too old or too large.

Never deleted is what a start or an emptied store still needs line by line: the file that is written, requests under
way, and records that a shared store was not told of, or so lately that a failover may have lost them. All else that
budgets need of a deleted file is in the journal's sums, exact to the nano-unit.
"""

import asyncio
import math
from collections import ChainMap
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from marginal.ledger.journal_files import (
    SKEW_SECONDS,
    bytes_of,
    journal_files,
    journal_groups,
    journal_number,
    sync_directory,
)
from marginal.ledger.ports import DAY_SECONDS, Log, Settled
from marginal.ledger.scan import Scan
from marginal.ledger.sums import (
    BESIDE_FILE,
    SUMS_FILE,
    Sums,
    is_over,
    put_in_force,
    read_sums,
    take_room,
    written_beside,
)

DELETED = "journal files deleted"
KEPT = "journal over its limit"
DUE = "journal files are going to be deleted"


@dataclass(frozen=True, slots=True)
class KeepRules:
    """A file is deleted `days` after it was last written, 0 is never; `size_bytes` is the most that all may have, 0 is
    any size.

    `file_bytes` is when a file is full: so much room is left for what comes in `look_seconds`, until the next look.
    """

    days: float
    size_bytes: int = 0
    file_bytes: int = 0
    look_seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class _Summed:
    """Files that may be deleted once `sums` are in force; `newest` is when they were last written, or the last of their
    requests was admitted by the clock of the store.
    """

    group: Sequence[Path]
    sums: Sums
    newest: float


class Retention:
    """Deletes files of one journal; only one of it at a time, in the event loop of those who need the journal."""

    def __init__(
        self,
        directory: Path,
        rules: KeepRules,
        *,
        needed_from: Callable[[], int],
        told_until: Callable[[], float],
        log: Log,
        clock: Callable[[], float],
        sized: Callable[[int], None] = lambda _: None,
    ) -> None:
        """`needed_from` gives the first file that has, or may get, a line of a request under way; `told_until` up to
        when the store has, for good, every record that was written, in seconds since the Unix epoch, as `clock` gives.
        `sized` is told how many bytes the journal has.
        """
        self._directory = directory
        self._needed_from = needed_from
        self._told_until = told_until
        self._rules = rules
        self._log = log
        self._clock = clock
        self._sized = sized
        self._sums: Sums | None = None
        self._summed: _Summed | None = None
        self._said = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Sees to it every now and then, and begins with what files are going to be deleted."""
        await self._say_what_is_due()
        keeping = asyncio.create_task(self._keep_on())
        try:
            yield
        finally:
            keeping.cancel()
            with suppress(asyncio.CancelledError):
                await keeping

    async def keep(self) -> None:
        """Deletes as many files as must be and may be. Raises OSError, ConfigurationError."""
        deleted: list[tuple[float, int, int]] = []
        try:
            while (step := await self._delete_oldest()) is not None:
                deleted.append(step)
        finally:
            if deleted:
                until = max(newest for newest, _, _ in deleted)
                self._log.info(
                    DELETED,
                    files=sum(files for _, files, _ in deleted),
                    bytes=sum(size for _, _, size in deleted),
                    until=datetime.fromtimestamp(until, UTC).isoformat(timespec="seconds"),
                )

    async def _say_what_is_due(self) -> None:
        with suppress(OSError):
            files, sizes = await asyncio.to_thread(self._due)
            if files:
                rules = self._rules
                self._log.warning(DUE, files=files, bytes=sizes, days=rules.days, most_bytes=rules.size_bytes)

    async def _keep_on(self) -> None:
        while True:
            await asyncio.sleep(self._rules.look_seconds)
            try:
                await self.keep()
            except Exception as error:  # whatever it is, it is said, and the next look comes
                self._say(f"it cannot be shortened: {str(error) or type(error).__name__}")

    async def _delete_oldest(self) -> tuple[float, int, int] | None:
        """Deletes the oldest files that go together; tells how new they were, how many, and of how many bytes."""
        directory = self._directory
        if self._sums is None:
            self._sums = await asyncio.to_thread(read_sums, directory)
            await asyncio.to_thread(_delete, directory, self._sums.upto)  # what a crash has left
            await asyncio.to_thread(_take_room, directory)
        group, size = await asyncio.to_thread(self._too_much)
        self._sized(size)
        if not group:
            self._said = ""
            return None
        if journal_number(group[-1]) >= self._needed_from():
            self._say("its oldest file has lines of requests under way")
            return None
        if self._summed is None or self._summed.group != group:
            self._summed = await asyncio.to_thread(_summed_up, self._sums, group, self._clock())
        summed = self._summed
        if summed.newest >= self._told_until():
            self._say("its oldest file has records that the store of budgets may not know")
            return None
        beside = await asyncio.to_thread(written_beside, directory, summed.sums)
        if summed.newest >= self._told_until():  # a store that came back empty is being told of them by now
            return None
        put_in_force(beside)
        self._sums, self._summed = summed.sums, None
        return summed.newest, len(group), await asyncio.to_thread(_delete, directory, summed.sums.upto)

    def _due(self) -> tuple[int, int]:
        """How many files must go, and their bytes, as if each could go alone and sums needed no room."""
        files = journal_files(self._directory)
        left, gone = self._size(files), 0
        for count, path in enumerate(files):
            found = path.stat()
            if path == files[-1] or not (found.st_mtime < self._last_old or self._is_too_large(left, files[-1])):
                return count, gone
            left, gone = left - found.st_size, gone + found.st_size
        return 0, 0

    def _size(self, files: Sequence[Path]) -> int:
        return bytes_of([*files, self._directory / SUMS_FILE, self._directory / BESIDE_FILE])

    @property
    def _last_old(self) -> float:
        """Files that were last written before then are too old, in seconds since the Unix epoch."""
        return self._clock() - self._rules.days * DAY_SECONDS if self._rules.days else -math.inf

    def _is_too_large(self, size: int, last: Path) -> bool:
        room = 2 * self._rules.file_bytes - last.stat().st_size
        return 0 < self._rules.size_bytes < size + room

    def _too_much(self) -> tuple[Sequence[Path], int]:
        """The oldest files that go together if they must go, and the bytes of the whole journal."""
        files = journal_files(self._directory)
        size = self._size(files)
        if len(files) < 2:
            return (), size
        too_large, last_old = self._is_too_large(size, files[-1]), self._last_old
        if not too_large and files[0].stat().st_mtime >= last_old:
            return (), size
        group = journal_groups(files)[0]
        if files[-1] in group or not (too_large or group[-1].stat().st_mtime < last_old):
            return (), size
        return group, size

    def _say(self, because: str) -> None:
        if because != self._said:
            self._said = because
            self._log.warning(KEPT, because=because)


def _summed_up(sums: Sums, group: Sequence[Path], now: float) -> _Summed:
    scan, newest = Scan(), group[-1].stat().st_mtime
    if is_over(newest + SKEW_SECONDS, now):  # none of their lines counts in any window now
        return _Summed(group, sums.plus(journal_number(group[-1]), (), now), newest + SKEW_SECONDS)

    def seen() -> Iterator[Settled]:
        nonlocal newest
        for one in scan.finished(group):
            newest = max(newest, one.admitted_at)
            if one.request_id not in scan.recovered:
                yield one

    named = ChainMap(scan.recovered, scan.expired)
    more = sums.plus(journal_number(group[-1]), seen(), now, named=named, superseded=scan.superseded)
    return _Summed(group, more, newest)


def _take_room(directory: Path) -> None:
    with suppress(OSError):  # without it the next sums may find none
        take_room(directory)


def _delete(directory: Path, upto: int) -> int:
    """Deletes the files up to a number, whose sums are in force; gives their bytes."""
    files, size = [path for path in journal_files(directory) if journal_number(path) <= upto], 0
    if files:
        sync_directory(directory)
    for path in files:
        size += path.stat().st_size
        path.unlink()
        _take_room(directory)  # before lines that wait for the disk do
    return size
