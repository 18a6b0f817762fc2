"""Stops asking something that does not answer: nobody waits for it twice, and one probe at a time looks for it again.

Pure: times are arguments, in seconds of any clock that does not go back.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

FIRST_WAIT = 0.1
MOST_WAIT = 5.0
GROWTH = 2.0


class State(Enum):
    """CLOSED lets everything through, OPEN nothing, HALF_OPEN nothing but the probe that is under way."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class Transition:
    """What a breaker has become, and what failed when it opened ("" otherwise)."""

    state: State
    because: str = ""


class Breaker:
    """Opens at the first failure; a failed probe doubles the wait for the next, up to `most_wait` seconds.

    One that fails again soon after it has closed goes on waiting longer, so that flapping ends.
    """

    def __init__(
        self,
        told: Callable[[Transition], None],
        *,
        first_wait: float = FIRST_WAIT,
        most_wait: float = MOST_WAIT,
        closed: bool = True,
    ) -> None:
        """`told` hears of every transition once; one that begins open may be probed at once."""
        self._told = told
        self._first_wait = first_wait
        self._most_wait = most_wait
        self._wait = 0.0
        self._since = float("-inf")
        self.state = State.CLOSED if closed else State.OPEN

    @property
    def closed(self) -> bool:
        """Whether calls may go through."""
        return self.state is State.CLOSED

    def seconds_left(self, now: float) -> float:
        """How long to wait until the next probe, 0 when it may begin."""
        return max(0.0, self._since + self._wait - now)

    def probe(self, now: float) -> bool:
        """Whether the caller is the one that may probe now; it must say how that went."""
        if self.state is not State.OPEN or self.seconds_left(now) > 0.0:
            return False
        self._becomes(State.HALF_OPEN)
        return True

    def succeeded(self, now: float) -> None:
        """The probe did well: everything may go through again."""
        if self.state is State.HALF_OPEN:
            self._since = now
            self._becomes(State.CLOSED)

    def failed(self, now: float, because: str) -> None:
        """A call or the probe failed; calls that were under way when it opened change nothing."""
        if self.state is State.OPEN:
            return
        settled = self.state is State.CLOSED and now - self._since > self._wait
        longer = max(self._first_wait, self._wait * GROWTH)
        self._wait = self._first_wait if settled else min(self._most_wait, longer)
        self._since = now
        self._becomes(State.OPEN, because)

    def _becomes(self, state: State, because: str = "") -> None:
        self.state = state
        self._told(Transition(state, because))
