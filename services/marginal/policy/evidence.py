"""What the alternatives at one position say: margins, probabilities, entropy. Pure functions of one token.

Evidence that is missing, truncated or impossible is an EvidenceGap with its reason: never 0, and never "sure".
"""

import math
import operator
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from marginal.tokens import Alternative, Token

_LOGPROB = operator.attrgetter("logprob")

NEAR_DUPLICATE_DEPTH = 10
"""Alternatives looked at for a distinct competitor (guillemram97/margin_llms, obtain_margin.py)."""

MOST_ALTERNATIVES = 20

LEAST_LOGPROB = -100.0
"""Log-probabilities below are counted as this much: engines clamp or round there in ways of their own."""


class Gap(Enum):
    """Why there is no score."""

    MISSING = "missing"
    TRUNCATED = "truncated"
    NOT_FINITE = "not_finite"
    OUTSIDE_CHOICES = "outside_choices"
    NO_CONTENT = "no_content"
    NO_TOKENS = "no_tokens"


class EvidenceGap(Exception):
    """A token came without the evidence that the score needs: there is no score, for `reason`."""

    def __init__(self, reason: Gap) -> None:
        super().__init__(reason.value)
        self.reason = reason


def margin(token: Token) -> float:
    """p(top-1) - p(top-2) at one position, in [0, 1]. Raises EvidenceGap without two finite alternatives."""
    logprobs = _logprobs(token)
    best = max(logprobs)
    logprobs.remove(best)
    return math.exp(best) - math.exp(max(logprobs))


def logprob(token: Token) -> float:
    """The generated token's own log-probability, in [-100, 0]. Raises EvidenceGap when it has no finite one."""
    if token.logprob is None:
        raise EvidenceGap(Gap.MISSING)
    if not -math.inf < token.logprob <= 0.0:
        raise EvidenceGap(Gap.NOT_FINITE)
    return max(LEAST_LOGPROB, token.logprob)


def open_margin(token: Token) -> float:
    """p(top-1) minus the best *distinct* competitor's, in [0, 1]: near-duplicate surface forms are skipped.

    A competitor whose normalised text contains, or is contained in, that of the top token (" the", "The", a prefix) is
    the same answer; when the top ten hold no other, the least of them bounds what a distinct one could have. Source:
    guillemram97/margin_llms, obtain_margin.py. Raises EvidenceGap.
    """
    best, rival = _rivals(token)
    return math.exp(best) - math.exp(rival)


def open_logit_margin(token: Token) -> float:
    """The same in logits, in [0, 100]: a difference of logits is one of log-probabilities. Raises EvidenceGap."""
    best, rival = _rivals(token)
    return min(-LEAST_LOGPROB, best - rival)


class ClassMasses(NamedTuple):
    """Probabilities that the classes of a declared set have at one position, and the most that unlisted ones can have.

    When `bounded`, a class lies outside the alternatives and counts with that most: scores over these masses are then
    lower bounds of what the whole distribution would give, if such a class begins with one token, its own. A class's
    further spellings outside the alternatives can make a margin look surer than it is, bounded or not, though by no
    more than 2r / (s + r), where r is the probability the alternatives leave over and s what they give the classes.
    A class that begins with part of a character is not recognised among them, and nothing limits how much surer then.
    """

    listed: list[float]
    """Of the classes that alternatives begin, the best first; empty when there is none."""
    unlisted: int
    """How many classes no alternative begins."""
    most: float
    """The most that one of those can have: what the alternatives leave over, and no more than the least of them."""
    most_together: float

    @property
    def bounded(self) -> bool:
        """Whether a class lies outside the alternatives."""
        return self.unlisted > 0


def class_masses(token: Token, choices: Sequence[str]) -> ClassMasses:
    """What the alternatives say about each class of a set: the summed probability of those that begin it.

    Two classes that begin alike cannot be told apart by the first token and have the same. Raises EvidenceGap when the
    token itself begins none: the answer is then outside the class set, and nothing said of the classes speaks for it.
    """
    ranked = _ranked(token)
    names = [_normalised(choice) for choice in choices]
    own = _normalised(token.text)
    if not any(_begins(name, own) for name in names):
        raise EvidenceGap(Gap.OUTSIDE_CHOICES)
    pieces = [(_normalised(other.text), math.exp(other.logprob)) for other in ranked]
    masses = [math.fsum(share for piece, share in pieces if _begins(name, piece)) for name in names]
    listed = sorted((mass for mass in masses if mass > 0.0), reverse=True)
    unlisted, least = len(masses) - len(listed), pieces[-1][1]
    residual = max(0.0, 1.0 - math.fsum(share for _, share in pieces))
    return ClassMasses(listed, unlisted, min(residual, least), min(residual, unlisted * least))


