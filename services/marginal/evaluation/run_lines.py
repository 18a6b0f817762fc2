"""The lines of a run file, JSON in and out: the header and the rows. `run.schema.json` publishes the same."""

import json
import math
from collections.abc import Sequence
from operator import attrgetter, itemgetter
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from marginal.errors import ConfigurationError
from marginal.evaluation.results import Header, Row, TierResult
from marginal.tokens import Alternative, Sampling, Token, Usage

FORMAT = "marginal-run"
VERSION = 1

Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Logprob = Annotated[float, Field(le=0.0, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1)]


class _Object(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Sampling(_Object):
    max_tokens: Annotated[int, Field(ge=1)]
    temperature: Annotated[float, Field(ge=0.0, le=2.0)]
    top_p: Annotated[float, Field(gt=0.0, le=1.0)]
    seed: int | None = None


class _Header(_Object):
    format: Literal["marginal-run"]
    version: Literal[1]
    small: Name
    large: Name
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")]
    grader: Name
    labels: Literal["expected", "large"]
    sampling: _Sampling
    alternatives: Count
    created: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$")]


class _Token(_Object):
    text: str
    logprob: Logprob | None = None
    alternatives: tuple[tuple[str, Logprob], ...] = ()

    def build(self) -> Token:
        ranked = sorted(self.alternatives, key=itemgetter(1), reverse=True)
        return Token(self.text, self.logprob, tuple([Alternative(text, logprob) for text, logprob in ranked]))


class _Tier(_Object):
    correct: bool | None = None
    input_tokens: Count
    cached_input_tokens: Count = 0
    output_tokens: Count
    cost_nanos: Count
    seconds: Seconds
    first_token_seconds: Seconds | None = None
    text: str | None = None

    def build(self, field: str) -> TierResult:
        return TierResult(
            self.correct,
            usage(self, field),
            self.cost_nanos,
            self.seconds,
            self.first_token_seconds,
            self.text,
        )


class _Row(_Object):
    id: Name
    task: str
    choices: tuple[str, ...] = ()
    tokens: tuple[_Token, ...] = ()
    scores: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = {}
    small: _Tier
    large: _Tier
    agrees: bool | None = None


class Counted(Protocol):
    """Anything that counts tokens."""

    @property
    def input_tokens(self) -> int: ...
    @property
    def cached_input_tokens(self) -> int: ...
    @property
    def output_tokens(self) -> int: ...


def usage(counted: Counted, field: str) -> Usage:
    """Tokens as counted. Raises ConfigurationError when more are cached than there are."""
    if counted.cached_input_tokens > counted.input_tokens:
        raise ConfigurationError(f"{field}.cached_input_tokens: more than input_tokens, of which they are a part")
    return Usage(counted.input_tokens, counted.output_tokens, counted.cached_input_tokens)


def header_from_line(line: bytes) -> Header:
    """Reads a header. Raises ConfigurationError naming the field."""
    try:
        header = _Header.model_validate_json(line)
    except ValidationError as error:
        raise ConfigurationError(complaint(error)) from None
    values = {name: getattr(header, name) for name in Header.__slots__ if name != "sampling"}
    return Header(**values, sampling=Sampling(**dict(header.sampling)))


def row_from_line(line: bytes) -> Row:
    """Reads a row. Raises ConfigurationError naming the field."""
    try:
        row = _Row.model_validate_json(line)
    except ValidationError as error:
        raise ConfigurationError(complaint(error)) from None
    return Row(
        id=row.id,
        task=row.task,
        small=row.small.build("small"),
        large=row.large.build("large"),
        tokens=tuple([token.build() for token in row.tokens]),
        scores=row.scores,
        choices=row.choices,
        agrees=row.agrees,
    )


def header_to_line(header: Header) -> str:
    """Writes a header, without the end of the line."""
    values = {name: getattr(header, name) for name in Header.__slots__}
    sampling = {name: getattr(header.sampling, name) for name in Sampling.__slots__}
    return _line({"format": FORMAT, "version": VERSION, **values, "sampling": _known(sampling)})


def row_to_line(row: Row) -> str:
    """Writes a row, without the end of the line.

    Evidence that is not finite or above 0 is none: it is left out, so that a replay finds no score either.
    """
    written: dict[str, Any] = {"id": row.id, "task": row.task}
    if row.choices:
        written["choices"] = row.choices
    if row.tokens:
        written["tokens"] = [_token(token) for token in row.tokens]
    if row.scores:
        written["scores"] = dict(row.scores)
    written |= {"small": _tier(row.small), "large": _tier(row.large)}
    if row.agrees is not None:
        written["agrees"] = row.agrees
    return _line(written)


def _token(token: Token) -> dict[str, Any]:
    own = token.logprob if token.logprob is not None and _possible([token.logprob]) else None
    possible = _possible([other.logprob for other in token.alternatives])
    ranked = sorted(token.alternatives, key=attrgetter("logprob"), reverse=True) if possible else ()
    return {
        "text": token.text,
        "logprob": own,
        "alternatives": [(other.text, other.logprob) for other in ranked],
    }


def _possible(logprobs: Sequence[float]) -> bool:
    return all(-math.inf < logprob <= 0.0 for logprob in logprobs)


def _tier(result: TierResult) -> dict[str, Any]:
    used = result.usage
    return {
        "correct": result.correct,
        "input_tokens": used.input_tokens,
        "cached_input_tokens": used.cached_input_tokens,
        "output_tokens": used.output_tokens,
        "cost_nanos": result.cost_nanos,
        "seconds": result.seconds,
        **_known({"first_token_seconds": result.first_token_seconds, "text": result.text}),
    }


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def complaint(error: ValidationError) -> str:
    """The first problem of a line in our form, "field: what is wrong"."""
    problem = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(str(part) for part in problem["loc"])
    said = f"{problem['msg'][0].lower()}{problem['msg'][1:]}"
    return f"{field}: {said}" if field else said
