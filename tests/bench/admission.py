"""`python -m tests.bench.admission`: what a tier's limit and its line do under overload, simulated in its own time.

The router's own classes run on an event loop whose clock jumps from event to event, over tiers whose capacity is known:
load of 0.7, 1, 2, 4 times the capacity and back to 0.7, arrivals at random from a seed. `--compare` puts other limits
and other lines beside those of the router: it is how the defaults were chosen.
"""

import argparse
import asyncio
import math
import random
import selectors
from collections.abc import Awaitable, Callable
from typing import Any

from marginal.errors import Overloaded
from marginal.routing.concurrency import AdaptiveLimit, LimitRules
from marginal.routing.requests import Criticality
from marginal.routing.waiting import Limit, Places, WaitingRules
from tests.bench.overload_figures import Course, Served, course, show

LOADS = (0.7, 1.0, 2.0, 4.0, 0.7)
PHASE_SECONDS = 20.0
SETTLE_SECONDS = 4.0
"""The beginning of each phase that is not counted; that of the last is the recovery."""

DEADLINE_SECONDS = 4.0
SLOTS = 16
FIRST_SECONDS = 0.06
ANSWER_SECONDS = 0.4
CAPACITY = SLOTS / ANSWER_SECONDS
"""Requests per second of every simulated tier."""

Generate = Callable[[random.Random, Callable[[], None]], Awaitable[None]]
"""Generates one answer and tells when its first chunk comes. Raises Overloaded."""


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop in which waiting takes no time: the clock jumps to the next event."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_Jumps(self._jump))

    def time(self) -> float:
        return self._now

    def _jump(self, seconds: float) -> None:
        self._now += seconds


class _Jumps(selectors.SelectSelector):
    def __init__(self, jump: Callable[[float], None]) -> None:
        super().__init__()
        self._jump = jump

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("nothing will ever happen again")
        self._jump(timeout)
        return []


class Slots:
    """An engine that works on so many requests at once; further ones wait inside it, in their order."""

    def __init__(self, *, spread: float = 0.3, prompts: float = 0.1, queue: int | None = None) -> None:
        """`spread` and `prompts` are the spreads of the answers' and prompts' lengths, as sigmas of their logarithms.

        With a `queue` it refuses those who would wait behind so many.
        """
        self._slots = asyncio.Semaphore(SLOTS)
        self._spread, self._prompts, self._queue = spread, prompts, queue
        self._inside = 0

    async def __call__(self, lot: random.Random, begun: Callable[[], None]) -> None:
        if self._queue is not None and self._inside >= SLOTS + self._queue:
            raise Overloaded("full")
        self._inside += 1
        try:
            async with self._slots:
                await asyncio.sleep(FIRST_SECONDS * _spread(lot, self._prompts))
                begun()
                await asyncio.sleep((ANSWER_SECONDS - FIRST_SECONDS) * _spread(lot, self._spread))
        finally:
            self._inside -= 1


class Batches:
    """An engine that works on all it has, each step slower for all when they are more than it has room for."""

    STEPS = 12

    def __init__(self) -> None:
        self._inside = 0

    async def __call__(self, lot: random.Random, begun: Callable[[], None]) -> None:
        self._inside += 1
        try:
            for step in range(max(2, round(self.STEPS * _spread(lot, 0.3)))):
                await asyncio.sleep(ANSWER_SECONDS / self.STEPS * max(1.0, self._inside / SLOTS))
                if not step:
                    begun()
        finally:
            self._inside -= 1


def _spread(lot: random.Random, sigma: float) -> float:
    """A factor around 1 whose mean is 1."""
    return lot.lognormvariate(-sigma * sigma / 2.0, sigma)


TIERS: dict[str, Callable[[], Generate]] = {
    "slots": Slots,
    "mixed prompts": lambda: Slots(prompts=0.8),
    "batches": Batches,
    "refuses": lambda: Slots(queue=4),
}


class Vegas:
    """The limit of TCP Vegas, as Netflix has it: the queue, limit x (1 - best / seen), is kept between two bounds."""

    def __init__(self) -> None:
        self._limit, self._best = 4.0, math.inf

    @property
    def limit(self) -> int:
        return int(self._limit)

    def begun(self, under_way: int) -> int:
        return int(2 * under_way >= self._limit)

    def answered(self, era: int, seconds: float) -> None:
        self._best = min(self._best, seconds)
        queue = math.ceil(self._limit * (1.0 - self._best / seconds))
        step = max(1.0, math.log10(self._limit))
        if queue < 3 * step and era:
            self._limit = min(256.0, self._limit + step)
        elif queue > 6 * step:
            self._limit = max(1.0, self._limit - step)

    def dropped(self, era: int) -> None:  # noqa: ARG002
        self._limit = max(1.0, self._limit - max(1.0, math.log10(self._limit)))


