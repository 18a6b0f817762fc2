"""The durable journal of one router: JSON lines in a directory, which survive the process at once and the machine soon.

A line is in the page cache when `append` returns, so that killing the process loses nothing; `durable` waits for the
disk. While the disk takes nothing, lines are kept in memory, in order, and written when there is room again.
"""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marginal.errors import ConfigurationError
from marginal.ledger.journal_files import cut_torn_end, journal_file, journal_files, journal_number, locked
from marginal.ledger.journal_lines import again_line, encoded
from marginal.ledger.sums import read_sums

Tell = Callable[[str], None]
"""Takes a sentence for the operator."""


@dataclass(frozen=True, slots=True)
class JournalRules:
    """When a file is full, in bytes; how many lines may wait in memory for the disk; how often, in seconds, it is tried
    again. A journal that is gone with its process needs no `sync`, and of its files only the newest `most_files`.
    """

    file_bytes: int = 64_000_000
    most_waiting: int = 10_000
    retry_seconds: float = 1.0
    sync: bool = True
    most_files: int | None = None


PASSING_RULES = JournalRules(sync=False, most_files=2)
"""For a journal that nobody keeps: it bounds the disk, and nobody waits for it."""

DEFAULT_RULES = JournalRules()


class Journal:
    """Append-only lines in a directory that no other process writes to; one event loop uses it.

    `writable` is False from the first failed write until everything that waits is written; `full` is True while as many
    lines wait as may. Even then none is dropped: those of requests under way come in on top.
    """

    def __init__(self, directory: Path, *, tell: Tell, rules: JournalRules = DEFAULT_RULES) -> None:
        """Locks the directory and cuts off a torn end. Raises ConfigurationError naming the setting."""
        self.directory = directory
        self.writable = True
        self._tell = tell
        self._rules = rules
        self._waiting: deque[bytes] = deque()
        self._unsynced: deque[bytes] = deque()
        self._taken = self._synced = 0
        self._again = self._since = 0
        self._commit: asyncio.Task[None] | None = None
        self._retired: list[int] = []
        self._file = -1
        self._is_listed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._directory = -1
        try:
            self._directory = locked(directory)
            self._number, self._size = self._found()
        except OSError as error:
            self.close()
            raise ConfigurationError(f"journal: {directory}: {error.strerror}: give a directory to write to") from None
        except ConfigurationError:
            self.close()
            raise
        self._write_waiting()

    @property
    def full(self) -> bool:
        """Whether no more may be begun that would have to be written down."""
        return len(self._waiting) >= self._rules.most_waiting

    @property
    def waiting(self) -> int:
        """How many lines are in memory only."""
        return len(self._waiting)

    @property
    def number(self) -> int:
        """The file that is written now; a line that is taken now is in it or in a later one."""
        return self._number

    @property
    def taken(self) -> int:
        """How many lines were taken so far."""
        return self._taken

    @property
    def synced(self) -> int:
        """How many of them, the oldest, are on the disk for good."""
        return self._synced

    @property
    def synced_before(self) -> int:
        """Files with a lower number are on the disk for good, and none of their lines is written again."""
        return min(self._since or self._number, self._number - len(self._retired))

    def append(self, line: Mapping[str, Any]) -> None:
        """Takes a line; it survives this process when this returns, unless the journal is not writable."""
        self._waiting.append(encoded(line))
        self._taken += 1
        if self.writable:
            self._write_waiting()

    async def durable(self) -> None:
        """Waits until all lines taken so far are on the disk, together with everybody else who waits.

        Returns at once while the journal is not writable: nobody is made to wait for a disk that is full.
        """
        upto = self._taken
        while self._synced < upto and self.writable:
            if self._commit is None:
                self._commit = asyncio.create_task(self._sync())
            await asyncio.shield(self._commit)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Tries again in the background while the disk takes nothing; at the end all is durable, and it is closed."""
        retrying = asyncio.create_task(self._retry())
        try:
            yield
        finally:
            retrying.cancel()
            with suppress(asyncio.CancelledError):
                await retrying
            self._write_waiting()
            await self.durable()
            self.close()

    def close(self) -> None:
        """Lets go of the directory; what is still waiting is told to be lost."""
        if self._waiting:
            self._tell(f"the journal ends with {len(self._waiting)} lines that could not be written")
        self._thread.shutdown()
        for descriptor in (*self._retired, self._file, self._directory):
            if descriptor >= 0:
                os.close(descriptor)
        self._retired, self._file, self._directory = [], -1, -1

    def _found(self) -> tuple[int, int]:
        """The number and the size of the file to go on with."""
        files, upto = journal_files(self.directory), read_sums(self.directory).upto
        if not files or journal_number(files[-1]) <= upto:
            return upto + 1, 0
        cut = cut_torn_end(files[-1])
        if cut:
            self._tell(f"the journal's end was torn: {cut} bytes of an unfinished line were cut off {files[-1].name}")
        return journal_number(files[-1]), files[-1].stat().st_size

    def _write_waiting(self) -> None:
        try:
            if self._file < 0:
                self._open()
            while self._waiting:
                self._write(self._waiting[0])
                self._unsynced.append(self._waiting.popleft())
                self._again = max(0, self._again - 1)
        except OSError as error:
            self._failed(error)
        else:
            if not self.writable:
                self.writable = True
                self._tell("the journal can be written again, and nothing was lost")

    def _write(self, line: bytes) -> None:
        if self._size and not self._again and self._size + len(line) > self._rules.file_bytes:
            self._next_file()
        try:
            # a disk that fills up takes part of a line and says so only when asked to take the rest
            written = os.write(self._file, line)
            while written < len(line):
                written += os.write(self._file, line[written:])
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise
        self._size += len(line)

    def _next_file(self) -> None:
        """Goes on in a new file, which the next commit makes durable along with the rest of the old one."""
        if self._file >= 0:
            self._retired.append(self._file)
            self._file = -1
        self._number, self._size = self._number + 1, 0
        self._open()
        if self._rules.most_files is not None:
            journal_file(self.directory, self._number - self._rules.most_files).unlink(missing_ok=True)

    def _open(self) -> None:
        path = journal_file(self.directory, self._number)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._is_listed = False

    def _failed(self, error: OSError) -> None:
        if self.writable:
            self.writable = False
            self._tell(f"the journal cannot be written: {error.strerror}; its lines are kept in memory until it can")

    async def _retry(self) -> None:
        while True:
            await asyncio.sleep(self._rules.retry_seconds)
            if not self.writable:
                self._write_waiting()
            await self.durable()

    async def _sync(self) -> None:
        upto, lines, retired = self._taken - len(self._waiting), len(self._unsynced), tuple(self._retired)
        file, directory = self._file, -1 if self._is_listed else self._directory
        try:
            if self._rules.sync:
                await asyncio.get_running_loop().run_in_executor(self._thread, _sync_all, (*retired, file), directory)
        except OSError as error:
            self._lost_trust(error)
        else:
            self._synced = upto
            self._is_listed = file == self._file
            self._since = self._since if self._again else 0
            for _ in range(lines):
                self._unsynced.popleft()
            for descriptor in retired:
                self._retired.remove(descriptor)
                os.close(descriptor)
        finally:
            self._commit = None

    def _lost_trust(self, error: OSError) -> None:
        """After a failed sync nobody knows what the disk has: all since the last good one is written again elsewhere.

        Lines that are there twice do no harm: the last one of a request counts. All of them go into one file, which
        says so, and from when.
        """
        self._failed(error)
        self._since = self.synced_before
        self._again += 1 + len(self._unsynced)
        self._waiting.extendleft(reversed(self._unsynced))
        self._waiting.appendleft(encoded(again_line(self._since)))
        self._unsynced.clear()
        for descriptor in (*self._retired, self._file):
            with suppress(OSError):
                os.close(descriptor)
        self._retired, self._file = [], -1
        self._number, self._size = self._number + 1, 0


def _sync_all(files: tuple[int, ...], directory: int) -> None:
    for descriptor in files:
        os.fdatasync(descriptor)
    if directory >= 0:
        os.fsync(directory)
