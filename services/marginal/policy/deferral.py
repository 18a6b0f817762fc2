"""The decision, sans I/O: feed it the small model's tokens, read a verdict; replay and production run this object.

Two rules: a verdict falls as soon as it is certain and never changes; without evidence there is no score, and the
policy says what then.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from marginal.policy.scores import SCORES, EvidenceGap, Score
from marginal.tokens import EarlyStop, Token


class Verdict(Enum):
    """What is to become of the small answer."""

    UNDECIDED = "undecided"
    KEEP = "keep"
    DEFER = "defer"


class Reason(Enum):
    """What a decision rests on."""

    SCORE = "score"
    NO_SCORE = "no_score"
    MODE = "mode"
    SMALL_UNAVAILABLE = "small_unavailable"


@dataclass(frozen=True, slots=True)
class Decision:
    """A final verdict with its score in [0, 1], None without evidence or when no score was asked for.

    When `censored` the verdict fell before the window was full: the score is an upper bound on DEFER, a lower on KEEP.
    """

    verdict: Verdict
    reason: Reason
    score_name: str = ""
    score: float | None = None
    threshold: float | None = None
    tokens_seen: int = 0
    censored: bool = False


class Deferral:
    """Watches one answer: `feed` every token, stop at a verdict, `finish` when the answer ends."""

    def __init__(self, rule: EarlyStop, *, choices: Sequence[str] = ()) -> None:
        """`rule` names a registered score, its window and the threshold in [0, 1] fixed for this answer."""
        self._rule = rule
        self._score: Score = SCORES[rule.score](window=rule.window, choices=choices)
        self._without_score = Verdict.DEFER if rule.defer_without_score else Verdict.KEEP
        self._tokens_seen = 0
        self._decision: Decision | None = None

    def feed(self, token: Token) -> Verdict:
        """Takes the next token and says whether the verdict is certain; after that further tokens change nothing."""
        if self._decision is not None:
            return self._decision.verdict
        self._tokens_seen += 1
        try:
            self._score.observe(token)
        except EvidenceGap:
            return self._decide(self._without_score, Reason.NO_SCORE, None).verdict
        bounds = self._score.bounds
        if bounds.high < self._rule.threshold:
            return self._decide(Verdict.DEFER, Reason.SCORE, bounds.high, censored=not bounds.exact).verdict
        if bounds.low >= self._rule.threshold:
            return self._decide(Verdict.KEEP, Reason.SCORE, bounds.low, censored=not bounds.exact).verdict
        return Verdict.UNDECIDED

    def finish(self) -> Decision:
        """The decision, the answer having ended where it is."""
        if self._decision is not None:
            return self._decision
        score = self._score.final()
        if score is None:
            return self._decide(self._without_score, Reason.NO_SCORE, None)
        return self._decide(Verdict.KEEP if score >= self._rule.threshold else Verdict.DEFER, Reason.SCORE, score)

    def _decide(self, verdict: Verdict, reason: Reason, score: float | None, *, censored: bool = False) -> Decision:
        name, threshold = self._rule.score, self._rule.threshold
        self._decision = Decision(verdict, reason, name, score, threshold, self._tokens_seen, censored=censored)
        return self._decision
