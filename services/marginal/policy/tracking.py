"""A threshold that is corrected in small steps, as a place on its scale."""

from marginal.policy.scales import Scale

LEAST, MOST = 0.001, 0.999
"""A moving threshold stays inside, as a place on its scale: at 0 nothing would ever be deferred, above 1 everything."""

MOST_STEP = 0.2
"""The furthest one request can move a threshold, however much it cost."""


class Tracked:
    """A place in [0.001, 0.999] that is corrected in bounded steps, with an integral term so that ramps are followed.

    The integral's gain, step²/16, keeps the two from swinging while the density of scores at the threshold is above
    1/4; what it remembers is bounded, so that an unreachable target does not wind it up.
    """

    def __init__(self, start: float | None, *, prior: float, step: float, scale: Scale) -> None:
        self._scale = scale
        self._step = step
        self._place = _inside(prior if start is None else scale.place(start))
        self._owed = 0.0

    @property
    def value(self) -> float:
        """The threshold, on the scale."""
        return self._scale.at(self._place)

    def correct(self, error: float) -> None:
        """Takes how far a request was below its target (positive) or above, in deferrals."""
        most = 4.0 / self._step
        self._owed = min(most, max(-most, self._owed + error))
        moved = self._step * error + self._step**2 / 16.0 * self._owed
        self._move(moved)

    def amend(self, error: float) -> None:
        """Takes how far an earlier correction was off."""
        self._owed += error
        self._move(self._step * error)

    def _move(self, by: float) -> None:
        self._place = _inside(self._place + min(MOST_STEP, max(-MOST_STEP, by)))

    def state(self) -> dict[str, float]:
        """Where it is, and what it owes."""
        return {"place": self._place, "owed": self._owed}

    def restore(self, *, place: float, owed: float) -> None:
        """Goes on from there."""
        self._place, self._owed = _inside(place), owed


def _inside(place: float) -> float:
    return min(MOST, max(LEAST, place))
