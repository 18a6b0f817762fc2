"""`python -m tests.bench.autoscaling`: how a large tier follows the demand that the router tells KEDA, simulated.

A day in 80 minutes from a seed: quiet, a ramp, a plateau, a burst, and nothing for so long that the tier goes to zero,
then a lone deferral that wakes it. The router's own `RecentDemand` is asked by a model of KEDA (push, polling,
cooldown) and of the Horizontal Pod Autoscaler (sync every 15 s, tolerance, stabilisation, at most double or four more).
Pods take a while to load their model; each serves so many streams at once, further ones wait, and those that waited for
too long are answered by the small tier. Every setting is varied by itself: it is how the defaults were chosen.
"""

import argparse
import heapq
import json
import math
import random
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean, quantiles

from rich.console import Console
from rich.table import Table

from marginal.routing.demand import LINGER_SECONDS, WINDOW_SECONDS, RecentDemand
from marginal.tokens import Tier
from marginal.transport.scaler import TARGETS

PHASES = ((600, 0.3), (300, 4.0), (900, 8.0), (120, 24.0), (600, 8.0), (600, 2.0), (1200, 0.0), (30, 0.3), (450, 0.3))
"""Seconds, and requests per second at their end; a ramp leads from each to the next, but a burst comes at once."""

DEFERRED = 0.3
SMALL_SECONDS, LARGE_SECONDS, SPREAD = 0.4, 6.0, 0.5
STREAMS = 8
"""What one replica serves at a time without slowing down; the targets are shares of it."""

