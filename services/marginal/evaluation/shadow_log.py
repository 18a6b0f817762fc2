"""Makes rows of a router's own log: what shadow traffic and deferred requests show, without asking anybody again.

Reads the `cost_record` lines that `routing/record_lines.py` makes; everything else in the files is passed over.
Right is what the large tier answers, so `large.correct` is true.

- A line with a `shadow` object had its small answer kept and the large tier asked beside it: `small.correct` says
  whether both agree, and all its scores are known.
- A line that was sampled but deferred by its score has no small answer: `small.correct` is None, and the one score of
  its policy is an upper bound when it is censored.

Only sampled requests are rows, so kept and deferred ones are there in their true proportion; what callers asked to have
compared is not. One policy at a time: its
own score is over its window.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from marginal.errors import ConfigurationError
from marginal.evaluation.results import LARGE, Header, Row, TierResult
from marginal.evaluation.run_files import read_content
from marginal.evaluation.run_lines import Count, Name, Seconds, complaint, usage
from marginal.tokens import Sampling

COST_RECORD = "cost_record"
GRADER = "shadow"
"""The header's grader: the router's own comparison of both answers."""

Score = Annotated[float, Field(allow_inf_nan=False)]


class _Object(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class _Shadow(_Object):
    agrees: bool
    scores: dict[str, Score] = {}
    small_text: str | None = None
    large_text: str | None = None


class _Decision(_Object):
    verdict: str
    reason: str
    score_name: str | None = None
    score: Score | None = None

    @property
    def scores(self) -> dict[str, float]:
        """The one score it rests on, if any."""
        return {} if self.score is None or not self.score_name else {self.score_name: self.score}


class _Attempt(_Object):
    tier: Literal["small", "large"]
    model: str
    outcome: str
    input_tokens: Count
    cached_input_tokens: Count
    output_tokens: Count
    cost_nanos: Count
    seconds: Seconds

    def build(self, correct: bool | None, text: str | None = None) -> TierResult:
        return TierResult(correct, usage(self, "attempts"), self.cost_nanos, self.seconds, text=text)


class _Record(_Object):
    request_id: Name
    policy: str | None = None
    task: str | None = None
    sampled: bool = False
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")]
    degraded: str | None = None
    decision: _Decision | None = None
    attempts: tuple[_Attempt, ...]
    shadow: _Shadow | None = None

    def attempt(self, tier: str, *outcomes: str) -> _Attempt | None:
        """The last attempt of a tier that ended in one of these ways."""
        fitting = [one for one in self.attempts if one.tier == tier and one.outcome in outcomes]
        return fitting[-1] if fitting else None


def read_shadow_logs(
    paths: Iterable[Path], *, created: str, policy: str | None = None
) -> tuple[Header, tuple[Row, ...]]:
    """Reads router logs, compressed ones by their name too. Raises ConfigurationError, "PATH:LINE: field: problem".

    All records must be of one policy (those of others than `policy`, when it is given, are passed over), one pair of
    models and one currency; a request that is there twice is refused.
    """
    header: Header | None = None
    of_policy = policy
    rows: dict[str, Row] = {}
    for place, record in _records(paths):
        small, large = _pair(record)
        if small is None or large is None or policy not in (None, record.policy):
            continue
        of_policy = of_policy or record.policy
        if record.policy != of_policy:
            raise ConfigurationError(
                f"{place}: policy: {record.policy}, before it was {of_policy}: name one of them with --policy"
            )
        if record.request_id in rows:
            raise ConfigurationError(f"{place}: request_id: {record.request_id} is there twice")
        try:
            rows[record.request_id] = _row(record, small, large)
        except ConfigurationError as error:
            raise ConfigurationError(f"{place}: {error}") from None
        mine = _header(record, small, large, created)
        if header is not None and header != mine:
            raise ConfigurationError(
                f"{place}: models: {mine.small} and {mine.large} in {mine.currency}, before it were {header.small} and"
                f" {header.large} in {header.currency}: make a run of each"
            )
        header = mine
    if header is None:
        raise ConfigurationError(
            "no line of these logs is of shadow traffic, or was deferred by its score: nothing to record"
        )
    return header, tuple(rows.values())


def _records(paths: Iterable[Path]) -> Iterator[tuple[str, _Record]]:
    for path in paths:
        content = read_content(path)
        for number, line in enumerate((*content.lines, content.rest), 1):
            if not _is_cost_record(line):
                continue
            try:
                yield f"{path}:{number}", _Record.model_validate_json(line)
            except ValidationError as error:
                raise ConfigurationError(f"{path}:{number}: {complaint(error)}") from None


def _is_cost_record(line: bytes) -> bool:
    try:
        event = from_json(line)
    except ValueError:
        return False
    return isinstance(event, dict) and event.get("event") == COST_RECORD


def _pair(record: _Record) -> tuple[_Attempt | None, _Attempt | None]:
    """The small and the large attempt that the record tells something by."""
    if record.shadow is not None and record.sampled:
        return record.attempt("small", "kept"), record.attempt("large", "shadow")
    decision = record.decision
    if decision is None or (decision.verdict, decision.reason) != ("defer", "score") or not decision.scores:
        return None, None
    if record.degraded is not None or not record.sampled:
        return None, None
    return record.attempt("small", "aborted", "kept"), record.attempt("large", "kept")


def _row(record: _Record, small: _Attempt, large: _Attempt) -> Row:
    shadow, decision = record.shadow, record.decision
    if shadow is not None:
        small_result, large_result = small.build(shadow.agrees, shadow.small_text), large.build(True, shadow.large_text)
        scores = shadow.scores
    else:
        small_result, large_result = small.build(None), large.build(True)
        scores = decision.scores if decision else {}
    return Row(
        id=record.request_id,
        task=record.task or record.policy or "",
        small=small_result,
        large=large_result,
        scores=scores,
        agrees=shadow.agrees if shadow else None,
    )


def _header(record: _Record, small: _Attempt, large: _Attempt, created: str) -> Header:
    return Header(
        small=small.model or "small",
        large=large.model or "large",
        currency=record.currency,
        grader=GRADER,
        labels=LARGE,
        sampling=Sampling(),
        alternatives=0,
        created=created,
    )
