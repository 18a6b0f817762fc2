"""What recorded traffic says: both tiers' results for every request, and the evidence the small one gave."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from marginal.tokens import Sampling, Token, Usage

EXPECTED, LARGE = "expected", "large"
LABELS = (EXPECTED, LARGE)
"""What counts as right: the expected answers, or whatever the large tier answers."""


@dataclass(frozen=True, slots=True)
class TierResult:
    """One tier's answer to one request: whether it is right, what it used, nano-units and seconds.

    `correct` is None when nobody knows: the answer was aborted, or nothing was there to compare it with.
    `first_token_seconds` is None when it was not measured, `text` unless texts were asked for.
    """

    correct: bool | None
    usage: Usage
    cost_nanos: int
    seconds: float
    first_token_seconds: float | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One request, answered by both tiers; `tokens` are the small one's, with their evidence.

    `scores` are those of the whole small answer by their names, without those it has not; `agrees` says whether both
    answers say the same.
    """

    id: str
    task: str
    small: TierResult
    large: TierResult
    tokens: tuple[Token, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    choices: tuple[str, ...] = ()
    agrees: bool | None = None


@dataclass(frozen=True, slots=True)
class Header:
    """How a run was recorded: both models, the grader's name, what its labels are, one of LABELS.

    `alternatives` were asked for at every position of the small answer; `created` is a time in ISO 8601, "" when it is
    unknown, as is `currency`.
    """

    small: str
    large: str
    currency: str
    grader: str
    labels: str
    sampling: Sampling
    alternatives: int
    created: str


@dataclass(frozen=True, slots=True)
class Run:
    """Recorded traffic; `name` is its file's, without the endings."""

    header: Header
    rows: tuple[Row, ...]
    name: str