class Gradient2:
    """The ratio of a long to a short average of what is seen, as Netflix has it."""

    def __init__(self) -> None:
        self._limit, self._long, self._seen = 4.0, 0.0, 0

    @property
    def limit(self) -> int:
        return int(self._limit)

    def begun(self, under_way: int) -> int:
        return int(2 * under_way >= self._limit)

    def answered(self, era: int, seconds: float) -> None:
        self._seen += 1
        weight = max(2.0 / 601.0, 1.0 / self._seen)
        self._long += weight * (seconds - self._long)
        if self._long > 2.0 * seconds:
            self._long *= 0.95
        if not era:
            return
        gradient = max(0.5, min(1.0, 1.5 * self._long / seconds))
        wanted = self._limit * gradient + 4.0
        self._limit = max(1.0, min(256.0, 0.8 * self._limit + 0.2 * wanted))

    def dropped(self, era: int) -> None:
        pass


def fixed(places: int) -> Limit:
    return AdaptiveLimit(LimitRules(initial=places, minimum=places, maximum=places))


LIMITS: dict[str, Callable[[], Limit]] = {
    "none": lambda: fixed(100_000),
    "fixed, known": lambda: fixed(SLOTS),
    "vegas": Vegas,
    "gradient2": Gradient2,
    "ours": lambda: AdaptiveLimit(LimitRules()),
}


LINES: dict[str, WaitingRules] = {
    "none": WaitingRules(per_place=0.0),
    "patient, oldest first": WaitingRules(hasty_seconds=0.3),
    "patient, newest first": WaitingRules(hasty_seconds=0.3, newest_first=True),
    "hasty, newest first": WaitingRules(newest_first=True),
    "ours": WaitingRules(),
}
OURS = "ours"


async def simulated(generate: Generate, places: Places, *, seed: int) -> list[list[Served]]:
    """Runs all phases and gives what became of each phase's requests."""
    loop, lot = asyncio.get_running_loop(), random.Random(seed)  # noqa: S311
    phases: list[list[Served]] = [[] for _ in LOADS]

    async def request(served: list[Served], own: random.Random) -> None:
        arrived, seconds, shed = loop.time(), None, None
        try:
            async with asyncio.timeout(DEADLINE_SECONDS), places.place(Criticality.CRITICAL, DEADLINE_SECONDS) as place:
                begun = loop.time()
                try:
                    await generate(own, lambda: place.answered(loop.time() - begun))
                except Overloaded:
                    place.dropped()
                    raise
            seconds = loop.time() - arrived
        except Overloaded:
            shed = loop.time() - arrived
        except TimeoutError:
            pass
        served.append(Served(arrived, seconds, shed))

    async with asyncio.TaskGroup() as tasks:
        for phase, load in enumerate(LOADS):
            while loop.time() < (phase + 1) * PHASE_SECONDS:
                await asyncio.sleep(lot.expovariate(load * CAPACITY))
                own = random.Random(f"{seed} {lot.random()}")  # noqa: S311
                tasks.create_task(request(phases[phase], own))
    return phases


def run(tier: str, limit: str, line: str, *, seed: int) -> Course:
    """Simulates one course."""

    async def phases() -> list[list[Served]]:
        return await simulated(TIERS[tier](), Places(LIMITS[limit](), LINES[line]), seed=seed)

    subject = tier if limit == line == OURS else f"{tier}; limit {limit}; line {line}"
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return course(subject, runner.run(phases()), LOADS, seconds=PHASE_SECONDS, settle=SETTLE_SECONDS)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.admission",
        description=__doc__,
        epilog="Examples: python -m tests.bench.admission --seeds 3; python -m tests.bench.admission --compare --json",
    )
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="courses of each kind")
    parser.add_argument("--compare", action="store_true", help="other limits and other lines too")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the tables")
    given = parser.parse_args()
    kinds = [(tier, OURS, OURS) for tier in TIERS]
    if given.compare:
        kinds += [(tier, limit, OURS) for tier in TIERS for limit in LIMITS if limit != OURS]
        kinds += [(tier, OURS, line) for tier in ("slots", "batches") for line in LINES if line != OURS]
    courses = [run(*kind, seed=seed) for kind in kinds for seed in range(1, given.seeds + 1)]
    show(courses, capacity=CAPACITY, subject="tier", as_json=given.json)


if __name__ == "__main__":
    main()
