"""What the alternatives at one position say: margins, probabilities, entropy. Pure functions of one token.

Evidence that is missing, truncated or impossible is an EvidenceGap with its reason: never 0, and never "sure".
"""

import math
import operator
from collections.abc import Sequence
from enum import Enum

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


def class_shares(token: Token, choices: Sequence[str]) -> list[float]:
    """What each class of a declared set is worth at this position, the best first; sums to at most 1.

    A class has the summed probability of the alternatives that begin it. Those with none listed have an equal part of
    what the listed ones leave over, each at most the smallest listed probability. Two classes that begin alike cannot
    be told apart by the first token and share alike. Raises EvidenceGap when the token itself begins none of them: the
    answer is then outside the class set, and nothing said about the classes speaks for it.
    """
    present, unseen, missing = _class_masses(token, choices)
    if not present:
        return [1.0 / len(choices)] * len(choices)
    masses = [*present, *[unseen / missing] * missing] if missing else present
    total = math.fsum(masses)
    return sorted((mass / total for mass in masses), reverse=True)


def _class_masses(token: Token, choices: Sequence[str]) -> tuple[list[float], float, int]:
    """Masses of the classes that are listed, the best first; the most the others have together; how many those are."""
    ranked = _ranked(token)
    names = [_normalised(choice) for choice in choices]
    own = _normalised(token.text)
    if not any(_begins(name, own) for name in names):
        raise EvidenceGap(Gap.OUTSIDE_CHOICES)
    pieces = [(_normalised(other.text), math.exp(other.logprob)) for other in ranked]
    masses = [math.fsum(share for piece, share in pieces if _begins(name, piece)) for name in names]
    present = sorted((mass for mass in masses if mass > 0.0), reverse=True)
    missing = len(masses) - len(present)
    residual = max(0.0, 1.0 - math.fsum(share for _, share in pieces))
    return present, min(residual, missing * pieces[-1][1]), missing


def choice_margin(token: Token, choices: Sequence[str]) -> float:
    """Margin between the two best classes, normalised over the class set, in [0, 1]; cautious when truncated.

    A class that is not listed counts with the most that any one of them can have. Raises EvidenceGap.
    """
    best, second, total = _best_two(token, choices)
    return min(1.0, max(0.0, (best - second) / total))


def choice_logit_margin(token: Token, choices: Sequence[str]) -> float:
    """The same in logits over the class tokens, in [0, 100] (the form of obtain_margin.py). Raises EvidenceGap."""
    best, second, _ = _best_two(token, choices)
    return min(-LEAST_LOGPROB, max(0.0, math.log(best / second))) if second > 0.0 else -LEAST_LOGPROB


def _best_two(token: Token, choices: Sequence[str]) -> tuple[float, float, float]:
    """Masses of the best class and of the most dangerous other, and of all together."""
    present, unseen, missing = _class_masses(token, choices)
    if not present:
        return 1.0, 1.0, float(len(choices))
    most = min(unseen, min(math.exp(other.logprob) for other in token.alternatives)) if missing else 0.0
    rival = max(present[1] if len(present) > 1 else 0.0, most)
    return present[0], rival, math.fsum(present) + unseen


def max_probability(token: Token, choices: Sequence[str] = ()) -> float:
    """p(top-1), over the choices when there are any, in [0, 1] (Chow's rule). Raises EvidenceGap."""
    return min(1.0, class_shares(token, choices)[0]) if choices else math.exp(max(_logprobs(token)))


def negative_entropy(token: Token, choices: Sequence[str] = ()) -> float:
    """Minus the entropy in nats, in [-ln 21, 0] for up to 20 alternatives, -ln 64 at least for 64 choices.

    The probability that the listed alternatives leave over counts as one more outcome, so that a truncated list never
    looks surer than it is. Raises EvidenceGap.
    """
    if choices:
        return math.fsum(share * math.log(share) for share in class_shares(token, choices) if share > 0.0)
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
