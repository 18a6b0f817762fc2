"""How sure the small model is, from its tokens: higher is surer, and every score states its range.

A score is a class with `observe(token)` and `bounds`: the interval its final value is certain to lie in, given the
tokens seen so far and whatever may still come. The interval shrinks to a point when the window is full or the answer
has ended, so a rule can decide as soon as one side of the threshold is out of reach. To add a score, write what it
reads at one position in `evidence.py`, choose or write the class that gathers it, and register both.
"""

import math
from bisect import insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from marginal.policy import evidence
from marginal.policy.evidence import ClassMasses, EvidenceGap, Gap
from marginal.policy.readings import Reading
from marginal.policy.scales import LINEAR, LOGIT, LOGPROB, UNIT, Scale
from marginal.tokens import Token

QUANTILE = 0.1
"""The quantile that `quantile_margin` takes unless told: nearly the weakest token, but not an outlier."""

ROUNDING = 1e-9
"""0.07 of 100 is 7, though not in floating point."""


class Bounds(NamedTuple):
    """The interval [low, high] a score's final value is certain to lie in; a tuple, as one is made for every token."""

    low: float
    high: float

    @property
    def exact(self) -> bool:
        """Whether the value is known."""
        return self.low == self.high


class Score(Protocol):
    """A running score over the tokens of one answer."""

    window: int
    """Tokens it looks at; 0 is the whole answer."""

    @property
    def bounded(self) -> bool:
        """Whether it read a class that is outside the alternatives and counts with the most it can have there.

        The final value is then a lower bound, on the terms of `ClassMasses`.
        """
        ...

    def observe(self, token: Token) -> None:
        """Takes the next token within the window. Raises EvidenceGap."""
        ...

    @property
    def bounds(self) -> Bounds:
        """Where the final value lies if the answer goes on."""
        ...

    def final(self) -> float:
        """The value if the answer ends here. Raises EvidenceGap when nothing was there to be read."""
        ...


class _Gathered:
    """What scores of one or more readings have in common."""

    def __init__(self, read: Reading, scale: Scale, window: int) -> None:
        self.window = window
        self._reading = read
        self._read = read.at  # a call through an instance would cost more, and one is made for every token
        self._scale = scale
        self._seen = 0

    @property
    def bounded(self) -> bool:
        return self._reading.bounded


class _First(_Gathered):
    """The reading at one token: the first of the answer, or the first that satisfies `wanted`."""

    def __init__(self, read: Reading, scale: Scale, window: int, wanted: Callable[[Token], bool] | None = None) -> None:
        super().__init__(read, scale, window)
        self._wanted = wanted
        self._bounds = Bounds(scale.low, scale.high)
        self._value: float | None = None

    def observe(self, token: Token) -> None:
        self._seen += 1
        if self._value is not None:
            return
        if self._wanted is None or self._wanted(token):
            # a class set is compared wherever the answer begins to say something
            self._value = self._read(token, 0)
            self._bounds = Bounds(self._value, self._value)
        elif self._seen == self.window:
            raise EvidenceGap(Gap.NO_CONTENT)

    @property
    def bounds(self) -> Bounds:
        return self._bounds

    def final(self) -> float:
        if self._value is None:
            raise EvidenceGap(Gap.NO_CONTENT if self._seen else Gap.NO_TOKENS)
        return self._value


class _Least(_Gathered):
    """The smallest reading within the window: a chain is as sure as its weakest token."""

    def __init__(self, read: Reading, scale: Scale, window: int) -> None:
        super().__init__(read, scale, window)
        self._least = scale.high

    def observe(self, token: Token) -> None:
        self._least = min(self._least, self._read(token, self._seen))
        self._seen += 1

    @property
    def bounds(self) -> Bounds:
        return Bounds(self._least if self._seen == self.window > 0 else self._scale.low, self._least)

    def final(self) -> float:
        if not self._seen:
            raise EvidenceGap(Gap.NO_TOKENS)
        return self._least


class _Mean(_Gathered):
    """The mean reading within the window."""

    def __init__(self, read: Reading, scale: Scale, window: int) -> None:
        super().__init__(read, scale, window)
        self._total = 0.0

    def observe(self, token: Token) -> None:
        self._total += self._read(token, self._seen)
        self._seen += 1

    @property
    def bounds(self) -> Bounds:
        low, high, left = self._scale.low, self._scale.high, self.window - self._seen
        if not self.window:
            return Bounds(low, high)
        if not left:
            return Bounds(self.final(), self.final())
        return Bounds(
            max(low, (self._total + left * low) / self.window), min(high, (self._total + left * high) / self.window)
        )

    def final(self) -> float:
        if not self._seen:
            raise EvidenceGap(Gap.NO_TOKENS)
        return min(self._scale.high, max(self._scale.low, self._total / self._seen))


