"""How sure the small model is, from its tokens: higher is surer, every score lies in [0, 1].

A score is a class with `observe(token)` and `bounds`: the interval its final value is certain to lie in, given the
tokens seen so far and whatever may still come. The interval shrinks to a point when the window is full or the answer
has ended, so a rule can decide as soon as one side of the threshold is out of reach. To add a score, write one class
and register it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from marginal.tokens import Alternative, Token

MOST_ALTERNATIVES = 20

NEAR_DUPLICATE_DEPTH = 10
"""Alternatives looked at for a distinct competitor (guillemram97/margin_llms, obtain_margin.py)."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The interval [low, high] a score's final value is certain to lie in."""

    low: float
    high: float

    @property
    def exact(self) -> bool:
        """Whether the value is known."""
        return self.low == self.high


UNKNOWN = Bounds(0.0, 1.0)


class EvidenceGap(Exception):
    """A token came without the finite log-probabilities that the score needs: there is no score."""


class Score(Protocol):
    """A running score over the tokens of one answer."""

    window: int
    """Tokens it looks at; 0 is the whole answer."""

    def observe(self, token: Token) -> None:
        """Takes the next token within the window. Raises EvidenceGap."""
        ...

    @property
    def bounds(self) -> Bounds:
        """Where the final value lies if the answer goes on."""
        ...

    def final(self) -> float | None:
        """The value if the answer ends here; None when no token was observed."""
        ...


def margin(token: Token) -> float:
    """p(top-1) - p(top-2) at one position, in [0, 1]. Raises EvidenceGap without two finite alternatives."""
    ranked = _ranked(token)
    return _probability(ranked[0]) - _probability(ranked[1])


def open_margin(token: Token) -> float:
    """p(top-1) minus the best *distinct* competitor's, in [0, 1]: near-duplicate surface forms are skipped.

    A competitor whose normalised text contains, or is contained in, that of the top token (" the", "The", a prefix) is
    the same answer; when the top ten hold no other, the least of them bounds what a distinct one could have. Source:
    guillemram97/margin_llms, obtain_margin.py. Raises EvidenceGap.
    """
    ranked = _ranked(token)[:NEAR_DUPLICATE_DEPTH]
    top = _normalised(ranked[0].text)
    rivals = (other for other in ranked[1:] if not _same_surface(top, _normalised(other.text)))
    return _probability(ranked[0]) - _probability(next(rivals, ranked[-1]))


def choice_margin(token: Token, choices: Sequence[str]) -> float:
    """Margin between the two best classes, normalised over the class set, in [0, 1]; cautious when truncated.

    A class has the summed probability of the alternatives that begin it. One with none listed begins with a token of at
    most the smallest listed probability and at most what the listed ones leave over, and is counted with that. Two
    classes that begin alike cannot be told apart by the first token: margin 0. Raises EvidenceGap when the token itself
    begins none of them: the answer is then outside the class set, and nothing said about the classes speaks for it.
    """
    ranked = _ranked(token)
    if not any(_begins(_normalised(choice), _normalised(token.text)) for choice in choices):
        raise EvidenceGap
    listed = [_class_mass(choice, ranked) for choice in choices]
    present = sorted((mass for mass in listed if mass > 0.0), reverse=True)
    if not present:
        return 0.0
    missing = len(listed) - len(present)
    residual = max(0.0, 1.0 - math.fsum(map(_probability, ranked)))
    unseen = min(residual, _probability(ranked[-1])) if missing else 0.0
    runner_up = max(present[1] if len(present) > 1 else 0.0, unseen)
    total = math.fsum(present) + min(missing * unseen, residual)
    return min(1.0, max(0.0, (present[0] - runner_up) / total))


class FirstTokenMargin:
    """The margin at the first token, over the choices or the open vocabulary (the paper's score)."""

    def __init__(self, *, window: int = 1, choices: Sequence[str] = ()) -> None:  # noqa: ARG002 (always one)
        self.window = 1
        self._choices = choices
        self._value: float | None = None

    def observe(self, token: Token) -> None:
        self._value = choice_margin(token, self._choices) if self._choices else open_margin(token)

    @property
    def bounds(self) -> Bounds:
        return UNKNOWN if self._value is None else Bounds(self._value, self._value)

    def final(self) -> float | None:
        return self._value


class MinMargin:
    """The smallest margin within the window: a chain is as sure as its weakest token."""

    def __init__(self, *, window: int = 0, choices: Sequence[str] = ()) -> None:
        self.window = window
        self._choices = choices
        self._seen = 0
        self._least = 1.0

    def observe(self, token: Token) -> None:
        self._least = min(self._least, _margin_at(token, self._seen, self._choices))
        self._seen += 1

    @property
    def bounds(self) -> Bounds:
        return Bounds(self._least if self._seen == self.window > 0 else 0.0, self._least)

    def final(self) -> float | None:
        return self._least if self._seen else None


class MeanMargin:
    """The mean margin within the window."""

    def __init__(self, *, window: int = 0, choices: Sequence[str] = ()) -> None:
        self.window = window
        self._choices = choices
        self._margins: list[float] = []

    def observe(self, token: Token) -> None:
        self._margins.append(_margin_at(token, len(self._margins), self._choices))

    @property
    def bounds(self) -> Bounds:
        if not self.window:
            return UNKNOWN
        left = self.window - len(self._margins)
        if not left:
            mean = math.fsum(self._margins) / self.window
            return Bounds(mean, mean)
        total = math.fsum(self._margins)
        return Bounds(total / self.window, min(1.0, (total + left) / self.window))

    def final(self) -> float | None:
        return math.fsum(self._margins) / len(self._margins) if self._margins else None


SCORES: dict[str, Callable[..., Score]] = {
    "first_token_margin": FirstTokenMargin,
    "mean_margin": MeanMargin,
    "min_margin": MinMargin,
}


def alternatives_wanted(name: str, *, choices: Sequence[str]) -> int:
    """How many alternatives per token the score of that name looks at; more would only cost the engine and the wire."""
    if choices:
        return MOST_ALTERNATIVES
    return NEAR_DUPLICATE_DEPTH if SCORES[name] is FirstTokenMargin else 2


def _margin_at(token: Token, position: int, choices: Sequence[str]) -> float:
    """Over the choices at the first position, where the class shows; over the vocabulary elsewhere."""
    return choice_margin(token, choices) if choices and position == 0 else margin(token)


def _ranked(token: Token) -> Sequence[Alternative]:
    ranked = sorted(token.alternatives, key=lambda alternative: -alternative.logprob)
    if len(ranked) < 2 or not all(math.isfinite(other.logprob) and other.logprob <= 0.0 for other in ranked):
        raise EvidenceGap
    return ranked


def _probability(alternative: Alternative) -> float:
    return math.exp(alternative.logprob)


def _class_mass(choice: str, ranked: Sequence[Alternative]) -> float:
    begins = (other for other in ranked if _begins(_normalised(choice), _normalised(other.text)))
    return math.fsum(map(_probability, begins))


def _begins(choice: str, piece: str) -> bool:
    return bool(piece) and choice.startswith(piece)


def _normalised(text: str) -> str:
    return text.strip().casefold()


def _same_surface(one: str, other: str) -> bool:
    """Whether one contains the other; the end of the answer, which has no text, is a competitor like any."""
    return bool(one) == bool(other) and (one in other or other in one)
