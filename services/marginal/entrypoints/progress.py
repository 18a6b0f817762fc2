"""How far long work is: a bar on a terminal, elsewhere a line every few seconds."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINE_SECONDS = 4.0

Tell = Callable[[str], None]
"""Counts one more step, for the sake of what it takes in a few words."""


@contextmanager
def counted(console: Console, *, total: int, verb: str = "asked") -> Iterator[Tell]:
    """Shows on `console` how many steps of `total` are done, counting what it is told."""
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
            console.print(f"{verb} {done} of {total}, now {what}", highlight=False, soft_wrap=True)

    yield tell