def class_shares(masses: ClassMasses) -> list[float]:
    """What each class is worth among all, the best first; those without an alternative share alike. Sums to 1."""
    if not masses.listed:
        return [1.0 / masses.unlisted] * masses.unlisted
    each = [masses.most_together / masses.unlisted] * masses.unlisted if masses.unlisted else []
    total = math.fsum(masses.listed) + masses.most_together
    return sorted((mass / total for mass in (*masses.listed, *each)), reverse=True)


def choice_margin(masses: ClassMasses) -> float:
    """Margin between the two best classes, normalised over the class set, in [0, 1]."""
    best, rival = _best_two(masses)
    total = math.fsum(masses.listed) + masses.most_together
    return min(1.0, max(0.0, (best - rival) / total)) if masses.listed else 0.0


def choice_logit_margin(masses: ClassMasses) -> float:
    """The same in logits over the class tokens, in [0, 100] (the form of obtain_margin.py)."""
    best, rival = _best_two(masses)
    return min(-LEAST_LOGPROB, max(0.0, math.log(best / rival))) if rival > 0.0 else -LEAST_LOGPROB


def _best_two(masses: ClassMasses) -> tuple[float, float]:
    """Masses of the best class and of the most dangerous other; alike when nothing is known of any."""
    if not masses.listed:
        return 1.0, 1.0
    second = masses.listed[1] if len(masses.listed) > 1 else 0.0
    return masses.listed[0], max(second, masses.most) if masses.unlisted else second


def class_probability(masses: ClassMasses) -> float:
    """The share of the best class, in [0, 1]."""
    return min(1.0, class_shares(masses)[0])


def negative_class_entropy(masses: ClassMasses) -> float:
    """Minus the entropy of the classes in nats, in [-ln 64, 0] for up to 64 of them."""
    return math.fsum(share * math.log(share) for share in class_shares(masses) if share > 0.0)


def max_probability(token: Token) -> float:
    """p(top-1), in [0, 1] (Chow's rule). Raises EvidenceGap."""
    return math.exp(max(_logprobs(token)))


def negative_entropy(token: Token) -> float:
    """Minus the entropy in nats, in [-ln 21, 0] for up to 20 alternatives.

    The probability that the listed alternatives leave over counts as one more outcome, so that a truncated list never
    looks surer than it is. Raises EvidenceGap.
    """
    logprobs = _logprobs(token)
    shares = list(map(math.exp, logprobs))
    rest = 1.0 - sum(shares)
    listed: float = sum(map(operator.mul, shares, logprobs))
    return listed + (rest * math.log(rest) if rest > 0.0 else 0.0)


def bears_content(token: Token) -> bool:
    """Whether the token's text has a letter or a digit, and is not only white space, punctuation or mark-up."""
    return any(map(str.isalnum, token.text))


def _logprobs(token: Token) -> list[float]:
    """The alternatives' log-probabilities, at least two, none below -100. Raises EvidenceGap.

    An engine that samples from a cut list gives what it cut minus infinity; a sum is NaN when a term is.
    """
    logprobs = [other.logprob for other in token.alternatives]
    if not logprobs:
        raise EvidenceGap(Gap.MISSING)
    total = sum(logprobs)
    if total != total or max(logprobs) > 0.0:
        raise EvidenceGap(Gap.NOT_FINITE)
    if len(logprobs) < 2:
        raise EvidenceGap(Gap.TRUNCATED)
    return logprobs if total >= LEAST_LOGPROB else [max(LEAST_LOGPROB, each) for each in logprobs]


def _ranked(token: Token) -> list[Alternative]:
    _logprobs(token)
    return sorted(token.alternatives, key=_LOGPROB, reverse=True)


def _rivals(token: Token) -> tuple[float, float]:
    """Log-probabilities of the top token and of its best distinct competitor."""
    ranked = _ranked(token)[:NEAR_DUPLICATE_DEPTH]
    top = _normalised(ranked[0].text)
    distinct = (other for other in ranked[1:] if not _same_surface(top, _normalised(other.text)))
    return ranked[0].logprob, max(LEAST_LOGPROB, next(distinct, ranked[-1]).logprob)


def _begins(choice: str, piece: str) -> bool:
    return bool(piece) and choice.startswith(piece)


def _normalised(text: str) -> str:
    return text.strip().casefold()


def _same_surface(one: str, other: str) -> bool:
    """Whether one contains the other; the end of the answer, which has no text, is a competitor like any."""
    return bool(one) == bool(other) and (one in other or other in one)
