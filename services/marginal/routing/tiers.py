"""What the router remembers of a tier between requests: its name, whether it was just down, what may bypass it."""

from collections.abc import Iterator
from contextlib import contextmanager

from marginal.errors import TierUnavailable
from marginal.routing.ports import LanguageModel
from marginal.tokens import Tier


class TierState:
    """One tier's model and its recent health; times are seconds of the router's clock."""

    def __init__(self, tier: Tier, model: LanguageModel) -> None:
        self.tier = tier
        self.model = model
        self.model_name = tier.value
        self._failed_at: float | None = None

    def failed(self, now: float) -> None:
        """Remembers a failure before the first token."""
        self._failed_at = now

    def answered(self) -> None:
        """Remembers that the tier answers again."""
        self._failed_at = None

    def presumed_down(self, now: float, *, retry_seconds: float) -> bool:
        """Whether it failed less than `retry_seconds` ago and has not answered since."""
        return self._failed_at is not None and now - self._failed_at < retry_seconds


class Bypass:
    """Bounds what goes straight to the large tier while the small one is down: a bucket and a concurrency cap.

    A large tier sized for a share of the traffic must not get all of it (research 7.5; SRE book, chapter 22).
    """

    def __init__(self, *, concurrency: int, per_second: float) -> None:
        self._free = concurrency
        self._per_second = per_second
        self._tokens = self._burst = max(1.0, per_second)
        self._filled_at: float | None = None

    @contextmanager
    def admitted(self, now: float) -> Iterator[None]:
        """Holds one place. Raises TierUnavailable when there is none."""
        if self._filled_at is not None:
            self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._per_second)
        self._filled_at = now
        if self._free < 1 or self._tokens < 1.0:
            raise TierUnavailable("the small tier is down and the bypass to the large tier is full, retry shortly")
        self._free -= 1
        self._tokens -= 1.0
        try:
            yield
        finally:
            self._free += 1
