"""Replays recorded answers under a score and prices them: what each row would have scored, seen and cost.

The score objects of production watch the recorded tokens, once per row. Everything a threshold may ask afterwards is
then a look-up: the exact score, the token at which it is known, and at which token a given threshold would already
have deferred (the first whose upper bound is below it, which is what `Deferral` does).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from marginal.errors import ConfigurationError
from marginal.evaluation.results import LARGE, Row, Run
from marginal.policy.evidence import EvidenceGap
from marginal.policy.scores import QUANTILE, SCORES

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ScoreChoice:
    """A registered score, the window it looks at (0 is the whole answer) and the quantile it takes, if it takes one."""

    name: str
    window: int = 0
    quantile: float = QUANTILE

    @property
    def label(self) -> str:
        """As it is written on the command line, e.g. `min_margin:8`."""
        parts = [self.name]
        if self.window or self.quantile != QUANTILE:
            parts.append(str(self.window))
        if self.quantile != QUANTILE:
            parts.append(f"{self.quantile:g}")
        return ":".join(parts)


def score_choice(written: str) -> ScoreChoice:
    """Reads NAME[:WINDOW[:QUANTILE]]. Raises ConfigurationError."""
    name, *rest = written.split(":")
    if name not in SCORES:
        raise ConfigurationError(f"--scores: {name} is no score, there are {', '.join(SCORES)}")
    try:
        window = int(rest[0]) if rest else 0
        quantile = float(rest[1]) if len(rest) > 1 else QUANTILE
    except ValueError:
        raise ConfigurationError(f"--scores: {written} is not NAME[:WINDOW[:QUANTILE]], as min_margin:8") from None
    if len(rest) > 2 or window < 0 or not 0.0 < quantile < 1.0:
        raise ConfigurationError(
            f"--scores: {written} is not NAME[:WINDOW[:QUANTILE]] with a window >= 0 and a quantile between 0 and 1"
        )
    return ScoreChoice(name, window, quantile)


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """The rows that can be judged, as columns: who is right (0 or 1), and what guessing among the choices gives.

    `left_out` counts the rows for which nobody knows whether both tiers are right.
    """

    rows: tuple[Row, ...]
    small: Floats
    large: Floats
    guess: Floats
    left_out: int


def answers(run: Run) -> Answers:
    """The columns of a run. Raises ConfigurationError when no row can be judged.

    With labels of the large tier that tier is right by definition, and the small one where both agree.
    """
    judged = [(row, *_correct(row, by_large=run.header.labels == LARGE)) for row in run.rows]
    known = [(row, small, large) for row, small, large in judged if small is not None and large is not None]
    if not known:
        raise ConfigurationError(f"{run.name}: no row says of both tiers whether they are right, nothing to evaluate")
    return Answers(
        rows=tuple(row for row, _, _ in known),
        small=np.array([small for _, small, _ in known], dtype=np.float64),
        large=np.array([large for _, _, large in known], dtype=np.float64),
        guess=np.array([1.0 / len(row.choices) if row.choices else 0.0 for row, _, _ in known]),
        left_out=len(judged) - len(known),
    )


def _correct(row: Row, *, by_large: bool) -> tuple[bool | None, bool | None]:
    if by_large:
        return (row.small.correct if row.agrees is None else row.agrees), True
    return row.small.correct, row.large.correct


@dataclass(frozen=True, slots=True, eq=False)
class Replayed:
    """What one score says of every row.

    `values` are NaN without a score; `places` are they on the score's scale in [0, 1]. `seen` is the number of tokens
    at which the value, or that there is none, is known. `highs` are each row's upper bounds token by token.
    """

    choice: ScoreChoice
    values: Floats
    places: Floats
    seen: Ints
    highs: tuple[Floats, ...]

    @property
    def scored(self) -> Bools:
        """The rows that have a score."""
        return ~np.isnan(self.values)

    def same_as(self, other: "Replayed") -> bool:
        """Whether the other score says the same of every row, so that one of the two says it all."""
        return (
            np.array_equal(self.values, other.values, equal_nan=True)
            and np.array_equal(self.seen, other.seen)
            and all(map(np.array_equal, self.highs, other.highs))
        )

    def seen_at(self, row: int, places: Floats) -> Ints:
        """Tokens seen when a threshold at each of these places defers the row as early as that is certain."""
        highs = self.highs[row]
        if not len(highs):
            return np.full(places.shape, self.seen[row])
        first = np.searchsorted(-highs, -places.ravel(), side="right") + 1
        seen: Ints = np.minimum(first, self.seen[row]).reshape(places.shape)
        return seen


def replay(rows: Sequence[Row], choice: ScoreChoice) -> Replayed:
    """Lets the score watch every row. Rows without tokens have the score that was recorded, and nothing to abort."""
    watched = [_watch(row, choice) for row in rows]
    place = SCORES[choice.name].scale.place
    values = np.array([np.nan if value is None else value for value, _, _ in watched])
    return Replayed(
        choice,
        values,
        np.array([np.nan if value is None else place(value) for value, _, _ in watched]),
        np.array([seen for _, seen, _ in watched], dtype=np.int64),
        tuple(np.array([place(high) for high in highs]) if seen > 1 else _NO_BOUNDS for _, seen, highs in watched),
    )


_NO_BOUNDS = np.empty(0)


def _watch(row: Row, choice: ScoreChoice) -> tuple[float | None, int, Sequence[float]]:
    """The score, the tokens until it is known, and its upper bounds on the way."""
    if not row.tokens:
        return row.scores.get(choice.label, row.scores.get(choice.name)), max(1, row.small.usage.output_tokens), ()
    score = SCORES[choice.name].start(window=choice.window, choices=row.choices, quantile=choice.quantile)
    highs: list[float] = []
    try:
        for token in row.tokens:
            score.observe(token)
            bounds = score.bounds
            highs.append(bounds.high)
            if bounds.exact:
                return bounds.high, len(highs), highs
        return score.final(), len(row.tokens), highs
    except EvidenceGap:
        return None, min(len(highs) + 1, len(row.tokens)), highs
