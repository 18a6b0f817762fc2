"""What deleted files of a journal said was spent: sums per tenant and window, in a file beside those that are kept.

The file is replaced as a whole before any file is deleted, and says which are summed up: a crash between the two leaves
files that are passed over. Hours, days and months that are over for longer than a store remembers are summed up in one.
"""

import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from marginal.errors import ConfigurationError
from marginal.ledger.ports import REMEMBERED_SECONDS, Settled
from marginal.routing.holds import Window

SUMS_FILE = "sums.json"
BESIDE_FILE = f".{SUMS_FILE}"
LEAST_ROOM_BYTES = 4_096
NONE: Mapping[str, Settled] = {}


@dataclass(frozen=True, slots=True)
class Sums:
    """What the files up to number `upto` said: nano-units by tenant and by moment, in seconds since the Unix epoch.

    `named` are records under the ids of their requests: what was reckoned of another router's request until its truth
    comes, and of a request of this one, which another may have reckoned too. `name` tells these sums from those of
    other journals.
    """

    upto: int = 0
    name: str = field(default_factory=lambda: secrets.token_hex(8))
    spent: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    named: tuple[Settled, ...] = ()

    def plus(
        self,
        upto: int,
        final: Iterable[Settled],
        now: float,
        *,
        named: Mapping[str, Settled] = NONE,
        superseded: AbstractSet[str] = frozenset(),
    ) -> "Sums":
        """These and the `final` records of further files, up to number `upto`, and those that stay `named`.

        Of the named ones before, those `superseded` are left out. Both are looked at after `final`.
        """
        spent: dict[str, dict[int, int]] = {}

        def add(tenant: str, admitted_at: float, nanos: int) -> None:
            if (at := _moment(admitted_at, now)) is not None:
                of_tenant = spent.setdefault(tenant, {})
                of_tenant[at] = of_tenant.get(at, 0) + nanos

        for tenant, of_tenant in self.spent.items():
            for at, nanos in of_tenant.items():
                add(tenant, at, nanos)
        sure = {one.request_id: one for one in self.named if one.final}
        reckoned = {one.request_id: one for one in self.named if not one.final}
        for one in final:
            reckoned.pop(one.request_id, None)
            if one.request_id not in sure:
                add(one.tenant, one.admitted_at, one.nanos)
        left = {request_id: one for request_id, one in reckoned.items() if request_id not in superseded}
        left |= dict(named) | sure
        return Sums(
            upto, self.name, spent, tuple(one for one in left.values() if _moment(one.admitted_at, now) is not None)
        )

    def settled(self, superseded: AbstractSet[str] = frozenset()) -> Iterator[Settled]:
        """The same as a store is told of it: each sum under an id of its own, as long as none is added to.

        `superseded` are left out, and looked at after the sums.
        """
        for tenant, spent in self.spent.items():
            for at, nanos in spent.items():
                name = sha256(f"{self.name} {at} {tenant}".encode()).hexdigest()[:32]
                yield Settled(name, tenant, nanos, float(at), answered=False)
        yield from (one for one in self.named if one.final or one.request_id not in superseded)


_SUMS = TypeAdapter(Sums)


def read_sums(directory: Path) -> Sums:
    """A journal's sums, none when nothing was deleted. Raises ConfigurationError for a broken file, OSError."""
    path = directory / SUMS_FILE
    try:
        return _SUMS.validate_json(path.read_bytes())
    except FileNotFoundError:
        return Sums()
    except ValidationError:
        raise ConfigurationError(
            f"journal: {path}: cannot be understood: delete it, and budgets begin without what deleted files said"
        ) from None


def take_room(directory: Path) -> None:
    """Takes as much of the disk as the next sums may need: files can then be deleted when the disk is full.

    Raises OSError where there is none, or no such thing.
    """
    found = directory / SUMS_FILE
    needed = 2 * (found.stat().st_size if found.exists() else 0) + LEAST_ROOM_BYTES
    with (directory / BESIDE_FILE).open("ab") as file:
        os.posix_fallocate(file.fileno(), 0, needed)


def written_beside(directory: Path, sums: Sums) -> Path:
    """Sums on the disk for good, that are not in force yet, in the room that was taken for them. Raises OSError."""
    path, text = directory / BESIDE_FILE, _SUMS.dump_json(sums)
    path.touch()
    with path.open("r+b") as file:
        file.write(text)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
    return path


def put_in_force(beside: Path) -> None:
    """Replaces the sums of a journal by what was written beside them. Raises OSError."""
    beside.replace(beside.with_name(SUMS_FILE))


def is_over(at: float, now: float) -> bool:
    """Whether no store may be asked for a window any more that a moment, or one before it, is in."""
    return _moment(at, now) is None


def _moment(at: float, now: float) -> int | None:
    """The begin of the shortest window a moment is in that a store may still be asked for; None when all are over."""
    for begins, ends in _windows(int(at // 3_600)):
        if ends + REMEMBERED_SECONDS > now:
            return begins
    return None


@lru_cache(maxsize=1024)
def _windows(hour: int) -> tuple[tuple[int, float], ...]:
    """When the windows that an hour since the epoch is in begin and end, the shortest first."""
    at = hour * 3_600.0
    return tuple((round(window.begins(at)), window.ends(at)) for window in Window)
