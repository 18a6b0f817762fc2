"""Asks the large tier too, after a kept answer was served: how often both agree is what thresholds are calibrated on.

Shadow calls have a share, a concurrency cap and an hourly budget of their own; what does not fit is left out, and a
tier that is down is not asked. Nothing of them reaches a caller.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from marginal.policy.scores import SCORES, judge
from marginal.routing.attempts import Clock
from marginal.routing.policies import Criterion, Policy, ShadowRules
from marginal.routing.records import Comparison
from marginal.routing.requests import Mode
from marginal.tokens import Token

HOUR_SECONDS = 3600.0


@dataclass(slots=True)
class Shadowed:
    """A policy's shadow calls so far; money in nano-units of the hour that began at `hour_began`."""

    answered: int = 0
    agreed: int = 0
    left_out: int = 0
    running: int = 0
    hour_began: float = 0.0
    hour_nanos: int = 0

    def admits(self, rules: ShadowRules, *, expected_nanos: int, now: float) -> bool:
        """Whether one more call fits; it then counts in this hour with what it is expected to cost."""
        if now - self.hour_began >= HOUR_SECONDS:
            self.hour_began, self.hour_nanos = now, 0
        if self.running >= rules.concurrency or self.hour_nanos + expected_nanos > rules.hourly_nanos:
            self.left_out += 1
            return False
        self.running += 1
        self.hour_nanos += expected_nanos
        return True

    def ended(self, comparison: Comparison | None, *, expected_nanos: int, cost_nanos: int, hour: float) -> None:
        """Settles a call that was admitted in the hour that began at `hour`."""
        self.running -= 1
        if hour == self.hour_began:
            self.hour_nanos += cost_nanos - expected_nanos
        if comparison is not None:
            self.answered += 1
            self.agreed += comparison.agrees


@dataclass(slots=True)
class Shadows:
    """The shadow calls of a router; `lot` gives numbers in [0, 1)."""

    lot: Callable[[], float]
    clock: Clock
    by_policy: dict[str, Shadowed] = field(default_factory=dict)
    running: set[asyncio.Task[None]] = field(default_factory=set)

    def wanted(self, policy: Policy, asked: Mode) -> bool:
        """Whether a request is to be compared if it is kept: always when it asked to be, else by lot."""
        if policy.effective_mode(asked) is not Mode.SHADOW:
            return False
        return asked is Mode.SHADOW or self.lot() < policy.shadow.share

    def of(self, policy: Policy) -> Shadowed:
        """The policy's calls so far."""
        return self.by_policy.setdefault(policy.name, Shadowed(hour_began=self.clock()))

    def start(self, call: Coroutine[Any, Any, None]) -> None:
        """Runs a call beside the requests."""
        task = asyncio.create_task(call, name="shadow")
        self.running.add(task)
        task.add_done_callback(self.running.discard)

    async def drained(self, seconds: float) -> None:
        """Lets the calls under way end for so many seconds, then ends them; each leaves its record."""
        await asyncio.sleep(0)  # one that has not begun would leave no record
        tasks = list(self.running)
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def compared(
    small: Sequence[Token],
    large: Sequence[Token],
    *,
    criterion: Criterion,
    choices: Sequence[str] = (),
    texts: bool = False,
) -> Comparison:
    """Both answers compared, case, white space and a full stop at the end aside, and every score of the small one.

    The criterion's own score is over its window, the others over the whole answer.
    """
    small_text, large_text = ("".join(token.text for token in answer) for answer in (small, large))
    scores = {name: judge(name, small, choices=choices) for name in SCORES}
    scores[criterion.score] = judge(
        criterion.score, small, window=criterion.window, choices=choices, quantile=criterion.quantile
    )
    return Comparison(
        agrees=plain(small_text) == plain(large_text),
        scores={name: score for name, score in scores.items() if score is not None},
        small_text=small_text if texts else None,
        large_text=large_text if texts else None,
    )


def plain(text: str) -> str:
    """A text without what does not change an answer."""
    return " ".join(text.casefold().split()).rstrip(".")
