"""What the router remembers of a tier between requests: its name, whether it was just down, what may bypass it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from marginal.errors import TierUnavailable
from marginal.routing.busy import BusyTime
from marginal.routing.concurrency import AdaptiveLimit, LimitRules
from marginal.routing.policies import BypassRules, DegradeRules
from marginal.routing.ports import LanguageModel
from marginal.routing.presence import Presence
from marginal.routing.waiting import Places, WaitingRules
from marginal.tokens import ModelDescription, Tier

FAILURES_IN_A_ROW = 3
"""One failure is a bad replica or a bad moment; so many in a row are a tier that is down."""


class TierState:
    """One tier's model and its recent health; times are seconds of the router's clock."""

    def __init__(
        self, tier: Tier, model: LanguageModel, places: Places | None = None, presence: Presence | None = None
    ) -> None:
        self.tier = tier
        self.model = model
        self.presence = presence or Presence()
        self.places = places or Places(AdaptiveLimit(LimitRules()), WaitingRules())
        self.busy = BusyTime()
        self.model_name = tier.value
        self.before_sampling: bool | None = None
        """Whether its log-probabilities are the same at any temperature, as far as it is known."""
        self.context_tokens: int | None = None
        """The most it reads and writes for one request, as far as it is known."""
        self._failures = 0
        self._failed_at = 0.0
        self._likely: dict[object, float] = {}

    @property
    def expected(self) -> float:
        """How many of the requests that are undecided now are expected to come here."""
        return sum(self._likely.values())

    @contextmanager
    def expecting(self, likelihood: float) -> Iterator[None]:
        """Counts a request as likely to come here, in [0, 1], while it is undecided."""
        request = object()
        self._likely[request] = likelihood
        try:
            yield
        finally:
            del self._likely[request]

    def is_now(self, description: ModelDescription) -> None:
        """Takes what the tier's model says of itself."""
        self.model_name = description.name
        self.before_sampling = description.evidence.before_sampling
        self.context_tokens = description.context_tokens or None

    def failed(self, now: float) -> None:
        """Remembers that the tier failed a request; one at zero has not."""
        if self.presence.anyone:
            self._failures += 1
            self._failed_at = now

    def answered(self) -> None:
        """Remembers that the tier answers."""
        self._failures = 0

    def looks_down(self, now: float, rules: DegradeRules) -> bool:
        """Whether it failed several times in a row, the last time less than `retry_seconds` ago.

        At zero it does for those who do not wait until it wakes, or find too many before them.
        """
        if not self.presence.anyone:
            return not self.presence.worth_waiting(rules.wake_seconds)
        return self._failures >= FAILURES_IN_A_ROW and now - self._failed_at < rules.retry_seconds

    def admits(self, now: float, rules: DegradeRules) -> bool:
        """Whether it may be asked now; of a tier that was down one request in `retry_seconds` finds out."""
        if self.looks_down(now, rules):
            return False
        if self._failures >= FAILURES_IN_A_ROW:
            self._failed_at = now
        return True


class Bypass:
    """Bounds what goes straight to the large tier while the small one is down: a bucket and a concurrency cap.

    A large tier sized for a share of the traffic must not get all of it (Site Reliability Engineering, chapter 22).
    """

    def __init__(self, rules: Callable[[], BypassRules]) -> None:
        """`rules` gives those in force; they may change."""
        self._rules = rules
        self._running = 0
        self._tokens: float | None = None
        self._filled_at = 0.0

    @contextmanager
    def admitted(self, now: float) -> Iterator[None]:
        """Holds one place. Raises TierUnavailable when there is none."""
        rules = self._rules()
        burst = max(1.0, rules.per_second) if rules.per_second else 0.0
        filled = burst if self._tokens is None else self._tokens + (now - self._filled_at) * rules.per_second
        self._tokens, self._filled_at = min(burst, filled), now
        if self._running >= rules.concurrency or self._tokens < 1.0:
            raise TierUnavailable("the small tier is down and the bypass to the large tier is full, retry shortly")
        self._running += 1
        self._tokens -= 1.0
        try:
            yield
        finally:
            self._running -= 1
