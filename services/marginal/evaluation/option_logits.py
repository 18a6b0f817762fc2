"""Reads published multiple-choice results: one log-probability per option and model, to compare margins over options.

A line is {"id", "subject", "prompt", "gold", "small": {option: logprob}, "large": {...}, "small_correct",
"large_correct"}, and the file's name ends in SMALL__LARGE, both models' names, after an underscore.

Each becomes a row whose one token has the options as alternatives. Of what such a file does not say, an answer is one
token out, the input is estimated as a token for every four bytes of the prompt, and costs and seconds are 0: weigh the
tiers with fixed costs per request.
"""

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from marginal.errors import ConfigurationError
from marginal.evaluation.results import EXPECTED, Header, Row, TierResult
from marginal.evaluation.run_lines import complaint
from marginal.tokens import Alternative, Sampling, Token, Usage

BYTES_PER_TOKEN = 4
"""A rule of thumb for English text and the vocabularies of today."""

_MODELS = re.compile(r"(?:.*_)?(?P<small>[^_]+)__(?P<large>.+)")

Logprobs = Annotated[dict[str, Annotated[float, Field(le=0.0, allow_inf_nan=False)]], Field(min_length=2)]


class _Line(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str | int
    subject: str = ""
    prompt: str
    small: Logprobs
    large: Logprobs
    small_correct: bool
    large_correct: bool


def looks_like(first: object) -> bool:
    """Whether the first line of a file, as JSON, is one of these."""
    return isinstance(first, dict) and {"small", "large", "small_correct", "large_correct"} <= first.keys()


def header(name: str, options: int) -> Header:
    """What is known about a file of that name, whose questions have that many options."""
    named = _MODELS.fullmatch(name)
    return Header(
        small=named["small"] if named else "small",
        large=named["large"] if named else "large",
        currency="",
        grader="choice",
        labels=EXPECTED,
        sampling=Sampling(max_tokens=1),
        alternatives=options,
        created="",
    )


def row(line: bytes) -> Row:
    """Reads one line. Raises ConfigurationError naming the field."""
    try:
        read = _Line.model_validate_json(line)
    except ValidationError as error:
        raise ConfigurationError(complaint(error)) from None
    usage = Usage(input_tokens=-(-len(read.prompt.encode()) // BYTES_PER_TOKEN), output_tokens=1)
    token = _token(read.small)
    return Row(
        id=str(read.id),
        task=read.subject,
        small=TierResult(read.small_correct, usage, cost_nanos=0, seconds=0.0),
        large=TierResult(read.large_correct, usage, cost_nanos=0, seconds=0.0),
        tokens=(token,),
        choices=tuple(read.small),
        agrees=token.text == _token(read.large).text,
    )


def _token(logprobs: dict[str, float]) -> Token:
    """The surest option as a generated token, the earlier of two that are level."""
    ranked = sorted(logprobs.items(), key=lambda option: option[1], reverse=True)
    alternatives = tuple(Alternative(option, logprob) for option, logprob in ranked)
    return Token(alternatives[0].text, alternatives[0].logprob, alternatives)