START_SECONDS = 60.0
PATIENCE_SECONDS = 90.0
MOST_REPLICAS = 8
SYNC_SECONDS, POLL_SECONDS, SAMPLE_SECONDS, TOLERANCE = 15.0, 30.0, 0.5, 0.1


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to scale: demand per replica, seconds of mean, of stabilisation downwards, of cooldown to zero."""

    target: float = TARGETS[Tier.LARGE]
    window: float = WINDOW_SECONDS
    stabilisation: float = 120.0
    cooldown: float = 300.0
    expects: bool = True
    """Whether likely deferrals of undecided small streams count."""

    pushes: bool = True
    """Whether a tier at zero is woken by a push, and not at the next poll."""


VARIED: dict[str, Sequence[float | bool]] = {
    "target": (2.0, 4.0, 5.0, 6.0, 8.0),
    "window": (0.5, 5.0, 15.0, 60.0),
    "stabilisation": (0.0, 60.0, 120.0, 300.0),
    "cooldown": (30.0, 120.0, 300.0, 900.0),
    "expects": (True, False),
    "pushes": (True, False),
}


@dataclass(eq=False, slots=True)
class Pod:
    """A replica of the large tier: ready at a moment, with so many streams; one that leaves takes no more."""

    ready_at: float
    streams: int = 0
    leaving: bool = False


@dataclass(slots=True)
class Course:
    """What became of one simulated day; `waits` of the deferrals that the large tier answered, in seconds."""

    setting: Setting
    waits: list[float] = field(default_factory=list)
    degraded: int = 0
    pod_seconds: float = 0.0
    busy_seconds: float = 0.0
    changes: int = 0
    timeline: list[tuple[float, float, int, int, float]] = field(default_factory=list)
    """Time, demand, replicas wanted, replicas ready, the longest wait in the line."""


class Day:
    """One simulated day under a setting."""

    def __init__(self, setting: Setting, *, seed: int) -> None:
        self.course = Course(setting)
        self._setting = setting
        self._lot = random.Random(seed)  # noqa: S311
        self._now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._pods: list[Pod] = []
        self._line: deque[float] = deque()
        self._undecided = 0
        self._recent = RecentDemand(window_seconds=setting.window, linger_seconds=LINGER_SECONDS)
        self._recommended: deque[tuple[float, int]] = deque()
        self._active_at = -math.inf
        self._wanted = 0

    def run(self) -> Course:
        """Plays it to the end."""
        end = sum(seconds for seconds, _ in PHASES)
        self._arrivals()
        for every, what in ((SYNC_SECONDS, self._sync), (POLL_SECONDS, self._poll), (SAMPLE_SECONDS, self._sample)):
            self._every(every, what, until=end)
        while self._events and self._events[0][0] <= end:
            at, _, what = heapq.heappop(self._events)
            self._pass(at)
            what()
        self.course.degraded += len(self._line)
        return self.course

    def _at(self, when: float, what: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, what))

    def _every(self, seconds: float, what: Callable[[], None], *, until: float) -> None:
        for number in range(1, int(until / seconds) + 1):
            self._at(number * seconds, what)

    def _pass(self, at: float) -> None:
        passed, self._now = at - self._now, at
        self.course.pod_seconds += passed * len(self._pods)
        self.course.busy_seconds += passed * sum(pod.streams for pod in self._pods) / STREAMS

    def _arrivals(self) -> None:
        began, before = 0.0, PHASES[0][1]
        for seconds, rate in PHASES:
            first = rate if rate > 2.0 * before or rate == 0.0 else before
            most, at = max(first, rate), began
            while most and (at := at + self._lot.expovariate(most)) < began + seconds:
                if self._lot.random() * most < first + (rate - first) * (at - began) / seconds:
                    self._at(at, self._arrive)
            began, before = began + seconds, rate

    def _arrive(self) -> None:
        self._undecided += 1
        self._at(self._now + self._spread(SMALL_SECONDS), self._decide)

    def _decide(self) -> None:
        self._undecided -= 1
        if self._lot.random() >= DEFERRED:
            return
        self._line.append(self._now)
        if self._free() is None and not self._ready() and self._setting.pushes:
            self._recent.wanted(self._now)
            self._activate()
        self._serve()

    def _serve(self) -> None:
        while self._line and self._now - self._line[0] > PATIENCE_SECONDS:
            self._line.popleft()
            self.course.degraded += 1
        while self._line and (pod := self._free()) is not None:
            self.course.waits.append(self._now - self._line.popleft())
            pod.streams += 1
            self._at(self._now + self._spread(LARGE_SECONDS), lambda pod=pod: self._end(pod))  # type: ignore[misc]

    def _end(self, pod: Pod) -> None:
        pod.streams -= 1
        if pod.leaving and not pod.streams:
            self._pods.remove(pod)
        self._serve()

    def _ready(self) -> list[Pod]:
        return [pod for pod in self._pods if pod.ready_at <= self._now and not pod.leaving]

    def _free(self) -> Pod | None:
        free = [pod for pod in self._ready() if pod.streams < STREAMS]
        return min(free, key=lambda pod: pod.streams, default=None)

    def _demand(self) -> float:
        expected = DEFERRED * self._undecided if self._setting.expects else 0.0
        return sum(pod.streams for pod in self._pods) + len(self._line) + expected

    def _sample(self) -> None:
        self._recent.take(self._demand(), self._now)
        if self._recent.active(self._now) and not self._wanted and self._setting.pushes:
            self._activate()
        if self._now % 5.0 == 0.0:
            longest = self._now - self._line[0] if self._line else 0.0
            self.course.timeline.append((self._now, self._demand(), self._wanted, len(self._ready()), longest))

    def _poll(self) -> None:
        if self._recent.active(self._now):
            self._activate()
        elif self._wanted and self._now - self._active_at >= self._setting.cooldown:
            self._scale(0)

    def _activate(self) -> None:
        self._active_at = self._now
        if not self._wanted:
            self._scale(1)

    def _sync(self) -> None:
        if not self._wanted:
            self._recommended.clear()
            return
        ratio = self._recent.mean(self._now) / self._setting.target
        same = abs(ratio / self._wanted - 1.0) <= TOLERANCE
        now = self._wanted if same else min(MOST_REPLICAS, max(1, math.ceil(ratio)))
        self._recommended.append((self._now, now))
        while self._recommended[0][0] < self._now - self._setting.stabilisation:
            self._recommended.popleft()
        if now < self._wanted:
            now = min(self._wanted, max(found for _, found in self._recommended))
        self._scale(min(now, max(2 * self._wanted, self._wanted + 4)))

    def _scale(self, wanted: int) -> None:
        if wanted == self._wanted:
            return
        self.course.changes += 1
        staying = [pod for pod in self._pods if not pod.leaving]
        for pod in sorted(staying, key=lambda pod: -pod.ready_at)[: max(0, len(staying) - wanted)]:
            pod.leaving = True
            if not pod.streams:
                self._pods.remove(pod)
        for _ in range(wanted - len(staying)):
            self._pods.append(Pod(self._now + START_SECONDS))
            self._at(self._now + START_SECONDS, self._serve)
        self._wanted = wanted

    def _spread(self, mean: float) -> float:
        return mean * self._lot.lognormvariate(-SPREAD * SPREAD / 2.0, SPREAD)


@dataclass(frozen=True, slots=True)
class Figures:
    """The means of a setting's days: waits in seconds, pods in pod-minutes, shares in [0, 1]."""

    varied: str
    setting: Setting
    deferrals: float
    waiting_p50: float
    waiting_p95: float
    waited_share: float
    degraded_share: float
    pod_minutes: float
    busy_share: float
    changes: float


