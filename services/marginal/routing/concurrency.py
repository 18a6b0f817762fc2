"""How many attempts one tier takes at a time, learnt from how long it takes to begin to answer.

More attempts than a tier can work on wait inside it, and their first chunk comes late: that is all there is to see of
a queue in somebody else's process. So the limit grows while a round of first chunks comes about as soon as usual and
every place was used, and shrinks when it comes late or the tier says that it is full. What is usual is shown by rounds
that used few of the places; the others, which may have queued, can only show that it is less. So overload, however
long, never passes for usual. `tests/bench/admission.py` compares this limit with others.
"""

import math
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class LimitRules:
    """Bounds of a limit, and how it moves.

    A round is `round_answers` answers, or half the limit if that is more. It is late when the median of its first
    chunks took more than `tolerance` times what is usual plus `slack_seconds`: a busy event loop adds that much.
    `grow` and `shrink` are shares of the limit. A round that used no more than the share `quiet` of the places moves
    what is usual towards its own median, by the share `learn` of the way.
    """

    initial: int = 16
    minimum: int = 4
    maximum: int = 256
    tolerance: float = 1.5
    slack_seconds: float = 0.02
    grow: float = 0.05
    shrink: float = 0.1
    learn: float = 0.1
    quiet: float = 0.5
    round_answers: int = 20


class AdaptiveLimit:
    """A limit of attempts under way.

    It hears of an attempt when that begins, and says which era that is: since it last shrank. What becomes of attempts
    from an earlier era says nothing about the limit as it is now, and is ignored.
    """

    def __init__(self, rules: LimitRules) -> None:
        self._rules = rules
        self._limit = float(min(rules.maximum, max(rules.minimum, rules.initial)))
        self._usual = math.inf
        self._era = 0
        self._starting = True
        self._answers: list[float] = []
        self._most = 0

    @property
    def limit(self) -> int:
        """Attempts that may be under way now."""
        return int(self._limit)

    def begun(self, under_way: int) -> int:
        """Hears that an attempt begins and how many are now under way; gives the era, for its end."""
        self._most = max(self._most, under_way)
        return self._era

    def answered(self, era: int, seconds: float) -> None:
        """Hears how long the first chunk of an attempt took."""
        if era != self._era:
            return
        self._answers.append(seconds)
        if len(self._answers) >= max(self._rules.round_answers, self.limit // 2):
            self._end_round(median(self._answers))

    def dropped(self, era: int) -> None:
        """Hears that the tier had no room for an attempt."""
        if era == self._era:
            self._shrink()

    def _end_round(self, seconds: float) -> None:
        rules = self._rules
        if seconds > self._usual * rules.tolerance + rules.slack_seconds:
            if self._limit > rules.minimum:
                self._shrink()
                return
            self._usual = math.inf  # no queue of ours is left to blame: the tier became slower
            self._starting = True
        if math.isinf(self._usual):
            self._usual = seconds
        elif seconds < self._usual or self._most <= self._limit * rules.quiet:
            self._usual += rules.learn * (seconds - self._usual)
        if self._most >= self.limit:
            more = self._limit if self._starting else max(1.0, rules.grow * self._limit)
            self._limit = min(float(rules.maximum), self._limit + more)
        self._next_round()

    def _shrink(self) -> None:
        self._limit = max(float(self._rules.minimum), self._limit * (1.0 - self._rules.shrink))
        self._era += 1
        self._starting = False
        self._next_round()

    def _next_round(self) -> None:
        self._answers, self._most = [], 0
