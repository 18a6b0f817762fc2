"""Draws requests with their answers: the natural mix, the training mix, and the held-out set."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from home_pair.appliances import heat, light, play
from home_pair.arithmetic import add, convert, times
from home_pair.compound import compound
from home_pair.elsewhere import unknown
from home_pair.groceries import shopping
from home_pair.moments import alarm, remind, timer
from home_pair.order import calendar, compare, sort
from home_pair.tasks import Split, Task

_ALL: tuple[Task, ...] = (
    timer, alarm, remind, light, heat, play, shopping, add, times, convert, compare, sort, calendar, compound, unknown,
)  # fmt: skip
TASKS: dict[str, Task] = {task.name: task for task in _ALL}

NATURAL_MIX = {
    "timer": 8, "alarm": 7, "light": 7, "heat": 8, "add": 19, "times": 5, "convert": 5, "compare": 5, "sort": 6,
    "calendar": 10, "shopping": 9, "remind": 8, "play": 6, "compound": 11, "unknown": 7,
}  # fmt: skip
"""Weights of the tasks in the held-out set."""

TRAINING_MIX = {
    "timer": 8, "alarm": 7, "light": 5, "heat": 9, "add": 22, "times": 7, "convert": 5, "compare": 8, "sort": 9,
    "calendar": 15, "shopping": 9, "remind": 10, "play": 6, "compound": 17, "unknown": 9,
}  # fmt: skip
"""Weights of the tasks in training: more of what is learnt last."""


@dataclass(frozen=True, slots=True)
class Example:
    """One request and its one right answer."""

    task: str
    request: str
    answer: str


def draw(split: Split, seed: int, mix: dict[str, int] | None = None) -> Iterator[Example]:
    """Draws examples of a split without end; the same seed gives the same examples."""
    rng = Random(f"{split}-{seed}")  # noqa: S311 - reproducible, not secret
    weights = mix or NATURAL_MIX
    names, shares = list(weights), list(weights.values())
    while True:
        name = rng.choices(names, shares)[0]
        request, answer = TASKS[name].draw(split, rng)
        yield Example(name, request, answer)


def held_out(split: Split, seed: int, count: int) -> list[Example]:
    """Draws `count` different requests of the natural mix."""
    found: dict[str, Example] = {}
    for example in draw(split, seed):
        found.setdefault(example.request, example)
        if len(found) == count:
            return list(found.values())
    raise AssertionError("draw never ends")
