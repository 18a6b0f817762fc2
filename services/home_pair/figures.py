"""Figures over graded answers: intervals, AUROC, calibration by decile, accuracy by share deferred."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

_Z = 1.959964


def interval(right: int, asked: int) -> tuple[float, float]:
    """Gives the 95 % Wilson interval of a share."""
    share = right / asked
    centre = share + _Z**2 / (2 * asked)
    reach = _Z * (share * (1 - share) / asked + _Z**2 / (4 * asked**2)) ** 0.5
    scale = 1 + _Z**2 / asked
    return (centre - reach) / scale, (centre + reach) / scale


def auroc(scores: Sequence[float], right: Sequence[bool]) -> float | None:
    """Gives the chance that a right answer scores above a wrong one, ties half; None without one of each."""
    wrong = sorted(score for score, good in zip(scores, right, strict=True) if not good)
    good = [score for score, good in zip(scores, right, strict=True) if good]
    if not wrong or not good:
        return None
    below = sum(bisect_left(wrong, score) + bisect_right(wrong, score) for score in good)
    return below / (2 * len(good) * len(wrong))


def deciles(scores: Sequence[float], right: Sequence[bool]) -> list[tuple[float, float, float]]:
    """Cuts the answers into ten by score: lowest score, highest score and accuracy of each tenth."""
    ranked = sorted(zip(scores, right, strict=True))
    tenths = [ranked[len(ranked) * i // 10 : len(ranked) * (i + 1) // 10] for i in range(10)]
    return [(tenth[0][0], tenth[-1][0], sum(good for _, good in tenth) / len(tenth)) for tenth in tenths if tenth]


def deferral(
    scores: Sequence[float], small: Sequence[bool], large: Sequence[bool]
) -> list[tuple[int, float, float, float]]:
    """Defers the least sure 0, 10, ... 100 %: percent, threshold, accuracy so, accuracy of deferring at random."""
    order = sorted(range(len(scores)), key=scores.__getitem__)
    rows = []
    for percent in range(0, 101, 10):
        cut = len(order) * percent // 100
        right = sum(large[i] for i in order[:cut]) + sum(small[i] for i in order[cut:])
        threshold = scores[order[cut]] if cut < len(order) else 1.0
        chance = (sum(large) * percent + sum(small) * (100 - percent)) / 100
        rows.append((percent, threshold, right / len(order), chance / len(order)))
    return rows
