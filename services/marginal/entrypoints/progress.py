"""How many questions are asked: a bar on a terminal, elsewhere a line every few seconds."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINE_SECONDS = 4.0

Tell = Callable[[str], None]
"""Counts one more question, asked for the sake of what it takes in a word."""


@contextmanager
def counted(console: Console, *, total: int) -> Iterator[Tell]:
    """Shows on `console` how many questions of `total` are done, counting what it is told."""
    if console.is_terminal:
        with Progress(
            TextColumn("{task.description:<16}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            console=console, transient=True,
        ) as bars:  # fmt: skip
            bar = bars.add_task("", total=total)
            yield lambda what: bars.update(bar, advance=1, description=what)
        return
    done, last = 0, time.monotonic()

    def tell(what: str) -> None:
        nonlocal done, last
        done += 1
        if time.monotonic() - last >= LINE_SECONDS:
            last = time.monotonic()
            console.print(f"asked {done} of {total}, now {what}", highlight=False, soft_wrap=True)

    yield tell
