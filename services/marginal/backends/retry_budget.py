"""How many calls may be repeated, so that retries never multiply the load of engines that are failing already."""

from collections import deque


class RetryBudget:
    """Allows retries up to a share of the requests of the latest seconds, and a few whatever the traffic.

    Within any `window_seconds` they are at most `share` of the requests, or `per_second` of the window if that is more.
    Times are seconds of one clock that never goes back.
    """

    def __init__(self, *, share: float = 0.2, per_second: float = 1.0, window_seconds: float = 10.0) -> None:
        self._share = share
        self._floor = per_second * window_seconds
        self._window = window_seconds
        self._requests: deque[float] = deque()
        self._retries: deque[float] = deque()

    def requested(self, now: float) -> None:
        """Counts one request, which is not a retry."""
        self._forget(now)
        self._requests.append(now)

    def take(self, now: float) -> bool:
        """Takes one retry; False when there is none left."""
        self._forget(now)
        if len(self._retries) + 1 > max(self._floor, self._share * len(self._requests)):
            return False
        self._retries.append(now)
        return True

    def _forget(self, now: float) -> None:
        for times in (self._requests, self._retries):
            while times and times[0] <= now - self._window:
                times.popleft()
