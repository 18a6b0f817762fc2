"""Where the figures of `marginal costs` are from: a router's journal on this machine, or a running router."""

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from marginal.entrypoints.progress import counted
from marginal.entrypoints.services import JOURNAL
from marginal.errors import ConfigurationError, ModelFault
from marginal.ledger.journal_costs import Watch, files_since, journal_costs, journal_record
from marginal.ledger.journal_files import bytes_of
from marginal.routing.spending import CostQuery, CostSummary

SECONDS = {"m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
STEP_BYTES = 1_000_000

Answer = TypeVar("Answer")


def moment(text: str, now: float, *, option: str) -> float | None:
    """What --since and --until name, in seconds since the Unix epoch: a date of UTC, or a span before `now`.

    Raises ConfigurationError naming the option.
    """
    if not text:
        return None
    if (span := re.fullmatch(r"(\d{1,5})([mhdw])", text)) is not None:
        return now - int(span[1]) * SECONDS[span[2]]
    try:
        named = datetime.fromisoformat(f"{text}-01" if re.fullmatch(r"\d{4}-\d{2}", text) else text)
    except ValueError:
        raise ConfigurationError(
            f"{option} {text}: must be a date as 2026-11-01, a month as 2026-11 or a time as 2026-11-01T08:30, of UTC,"
            " or how long ago as 24h or 7d"
        ) from None
    return (named if named.tzinfo else named.replace(tzinfo=UTC)).timestamp()


def journals(given: Sequence[Path] | None, state_dir: Path) -> Sequence[Path]:
    """The journal directories to read. Raises ConfigurationError when one is not there."""
    directories = given or [state_dir / JOURNAL]
    for directory in directories:
        if not directory.is_dir():
            raise ConfigurationError(
                f"no journal in {directory}: name the directory that a router was given with --journal, the one of"
                " `marginal up` with --state-dir, or ask a running router with --router"
            )
    return directories


def read_costs(directories: Sequence[Path], query: CostQuery, *, progress: Console) -> CostSummary:
    """Sums journals up, showing how far it is. Raises ConfigurationError when they cannot be read."""
    with _reading(directories, query.since, progress) as (files, watch):
        return journal_costs(files, query, watch=watch)


def read_record(directories: Sequence[Path], request_id: str, *, progress: Console) -> Mapping[str, Any] | None:
    """The record line of one request. Raises ConfigurationError when they cannot be read."""
    with _reading(directories, None, progress) as (files, watch):
        return journal_record(files, request_id, watch=watch)


def from_router(address: str, asking: Coroutine[Any, Any, Answer]) -> Answer:
    """What a router answers to its operator. Raises ConfigurationError when nobody answers there, MarginalError."""
    try:
        return asyncio.run(asking)
    except ModelFault:
        raise ConfigurationError(
            f"no router answers operators at {address}: start one with `marginal up`, or name another with --router"
        ) from None


@contextmanager
def _reading(
    directories: Sequence[Path], since: float | None, progress: Console
) -> Iterator[tuple[Sequence[Path], Watch]]:
    try:
        files = files_since(directories, since)
        total = bytes_of(files)
        with counted(progress, total=-(-total // STEP_BYTES), verb="read") as tell:
            yield files, _megabytes(tell)
    except OSError as error:
        raise ConfigurationError(f"the journal cannot be read: {(error.strerror or '').lower()}") from None


def _megabytes(tell: Callable[[str], None]) -> Watch:
    rest = 0

    def watch(more: int) -> None:
        nonlocal rest
        rest += more
        while rest >= STEP_BYTES:
            rest -= STEP_BYTES
            tell("megabytes")

    return watch
