"""What a score is worth before any rule: its deferral curve, how well calibrated it is, and its histogram."""

from dataclasses import dataclass

import numpy as np

from marginal.evaluation.intervals import Interval, wilson
from marginal.evaluation.replay import Answers, Floats, Replayed
from marginal.policy.calibration import pool

POINTS = 101
BINS = 12
BARS = 25


@dataclass(frozen=True, slots=True)
class Bin:
    """About a twelfth of the rows: the mean place of their scores in [0, 1], how often they are right, and isotonic."""

    place: float
    rows: int
    right: float
    interval: Interval
    isotonic: float


@dataclass(frozen=True, slots=True)
class View:
    """One score over the rows of the stream.

    `deferral` is the accuracy when the least sure share is deferred, at 101 shares from 0 to 1. `auroc` is how often a
    right small answer scores above a wrong one, ties counting half. The histogram counts right and wrong small answers
    by the score's place in [0, 1], in 25 bars. `unscored` rows have no score; they are deferred first.
    """

    score: str
    deferral: tuple[float, ...]
    auroc: float | None
    calibration: tuple[Bin, ...]
    right: tuple[int, ...]
    wrong: tuple[int, ...]
    unscored: int


def view(replayed: Replayed, judged: Answers, rows: slice) -> View:
    """Looks at one score on these rows."""
    places, small = replayed.places[rows], judged.small[rows]
    scored = ~np.isnan(places)
    edges = np.linspace(0.0, 1.0, BARS + 1)
    bars = [np.histogram(np.clip(places[scored & (small == kind)], 0.0, 1.0), edges)[0].tolist() for kind in (1.0, 0.0)]
    return View(
        replayed.choice.label,
        tuple(_deferral(replayed, judged, rows).tolist()),
        _auroc(places[scored], small[scored]),
        _calibration(places[scored], small[scored]),
        tuple(bars[0]),
        tuple(bars[1]),
        int((~scored).sum()),
    )


def area(replayed: Replayed, judged: Answers, rows: slice) -> float:
    """The area under the deferral curve on these rows."""
    return float(np.trapezoid(_deferral(replayed, judged, rows), dx=1.0 / (POINTS - 1)))


def _deferral(replayed: Replayed, judged: Answers, rows: slice) -> Floats:
    """Accuracy by the share deferred; rows of equal score are deferred together, straight lines between."""
    scores = np.where(np.isnan(replayed.values[rows]), -np.inf, replayed.values[rows])
    by_score = np.argsort(scores, kind="stable")
    gained = np.concatenate([[0.0], np.cumsum((judged.large[rows] - judged.small[rows])[by_score])])
    ordered = scores[by_score]
    ends = np.concatenate([[0], np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True)) + 1])
    count = len(scores)
    shares = np.linspace(0.0, 1.0, POINTS)
    curve: Floats = judged.small[rows].mean() + np.interp(shares, ends / count, gained[ends] / count)
    return curve


def _auroc(places: Floats, right: Floats) -> float | None:
    good, bad = np.sort(places[right == 1.0]), np.sort(places[right == 0.0])
    if not len(good) or not len(bad):
        return None
    under = np.searchsorted(bad, good, side="left") + np.searchsorted(bad, good, side="right")
    return float(under.sum() / (2.0 * len(good) * len(bad)))


def _calibration(places: Floats, right: Floats) -> tuple[Bin, ...]:
    by_place = np.argsort(places, kind="stable")
    parts = [part for part in np.array_split(by_place, BINS) if len(part)]
    fitted = pool([float(right[part].mean()) for part in parts], [len(part) for part in parts])
    return tuple(
        Bin(
            float(places[part].mean()),
            len(part),
            float(right[part].mean()),
            wilson(int(right[part].sum()), of=len(part)),
            isotonic,
        )
        for part, isotonic in zip(parts, fitted, strict=True)
    )
