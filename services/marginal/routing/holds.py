"""What a request may spend: held at its worst case before anything is generated, settled at what it came to.

A hold goes HELD → SETTLED, or HELD → EXPIRED → SETTLED when its router died and the truth came late.
SETTLED is the end. Money is in integer nano-units of one currency; times are seconds since the Unix epoch, by the
clock of the ledger.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum

from marginal.routing.records import DegradedReason

MOST_NANOS = 9_000_000_000_000_000
"""The most a budget or a hold may be: sums of it are exact in a double, which is what Valkey scripts count in."""


class Window(Enum):
    """A budget's span of time, in UTC; money counts in the windows in which its request was admitted."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"

    def period(self, at: float) -> str:
        """The window that a moment is in, as "2026-11-24T21", "2026-11-24" or "2026-11"."""
        return datetime.fromtimestamp(at, UTC).strftime(_PERIODS[self])

    def begins(self, at: float) -> float:
        """When the window that a moment is in began."""
        return self._begun(at).timestamp()

    def ends(self, at: float) -> float:
        """When the window that a moment is in ends."""
        begun = self._begun(at)
        if self is Window.MONTH:
            first_of_next = (begun.year + begun.month // 12, begun.month % 12 + 1)
            return begun.replace(year=first_of_next[0], month=first_of_next[1]).timestamp()
        return begun.timestamp() + (3600.0 if self is Window.HOUR else 86_400.0)

    def _begun(self, at: float) -> datetime:
        return datetime.strptime(self.period(at), _PERIODS[self]).replace(tzinfo=UTC)


_PERIODS = {Window.HOUR: "%Y-%m-%dT%H", Window.DAY: "%Y-%m-%d", Window.MONTH: "%Y-%m"}


@dataclass(frozen=True, slots=True)
class Budget:
    """The most a tenant may spend per window, in nano-units; a window that is not named has no limit."""

    limits: Mapping[Window, int] = field(default_factory=dict)


NO_BUDGET = Budget()


class Scope(Enum):
    """What a grant pays for: both tiers, or the small one only."""

    FULL = "full"
    SMALL = "small"


@dataclass(frozen=True, slots=True)
class Ask:
    """What a request needs: at worst `small_nanos` for the small tier alone, `full_nanos` with the large one.

    `key` names the caller's idempotency key without telling it (a hash; "" is none), `fingerprint` what was asked
    under it, `policy` how it is to be answered.
    """

    request_id: str
    tenant: str
    small_nanos: int
    full_nanos: int
    budget: Budget = NO_BUDGET
    key: str = ""
    fingerprint: str = ""
    policy: str = ""


@dataclass(frozen=True, slots=True)
class Grant:
    """What was held for a request; under Scope.SMALL `blocked` says why the large tier may not be asked.

    `lacking` is the window whose budget does not cover it, where that is why.
    """

    held_nanos: int
    scope: Scope
    admitted_at: float
    blocked: DegradedReason | None = None
    lacking: Window | None = field(default=None, compare=False)


class HoldState(Enum):
    """How far a hold has come; an UNSURE one was settled, and may be once more."""

    HELD = "held"
    EXPIRED = "expired"
    UNSURE = "unsure"
    SETTLED = "settled"