def figures(varied: str, setting: Setting, courses: Sequence[Course]) -> Figures:
    def mean(of: Callable[[Course], float]) -> float:
        return fmean(of(course) for course in courses)

    def place(course: Course, percent: int) -> float:
        return quantiles(course.waits, n=100)[percent - 1]

    return Figures(
        varied,
        setting,
        mean(lambda one: len(one.waits) + one.degraded),
        mean(lambda one: place(one, 50)),
        mean(lambda one: place(one, 95)),
        mean(lambda one: sum(wait > 1.0 for wait in one.waits) / len(one.waits)),
        mean(lambda one: one.degraded / (len(one.waits) + one.degraded)),
        mean(lambda one: one.pod_seconds / 60.0),
        mean(lambda one: one.busy_seconds / one.pod_seconds),
        mean(lambda one: one.changes),
    )


def compared(seeds: int) -> list[Figures]:
    """The defaults, and each of their settings varied by itself."""
    rows = [("defaults", Setting())]
    rows += [(f"{name} {value}", replace(Setting(), **{name: value})) for name in VARIED for value in VARIED[name]]
    return [figures(name, one, [Day(one, seed=seed).run() for seed in range(1, seeds + 1)]) for name, one in rows]


def shown(rows: Sequence[Figures]) -> Table:
    title = f"a large tier of 0 to {MOST_REPLICAS} replicas of {STREAMS} streams, {START_SECONDS:g} s to start"
    table = Table(title=title, box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for heading in ("waited p95\ns", "waited\n> 1 s", "degraded", "pod-\nminutes", "busy", "scaled"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.varied,
            f"{row.waiting_p95:.1f}",
            f"{row.waited_share:.1%}",
            f"{row.degraded_share:.1%}",
            f"{row.pod_minutes:.0f}",
            f"{row.busy_share:.0%}",
            f"{row.changes:.0f}",
        )
    return table


def draw(course: Course, path: Path) -> None:
    """Demand, replicas and waiting time over one day, as a PNG."""
    from matplotlib.figure import Figure

    times, demand, wanted, ready, waits = zip(*course.timeline, strict=True)
    minutes = [time / 60.0 for time in times]
    picture = Figure(figsize=(11, 7), layout="constrained")
    top, middle, bottom = picture.subplots(3, 1, sharex=True)
    top.plot(minutes, demand, color="#2563eb", linewidth=1)
    top.set_ylabel("demand, requests")
    middle.step(minutes, wanted, where="post", color="#9ca3af", label="wanted")
    middle.step(minutes, ready, where="post", color="#059669", label="ready")
    middle.set_ylabel("replicas")
    middle.legend(frameon=False, loc="upper right")
    bottom.plot(minutes, waits, color="#dc2626", linewidth=1)
    bottom.set_ylabel("longest wait, s")
    bottom.set_xlabel("minutes")
    for axes in (top, middle, bottom):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylim(bottom=0)
    one = course.setting
    top.set_title(
        f"target {one.target:g} of {STREAMS} streams, mean over {one.window:g} s, stabilisation {one.stabilisation:g}"
        f" s, cooldown {one.cooldown:g} s, {START_SECONDS:g} s to start",
        loc="left",
    )
    picture.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.autoscaling",
        description=__doc__,
        epilog="Examples: python -m tests.bench.autoscaling --seeds 5; ... --json; ... --picture autoscaling.png",
    )
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="days of each setting")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw one day of the defaults as a PNG")
    given = parser.parse_args()
    rows = compared(given.seeds)
    if given.picture:
        draw(Day(Setting(), seed=1).run(), given.picture)
    if given.json:
        json.dump({"defaults": asdict(Setting()), "rows": [asdict(row) for row in rows]}, sys.stdout)
        print()  # noqa: T201
        return
    console = Console(highlight=False)
    console.print(shown(rows))
    one = Setting()
    console.print(
        f"\nchosen: target {one.target:g} per replica, half of what one serves at a time; mean over {one.window:g} s;"
        f" stabilisation {one.stabilisation:g} s; cooldown {one.cooldown:g} s",
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