class _Quantile(_Gathered):
    """The reading that a share `quantile` of the window's readings does not exceed (the nearest rank)."""

    def __init__(self, read: Reading, scale: Scale, window: int, quantile: float) -> None:
        super().__init__(read, scale, window)
        self._quantile = quantile
        self._sorted: list[float] = []

    def observe(self, token: Token) -> None:
        insort(self._sorted, self._read(token, len(self._sorted)))

    @property
    def bounds(self) -> Bounds:
        if not self.window:
            return Bounds(self._scale.low, self._scale.high)
        rank, seen = self._rank(self.window), len(self._sorted)
        lowest = rank - (self.window - seen)
        return Bounds(
            self._sorted[lowest] if lowest >= 0 else self._scale.low,
            self._sorted[rank] if rank < seen else self._scale.high,
        )

    def final(self) -> float:
        if not self._sorted:
            raise EvidenceGap(Gap.NO_TOKENS)
        return self._sorted[self._rank(len(self._sorted))]

    def _rank(self, count: int) -> int:
        return max(1, math.ceil(self._quantile * count - ROUNDING)) - 1


@dataclass(frozen=True, slots=True)
class ScoreKind:
    """A registered score: what it is in words, its range, how many alternatives it reads, and where it comes from.

    `read_choices` reads a class set where one is declared, None when the score does not care for it. `one_token` says
    that it reads a single token whatever the window.
    """

    name: str
    says: str
    source: str
    scale: Scale
    gather: Callable[[Reading, Scale, int, float], Score]
    read: Callable[[Token], float]
    read_choices: Callable[[ClassMasses], float] | None
    alternatives: int
    one_token: bool = False

    def start(self, *, window: int = 0, choices: Sequence[str] = (), quantile: float = QUANTILE) -> Score:
        """Begins to judge an answer. Over `choices` its first position, where the class shows, is read as classes."""
        return self.gather(Reading(self.read, self.read_choices, choices), self.scale, window, quantile)


def _first(read: Reading, scale: Scale, _: int, __: float) -> Score:
    return _First(read, scale, 1)


def _first_content(read: Reading, scale: Scale, window: int, _: float) -> Score:
    return _First(read, scale, window, evidence.bears_content)


def _least(read: Reading, scale: Scale, window: int, _: float) -> Score:
    return _Least(read, scale, window)


def _mean(read: Reading, scale: Scale, window: int, _: float) -> Score:
    return _Mean(read, scale, window)


_PAPER = "Ramírez, Birch, Titov, COLM 2024"
_DEPTH, _ALL = evidence.NEAR_DUPLICATE_DEPTH, evidence.MOST_ALTERNATIVES

SCORES: Mapping[str, ScoreKind] = {
    kind.name: kind
    for kind in (
        ScoreKind(
            "first_token_margin", "p(top-1) − p(top-2) at the first token, near-duplicate surface forms skipped",  # noqa: RUF001
            _PAPER, UNIT, _first, evidence.open_margin, evidence.choice_margin, _DEPTH, one_token=True,
        ),
        ScoreKind(
            "first_token_logit_margin", "the same as a difference of logits",
            f"{_PAPER}: the form of its code", LOGIT, _first,
            evidence.open_logit_margin, evidence.choice_logit_margin, _DEPTH, one_token=True,
        ),
        ScoreKind(
            "first_content_margin", "the first-token margin at the first token with a letter or a digit",
            "arXiv 2605.05166, First Token Knows", UNIT, _first_content,
            evidence.open_margin, evidence.choice_margin, _DEPTH,
        ),
        ScoreKind(
            "mean_margin", "the mean of p(top-1) − p(top-2) over the window",  # noqa: RUF001
            "arXiv 2404.10136, Chow-Average", UNIT, _mean, evidence.margin, evidence.choice_margin, 2,
        ),
        ScoreKind(
            "min_margin", "the smallest margin in the window",
            "arXiv 2404.10136, quantile 0", UNIT, _least, evidence.margin, evidence.choice_margin, 2,
        ),
        ScoreKind(
            "quantile_margin", "the margin that a share `quantile` of the window does not exceed",
            "arXiv 2404.10136, quantiles", UNIT, _Quantile, evidence.margin, evidence.choice_margin, 2,
        ),
        ScoreKind(
            "mean_logprob", "the mean log-probability of the generated tokens",
            "arXiv 2605.02241", LOGPROB, _mean, evidence.logprob, None, 1,
        ),
        ScoreKind(
            "max_probability", "the mean of p(top-1) over the window",
            "Chow 1970; arXiv 2307.02764", UNIT, _mean, evidence.max_probability, evidence.class_probability, 2,
        ),
        ScoreKind(
            "entropy", "minus the mean entropy over the window, what the alternatives leave over counted",
            "arXiv 2605.05166, First Token Knows", LINEAR, _mean,
            evidence.negative_entropy, evidence.negative_class_entropy, _ALL,
        ),
    )
}  # fmt: skip
"""Every score by its name."""


def judge(
    name: str, tokens: Sequence[Token], *, window: int = 0, choices: Sequence[str] = (), quantile: float = QUANTILE
) -> float | None:
    """The score of a whole answer, over its first `window` tokens when that is not 0; None when there is no score."""
    score = SCORES[name].start(window=window, choices=choices, quantile=quantile)
    try:
        for token in tokens[: score.window or None]:
            score.observe(token)
        return score.final()
    except EvidenceGap:
        return None


def alternatives_wanted(name: str, *, choices: Sequence[str]) -> int:
    """How many alternatives per token the score of that name looks at; more would only cost the engine and the wire."""
    return evidence.MOST_ALTERNATIVES if choices else SCORES[name].alternatives
