"""Threshold rules: the smallest score that is kept, and how it follows the traffic."""

from typing import Protocol

from marginal.policy.deferral import Decision, Reason, Verdict

LEAST, MOST = 0.001, 0.999
"""A moving threshold stays inside: at 0 nothing would ever be deferred, above 1 everything."""


class Threshold(Protocol):
    """Gives the threshold for the next request and learns from each decision."""

    @property
    def value(self) -> float:
        """The smallest score kept, in [0, 1]."""
        ...

    def learn(self, decision: Decision) -> None:
        """Takes a decision made under this rule, in the order decisions fall."""
        ...


class Fixed:
    """Always the same threshold."""

    def __init__(self, value: float) -> None:
        self.value = value

    def learn(self, decision: Decision) -> None:
        """Changes nothing."""


class TargetRate:
    """Holds the share of deferrals at `rate` under drift: a step up for every keep, a larger one down for a deferral.

    It learns from the *verdict*, which falls whether or not the large tier can then be had, so an outage does not bias
    it; decisions without a score are passed over. Source: the one-line controller of research on the paper's rule,
    t += step * (rate - deferred).
    """

    def __init__(self, rate: float, *, start: float, step: float = 0.02) -> None:
        self._rate = rate
        self._step = step
        self._value = start

    @property
    def value(self) -> float:
        return self._value

    def learn(self, decision: Decision) -> None:
        if decision.reason is not Reason.SCORE:
            return
        deferred = 1.0 if decision.verdict is Verdict.DEFER else 0.0
        self._value = min(MOST, max(LEAST, self._value + self._step * (self._rate - deferred)))
