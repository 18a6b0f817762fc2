"""What the accounts need of a store of holds and of a journal; `memory` and `valkey` are stores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from marginal.routing.holds import Ask, Grant, HoldState, Window

DAY_SECONDS = 86_400
REMEMBERED_SECONDS = 48 * 3600
"""How long a closed hold, its idempotency key and a period that is over are remembered.

A router that was away for a weekend's night and day tells again what it may have told already, and callers try again
within a day; both must be met by what is remembered. An id that comes later than that counts once more.
"""


@dataclass(frozen=True, slots=True)
class Settled:
    """What a request came to: it counts in the windows it was admitted in, whether its hold is known or not.

    `answered` says that its caller got an answer, so that its idempotency key is spent. `final` is False for one whose
    shadow attempt is still under way: a later one with the same id replaces it.
    """

    request_id: str
    tenant: str
    nanos: int
    admitted_at: float
    answered: bool = True
    final: bool = True
    key: str = ""


@dataclass(frozen=True, slots=True)
class Expired:
    """A hold whose router was not heard of for a lease: charged at `charged_nanos` until the truth comes."""

    request_id: str
    tenant: str
    charged_nanos: int
    admitted_at: float


@dataclass(frozen=True, slots=True)
class Balance:
    """A tenant's money in one window: spent, and held for requests under way."""

    tenant: str
    window: Window
    period: str
    committed_nanos: int
    held_nanos: int


class Store(Protocol):
    """Holds and windows. Every call is idempotent by request id and atomic; the clock is the store's own.

    Raises StoreAway when the store cannot be asked: what was asked may have been done all the same. Windows, their
    periods and what a hold does are told in `routing/holds.py`.
    """

    async def reserve(self, ask: Ask, *, lease_seconds: float) -> Grant:
        """Holds `ask.full_nanos` in every window of now; `ask.small_nanos` where that alone fits; else BudgetExceeded.

        The same id again gives the same grant and holds nothing more; AlreadyAnswered once its hold is closed.
        Raises InProgress, AlreadyAnswered or KeyReused by `ask.key`: that of a request that failed or expired is free.
        """
        ...

    async def progress(self, marks: Mapping[str, int], *, lease_seconds: float) -> None:
        """Renews the leases of open holds, passing others by; a mark, in nano-units, never goes down, and 0 is none."""
        ...

    async def settle(self, settled: Sequence[Settled]) -> None:
        """Turns holds into what was spent: a HELD one gives back the rest, an EXPIRED one is corrected, a SETTLED one
        stays as it is, and one that is not known is committed, as after an emptied store.
        """
        ...

    async def expire(self, request_ids: Sequence[str] = ()) -> Sequence[Expired]:
        """Expires holds whose lease is over, and the named ones whatever their lease: charged at their mark, or whole
        when there is none. Gives every expired hold that nobody has acknowledged, those of earlier calls included; a
        shared store gives up on one after 40 days.
        """
        ...

    async def acknowledge(self, request_ids: Sequence[str]) -> None:
        """Remembers that the records of these expired holds were written."""
        ...

    async def states(self, request_ids: Sequence[str]) -> Mapping[str, HoldState]:
        """How far each has come; one that is not known is left out."""
        ...

    async def balances(self, tenants: Sequence[str] = ()) -> Sequence[Balance]:
        """The windows of now, of these tenants or of all that have spent in them."""
        ...


class SharedStore(Store, Protocol):
    """A store of several routers, which may come back empty: its epoch is the name of what it remembers.

    `reserve` raises StoreEmptied until `join` named the epoch in force; `settle` does not, so that what was spent can
    be told first: by records, and by a Settled with `final=False` of the whole hold for every request still under way.
    """

    async def epoch(self) -> str:
        """The epoch in force, "" in a store that remembers nothing."""
        ...

    async def found(self, epoch: str) -> str:
        """Begins an epoch unless one is in force; gives the one in force then."""
        ...

    def join(self, epoch: str) -> None:
        """Reserves under this epoch from now on."""
        ...

    async def save_learned(self, name: str, text: str) -> None:
        """Keeps what a router has learned, for the others; the newest replaces the one before."""
        ...

    async def learned(self, name: str) -> str | None:
        """What was kept last under the name, None when nothing was."""
        ...


class Log(Protocol):
    """Where a store that goes away and comes back is told, and what becomes of a journal: a line each."""

    def info(self, event: str, **fields: Any) -> Any: ...

    def warning(self, event: str, **fields: Any) -> Any: ...


class StoreAway(Exception):
    """The store of budgets cannot be asked now; the text says what was tried, never a password."""


class StoreEmptied(StoreAway):
    """The store answers, but not from the epoch that was joined: it must be told what was spent first."""
