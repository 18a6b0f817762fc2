"""Which of several endpoints may be asked now: passive ejection and return, with time as an argument.

An endpoint that faults several times in a row is out for a while, longer each time. Then one request tries it: its
first token lets others in again, its whole answer makes the past forgotten, its fault puts the endpoint out for longer.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EjectionRules:
    """When an endpoint is put out, and for how long.

    `faults` in a row put it out for `base_seconds` times the number of times since its last success, `longest_seconds`
    at most. No more than the share `most_out` of the endpoints, in [0, 1), are out at a time. An endpoint that asks to
    be left alone is, for `longest_pause_seconds` at most. One whose caller gave up after `silence_seconds` or more
    without a first token has faulted as well: a frozen engine does not say so itself.
    """

    faults: int = 3
    base_seconds: float = 1.0
    longest_seconds: float = 60.0
    most_out: float = 0.5
    longest_pause_seconds: float = 600.0
    silence_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class Ticket:
    """One request to one endpoint: `era` is how often that had been out by then, `trial` whether this one tries it.

    `again` says that another request tried it before, since it was put out, and has shown nothing.
    """

    endpoint: int
    era: int
    trial: bool
    again: bool = False


@dataclass(slots=True)
class _Health:
    """What is remembered of an endpoint; `out_until` is None while it is in."""

    faults: int = 0
    times_out: int = 0
    era: int = 0
    out_until: float | None = None
    tried: bool = False
    tried_before: bool = False
    paused_until: float = 0.0


class Ejection:
    """The health of several endpoints, named by their index; times are seconds of one clock, from 0 on.

    When none would be left in, all are: asking a sick one beats asking nobody. Only a pause that an endpoint asked for
    is kept even then. News from requests that were begun before the latest ejection is old and changes nothing.
    """

    def __init__(self, endpoints: int, rules: EjectionRules) -> None:
        self.rules = rules
        self._all = [_Health() for _ in range(endpoints)]
        self._room = int(endpoints * rules.most_out)

    def open(self, now: float) -> tuple[int, ...]:
        """Those that may be asked now; one that is due to be tried is among them until it is."""
        awake = [(index, health) for index, health in enumerate(self._all) if now >= health.paused_until]
        panic = not any(health.out_until is None and health.faults < self.rules.faults for _, health in awake)
        return tuple(index for index, health in awake if panic or health.out_until is None or _is_due(health, now))

    def paused_seconds(self, now: float) -> float:
        """Seconds until the first endpoint ends its pause; 0 when one is not paused."""
        return max(0.0, min(health.paused_until for health in self._all) - now)

    def begun(self, endpoint: int, now: float) -> Ticket:
        """A request is sent to an endpoint; the first one after its time is the trial."""
        health = self._all[endpoint]
        trial = _is_due(health, now)
        again = trial and health.tried_before
        if trial:
            health.tried = health.tried_before = True
        return Ticket(endpoint, health.era, trial, again)

    def answered(self, ticket: Ticket) -> bool:
        """The first token came; True when it brings the endpoint back, where one more fault puts it out again."""
        health = self._current(ticket)
        if health is None or health.out_until is None:
            return False
        health.out_until, health.tried, health.faults = None, False, self.rules.faults - 1
        return True

    def succeeded(self, ticket: Ticket) -> None:
        """The answer came to its end, or its reader had enough of it: the past is forgotten."""
        health = self._current(ticket)
        if health is not None and health.out_until is None:
            health.faults = health.times_out = 0

    def failed(self, ticket: Ticket, now: float) -> float | None:
        """The endpoint did not do its part; gives the seconds that it is out for, None when it stays as it was."""
        health = self._current(ticket)
        if health is None or (health.out_until is not None and not ticket.trial):
            return None
        health.faults += 1
        if health.out_until is None and (health.faults < self.rules.faults or self._out() >= self._room):
            return None
        health.times_out += 1
        health.era += 1
        health.tried = health.tried_before = False
        seconds = min(self.rules.base_seconds * health.times_out, self.rules.longest_seconds)
        health.out_until = now + seconds
        return seconds

    def paused(self, ticket: Ticket, now: float, seconds: float) -> bool:
        """The endpoint asked to be left alone for so long, which is no fault; True when it was not paused already."""
        health = self._all[ticket.endpoint]
        until = now + min(seconds, self.rules.longest_pause_seconds)
        begins = health.paused_until <= now < until
        health.paused_until = max(health.paused_until, until)
        self.dropped(ticket)
        return begins

    def dropped(self, ticket: Ticket) -> None:
        """The request ended and says nothing about the endpoint; if it was the trial, another one is."""
        health = self._current(ticket)
        if health is not None and ticket.trial:
            health.tried = False

    def _current(self, ticket: Ticket) -> _Health | None:
        health = self._all[ticket.endpoint]
        return health if health.era == ticket.era else None

    def _out(self) -> int:
        return sum(health.out_until is not None for health in self._all)


def _is_due(health: _Health, now: float) -> bool:
    return health.out_until is not None and now >= health.out_until and not health.tried
