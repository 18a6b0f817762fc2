"""The bootstrap over rows: the same resamples for everything of a run, so that differences are compared row by row."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from marginal.evaluation.intervals import Interval
from marginal.evaluation.replay import Floats

RESAMPLES = 1_000
SEED = 2024
BLOCK_CELLS = 10_000_000
"""Counts that are weighed at once, to bound memory."""


class Resamples:
    """How often each of `rows` rows is drawn in each resample."""

    def __init__(self, rows: int, *, resamples: int = RESAMPLES, seed: int = SEED) -> None:
        drawing = np.random.default_rng(seed)
        self._rows = rows
        self._counts: NDArray[np.uint8] = np.stack(
            [np.bincount(drawing.integers(0, rows, rows), minlength=rows).astype(np.uint8) for _ in range(resamples)]
        )

    def means(self, columns: Floats | NDArray[np.float32]) -> Floats:
        """The mean of each column, [row, column], in each resample: [resample, column]."""
        single = columns.astype(np.float32)
        return np.concatenate([block @ single for block in self._blocks()]).astype(np.float64) / self._rows

    def _blocks(self) -> Iterator[NDArray[np.float32]]:
        block = max(1, BLOCK_CELLS // self._rows)
        for start in range(0, len(self._counts), block):
            yield self._counts[start : start + block].astype(np.float32)


def interval(resampled: Floats) -> Interval:
    """The 95 % percentile interval of one figure's resamples."""
    low, high = np.percentile(resampled, (2.5, 97.5))
    return Interval(float(low), float(high))
