"""Says how far a long step has come, when it will be done and what it has cost."""

import sys
import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cost:
    """What a training took: examples seen, seconds on the wall, seconds of CPU over all cores."""

    examples: int
    wall: float
    cpu: float


NOTHING = Cost(0, 0.0, 0.0)


def say(line: str) -> None:
    """Prints one line at once, so that a log file can be followed."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class Progress:
    """Counts steps from `first` to `last`; `before` is what the steps up to `first` have cost."""

    def __init__(self, name: str, first: int, last: int, before: Cost) -> None:
        self._name, self._first, self._last, self._before = name, first, last, before
        self._began, self._cpu_began = time.monotonic(), time.process_time()
        self._examples = before.examples

    def add(self, examples: int) -> None:
        """Counts the examples of one step."""
        self._examples += examples

    @property
    def cost(self) -> Cost:
        """Adds up the cost so far."""
        wall = self._before.wall + time.monotonic() - self._began
        return Cost(self._examples, wall, self._before.cpu + time.process_time() - self._cpu_began)

    def tell(self, done: int, loss: float) -> None:
        """Prints step, loss, cost and the time left at the pace so far."""
        cost = self.cost
        pace = (cost.wall - self._before.wall) / (done - self._first)
        say(
            f"{self._name}: step {done:,} of {self._last:,}  loss {loss:.4f}  {cost.examples:,} examples  "
            f"{cost.wall:,.0f} s, {cost.cpu:,.0f} s of CPU, {pace * (self._last - done):,.0f} s left"
        )
