"""What an overload shows, of requests that were simulated or sent: one point per load, a course of all of them.

The course begins and ends with the same light load. Goodput is what was answered within its deadline.
"""

import itertools
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

RECOVERED = 1.2
"""The p99 after an overload that counts as recovered, as a ratio of that before."""

STEP_SECONDS = 0.5
LEAST_REQUESTS = 30
"""Fewer tell nothing of a p99."""


@dataclass(frozen=True, slots=True)
class Served:
    """What became of one request that was due at `at`: seconds until its answer, or until it was sent away.

    Without either it was given up at its deadline, or failed.
    """

    at: float
    seconds: float | None = None
    shed_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Point:
    """One load, a multiple of the capacity: requests per second and milliseconds."""

    load: float
    offered: float
    goodput: float
    shed: float
    lost: float
    p50_ms: float
    p99_ms: float
    shed_p99_ms: float


@dataclass(frozen=True, slots=True)
class Course:
    """All loads in their order, and the seconds it took to recover from them."""

    subject: str
    points: tuple[Point, ...]
    recovery_seconds: float

    @property
    def peak(self) -> float:
        """The best goodput of all loads, per second."""
        return max(point.goodput for point in self.points)

    def at(self, load: float) -> Point:
        """The first point of a load."""
        return next(point for point in self.points if point.load == load)

    def goodput_ratio(self, load: float) -> float:
        """Goodput at a load / the best of all loads."""
        return self.at(load).goodput / self.peak

    def p99_ratio(self, load: float) -> float:
        """The p99 of those answered at a load / that at the light load."""
        return self.at(load).p99_ms / self.points[0].p99_ms

    def shed_ratio(self, load: float) -> float:
        """How long it took to be sent away, p99 / the p50 of those answered."""
        return self.at(load).shed_p99_ms / self.at(load).p50_ms


def course(
    subject: str, phases: Sequence[Sequence[Served]], loads: Sequence[float], *, seconds: float, settle: float
) -> Course:
    """Reckons a course of phases of `seconds` each, of which the first `settle` are not counted."""
    points = [
        _point(load, [one for one in phase if one.at >= number * seconds + settle], seconds - settle)
        for number, (load, phase) in enumerate(zip(loads, phases, strict=True))
    ]
    began = (len(loads) - 1) * seconds
    return Course(subject, tuple(points), _recovery(phases[-1], began, good_ms=RECOVERED * points[0].p99_ms))


def _point(load: float, served: Sequence[Served], seconds: float) -> Point:
    answered = sorted(one.seconds for one in served if one.seconds is not None)
    shed = sorted(one.shed_seconds for one in served if one.shed_seconds is not None)
    lost = len(served) - len(answered) - len(shed)
    rates = (len(each) / seconds for each in (served, answered, shed))
    return Point(load, *rates, lost / seconds, _ms(answered, 50), _ms(answered, 99), _ms(shed, 99))


def _recovery(served: Sequence[Served], began: float, *, good_ms: float) -> float:
    """Seconds from the end of the overload until those who come later are answered as before it."""
    for step in itertools.count():
        later = [one for one in served if one.at >= began + step * STEP_SECONDS]
        if len(later) < LEAST_REQUESTS:
            break
        point = _point(0.0, later, 1.0)
        if point.p99_ms <= good_ms and point.shed + point.lost <= 0.01 * point.offered:
            return step * STEP_SECONDS
    return math.inf


def _ms(ordered: Sequence[float], percent: int) -> float:
    if len(ordered) < 2:
        return ordered[0] * 1000.0 if ordered else math.nan
    return statistics.quantiles(ordered, n=100, method="inclusive")[percent - 1] * 1000.0


def show(courses: Sequence[Course], *, capacity: float, subject: str, as_json: bool) -> None:
    """Prints the courses, as two tables or as one JSON object."""
    if as_json:
        print(json.dumps({"capacity": capacity, "courses": [_plain(each) for each in courses]}))  # noqa: T201
        return
    console = Console()
    console.print(_points(courses, capacity, subject))
    console.print(_ratios(courses, capacity, subject))


def _plain(each: Course) -> dict[str, object]:
    figures: dict[str, object] = {
        "subject": each.subject,
        "goodput_ratio_2x": each.goodput_ratio(2.0),
        "p99_ratio_2x": each.p99_ratio(2.0),
        "shed_ratio_2x": each.shed_ratio(2.0),
        "recovery_seconds": each.recovery_seconds,
    }
    finite = {
        name: value if not isinstance(value, float) or math.isfinite(value) else None for name, value in figures.items()
    }
    points = [
        {name: value if math.isfinite(value) else None for name, value in asdict(point).items()}
        for point in each.points
    ]
    return {**finite, "points": points}


def _points(courses: Sequence[Course], capacity: float, subject: str) -> Table:
    table = Table(title=f"requests per second, of which {capacity:.0f} can be served; milliseconds", box=None)
    table.add_column(subject, overflow="fold")
    for heading in ("load", "offered", "answered", "sent away", "lost", "p50", "p99", "sent away\np99"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in courses:
        for number, point in enumerate(each.points):
            rates = (
                point.offered,
                point.goodput,
                point.shed,
                point.lost,
                point.p50_ms,
                point.p99_ms,
                point.shed_p99_ms,
            )
            cells = ("-" if math.isnan(rate) else f"{rate:.0f}" for rate in rates)
            table.add_row("" if number else each.subject, f"{point.load:g}x", *cells)
    return table


def _ratios(courses: Sequence[Course], capacity: float, subject: str) -> Table:
    table = Table(title="ratios; asked for: goodput >= 0.9, p99 <= 3, recovery <= 10 s, sent away <= 0.1", box=None)
    table.add_column(subject, overflow="fold")
    for heading in (
        "peak/\ncapacity",
        "goodput\n2x/peak",
        "4x/peak",
        "p99\n2x/0.7x",
        "4x/0.7x",
        "sent away\np99/p50",
        "recovery\ns",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in courses:
        ratios = (
            each.peak / capacity,
            *(each.goodput_ratio(load) for load in (2.0, 4.0)),
            *(each.p99_ratio(load) for load in (2.0, 4.0)),
            each.shed_ratio(2.0),
        )
        recovery = "never" if math.isinf(each.recovery_seconds) else f"{each.recovery_seconds:.1f}"
        table.add_row(each.subject, *("-" if math.isnan(ratio) else f"{ratio:.2f}" for ratio in ratios), recovery)
    return table
