"""How far a download is: a bar on a terminal, elsewhere a line now and then.

Both are made and used by `hf_hub_download` in place of its own bar, hence their arguments.
"""

import time
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

SECONDS_BETWEEN_LINES = 10.0


class Lines:
    """One line at the start, one at the end, and one now and then between."""

    def __init__(self, out: TextIO, file: str, *, total: int | None = None, initial: int = 0, **_: object) -> None:
        """`total` and `initial` are in bytes."""
        self._out = out
        self._file = file
        self._total = total
        self._done = initial
        self._last = 0.0

    def __enter__(self) -> Self:
        self._say()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._say()

    def update(self, amount: float | None = 1) -> None:
        """Counts bytes that came or, below 0, have to come again."""
        self._done += int(amount or 0)
        if time.monotonic() - self._last >= SECONDS_BETWEEN_LINES:
            self._say()

    def _say(self) -> None:
        self._last = time.monotonic()
        total = f" of {self._total / 1e6:.1f}" if self._total else ""
        self._out.write(f"fetching {self._file}: {self._done / 1e6:.1f}{total} MB\n")
        self._out.flush()


class Bar:
    """A bar with size, speed and time left."""

    def __init__(self, out: TextIO, file: str, *, total: int | None = None, initial: int = 0, **_: object) -> None:
        """`total` and `initial` are in bytes."""
        self._progress = Progress(
            TextColumn("fetching {task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(file=out),
        )
        self._task = self._progress.add_task(file, total=total, completed=initial)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, amount: float | None = 1) -> None:
        """Counts bytes that came or, below 0, have to come again."""
        self._progress.advance(self._task, amount or 0)
