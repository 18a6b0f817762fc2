"""A mean that follows what it sees, in constant memory."""

LATEST = 500


class RunningMean:
    """The plain mean at first, `prior` counting as one value when there is one; then over about the latest 500."""

    def __init__(self, prior: float | None = None, *, seen: int = 0) -> None:
        self.value = prior or 0.0
        self.seen = min(seen, LATEST)
        self._prior = 0 if prior is None else 1

    def add(self, value: float) -> None:
        """Takes the next value."""
        self.seen = min(self.seen + 1, LATEST)
        self.value += (value - self.value) / (self.seen + self._prior)
