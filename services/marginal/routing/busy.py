"""Busy time: how the time of a tier that is paid by the hour is divided among the attempts it worked on at once."""


class BusyTime:
    """The time of one tier, each moment of it divided evenly among the attempts under way in this router.

    A virtual clock goes on by dt / n while n attempts are under way; an attempt's share is what passed on it from its
    beginning to its end. So the shares add up to the time in which at least one was under way, and a tier that nobody
    asks costs nobody anything. Two routers of one tier know nothing of each other's attempts: each pays for the time in
    which its own were under way.

    Moments are seconds of one clock that does not go back.
    """

    def __init__(self) -> None:
        self._under_way = 0
        self._virtual = 0.0
        self._now = 0.0
        self._ended = self._shares = 0

    @property
    def usual_micros(self) -> int:
        """The mean share of all attempts that have ended, in whole microseconds; 0 before the first."""
        return self._shares // max(1, self._ended)

    def begin(self, now: float) -> float:
        """Begins an attempt; what it gives tells `share` and `end` when that was."""
        self._advance(now)
        self._under_way += 1
        return self._virtual

    def share(self, began: float, now: float) -> int:
        """The share of an attempt under way so far, in whole microseconds."""
        self._advance(now)
        return round((self._virtual - began) * 1e6)

    def end(self, began: float, now: float) -> int:
        """Ends an attempt and gives its share, in whole microseconds."""
        share = self.share(began, now)
        self._under_way -= 1
        self._ended += 1
        self._shares += share
        if not self._under_way:
            self._virtual = 0.0  # nobody's beginning is on it, and a small number keeps its digits
        return share

    def _advance(self, now: float) -> None:
        if self._under_way:
            self._virtual += max(0.0, now - self._now) / self._under_way
        self._now = now
