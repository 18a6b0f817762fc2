"""The time of day without its jumps: set once, at the start, and carried on by a clock that nobody can set."""

import time
from collections.abc import Callable

Clock = Callable[[], float]


def steady_clock(epoch: Clock = time.time, ticks: Clock = time.monotonic) -> Clock:
    """A clock in seconds since the Unix epoch for what must not end early or begin anew: leases, windows of budgets.

    It is as wrong as `epoch` was when it was made, until the process is started again.
    """
    begun = epoch() - ticks()
    return lambda: begun + ticks()
