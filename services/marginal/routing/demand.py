"""How much of a tier is wanted: what it works on, who waits for it, and who is likely to come.

For scaling, a number of requests: a tier at zero has no figures of its own, but the router sees what is wanted of it.
"""

from collections import deque
from dataclasses import dataclass

from marginal.routing.tiers import TierState

ENOUGH = 1.0
"""The least demand that wakes a tier: one request for certain, or so many likely ones that one is to be expected."""

WINDOW_SECONDS = 5.0
LINGER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Demand:
    """Requests of one tier: under way, waiting for a place or for anybody to be there, and expected to come."""

    under_way: int = 0
    waiting: int = 0
    expected: float = 0.0

    @property
    def total(self) -> float:
        """All of them."""
        return self.under_way + self.waiting + self.expected


def demand(state: TierState) -> Demand:
    """What is wanted of a tier now."""
    waiting = state.places.waiting + state.presence.waiting
    return Demand(state.places.under_way, waiting, state.expected)


class RecentDemand:
    """One tier's demand of the last while, over all routers as far as they are known; times are in seconds.

    Means are over `window_seconds`: what is under way at one moment is noisy, and a scaler that keeps to the most it
    saw would keep to the noise. A tier stays wanted for `linger_seconds` after the last demand, so that what comes and
    goes between two questions is not overlooked.
    """

    def __init__(self, *, window_seconds: float = WINDOW_SECONDS, linger_seconds: float = LINGER_SECONDS) -> None:
        self.latest = 0.0
        self._window_seconds = window_seconds
        self._linger_seconds = linger_seconds
        self._seen: deque[tuple[float, float]] = deque()
        self._wanted_until = 0.0

    def take(self, total: float, now: float) -> None:
        """Takes the demand from `now` on."""
        self.latest = total
        self._seen.append((now, total))
        while len(self._seen) > 1 and self._seen[1][0] <= now - self._window_seconds:
            self._seen.popleft()
        if total >= ENOUGH:
            self.wanted(now)

    def wanted(self, now: float) -> None:
        """Remembers that a request wanted the tier just now, though it may be gone already."""
        self._wanted_until = max(self._wanted_until, now + self._linger_seconds)

    def active(self, now: float) -> bool:
        """Whether the tier should be there."""
        return now < self._wanted_until

    def mean(self, now: float) -> float:
        """The mean demand over the window, each weighed by how long it lasted; 0 when nothing was seen."""
        begin, area, until = now - self._window_seconds, 0.0, now
        for at, total in reversed(self._seen):
            area += total * (until - max(at, begin))
            until = max(at, begin)
        return area / (now - until) if now > until else self.latest
