"""The decision, sans I/O: feed it the small model's tokens, read a verdict; replay and production run this object.

Two rules: a verdict falls as soon as it is certain and never changes; without evidence there is no score, and the
policy says what then.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from marginal.policy.evidence import EvidenceGap, Gap
from marginal.policy.scores import SCORES, Score
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
    """A final verdict with its score, in the score's own range; None when there is no score, or none was asked for.

    When `censored` the verdict fell before the window was full: the score is an upper bound on DEFER, a lower on KEEP.
    When `bounded` a class of the declared set was outside the alternatives and counted with the most it can have: the
    score is a lower bound, and could be read surer than it is only where classes have spellings that are outside too,
    see `ClassMasses`; on a censored DEFER it is then neither bound. `gap` says why there is no score.
    """

    verdict: Verdict
    reason: Reason
    score_name: str = ""
    score: float | None = None
    threshold: float | None = None
    tokens_seen: int = 0
    censored: bool = False
    gap: Gap | None = None
    bounded: bool = False


class Deferral:
    """Watches one answer: `feed` every token, stop at a verdict, `finish` when the answer ends."""

    def __init__(self, rule: EarlyStop, *, choices: Sequence[str] = ()) -> None:
        """`rule` names a registered score and how it is judged, its threshold fixed for this answer."""
        kind = SCORES[rule.score]
        self._rule = rule
        self._score: Score = kind.start(window=rule.window, choices=choices, quantile=rule.quantile)
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
        except EvidenceGap as gap:
            return self._no_score(gap.reason).verdict
        bounds, threshold = self._score.bounds, self._rule.threshold
        if self._rule.exact and not bounds.exact:
            return Verdict.UNDECIDED
        if bounds.high < threshold:
            return self._decide(Verdict.DEFER, bounds.high, censored=not bounds.exact).verdict
        if bounds.low >= threshold:
            return self._decide(Verdict.KEEP, bounds.low, censored=not bounds.exact).verdict
        return Verdict.UNDECIDED

    @property
    def verdict(self) -> Verdict:
        """The verdict so far."""
        return Verdict.UNDECIDED if self._decision is None else self._decision.verdict

    def finish(self) -> Decision:
        """The decision, the answer having ended where it is."""
        if self._decision is not None:
            return self._decision
        try:
            score = self._score.final()
        except EvidenceGap as gap:
            return self._no_score(gap.reason)
        return self._decide(Verdict.KEEP if score >= self._rule.threshold else Verdict.DEFER, score)

    def _decide(self, verdict: Verdict, score: float, *, censored: bool = False) -> Decision:
        rule = self._rule
        self._decision = Decision(
            verdict,
            Reason.SCORE,
            rule.score,
            score,
            rule.threshold,
            self._tokens_seen,
            censored=censored,
            bounded=self._score.bounded,
        )
        return self._decision

    def _no_score(self, gap: Gap) -> Decision:
        rule = self._rule
        self._decision = Decision(
            self._without_score, Reason.NO_SCORE, rule.score, None, rule.threshold, self._tokens_seen, gap=gap
        )
        return self._decision
