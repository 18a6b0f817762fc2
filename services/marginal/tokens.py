"""The values every layer shares: what a model is asked, the tokens it answers with, and what they used."""

from dataclasses import dataclass
from enum import Enum


class Tier(Enum):
    """One of the two model sizes a request can be answered by."""

    SMALL = "small"
    LARGE = "large"


class Role(Enum):
    """Who wrote a message."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


class FinishReason(Enum):
    """Why a generation ended."""

    STOP = "stop"
    LENGTH = "length"
    UNSURE = "unsure"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation, its text always plain."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn: `max_tokens` >= 1, `temperature` in [0, 2] (0 is greedy), `top_p` in (0, 1]."""

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class EarlyStop:
    """Where a generation may stop by itself: at the token at which `score` is certain to be under `threshold`.

    `window` is the number of tokens the score looks at, 0 the whole answer. `defer_without_score` stops it as well at a
    token that leaves no score. `quantile` in (0, 1) is which one `quantile_margin` takes. With `exact` nothing is
    decided before the score is known to the last digit: for rules that learn from scores.
    """

    score: str
    window: int
    threshold: float
    defer_without_score: bool = True
    quantile: float = 0.1
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Generation:
    """What a language model is asked: at least one message, and how many alternatives to report per token."""

    messages: tuple[Message, ...]
    sampling: Sampling = Sampling()
    alternatives: int = 0
    choices: tuple[str, ...] = ()
    early_stop: EarlyStop | None = None


@dataclass(frozen=True, slots=True)
class Alternative:
    """A candidate for one position: its text and the natural logarithm of its probability, finite and at most 0."""

    text: str
    logprob: float
    token_id: int | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """A generated token; `logprob` is None without finite evidence, `alternatives` are sorted, the surest first."""

    text: str
    logprob: float | None = None
    alternatives: tuple[Alternative, ...] = ()
    token_id: int | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens an attempt has used so far; `cached_input_tokens` are part of `input_tokens`.

    `counted` says that a count is our own, because the engine did not tell its own to the end.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    counted: bool = False


@dataclass(frozen=True, slots=True)
class EngineTimes:
    """Seconds that an engine says it took, on the prompt and on the answer; None is not told.

    What it waited in the engine's queue is not here: no engine tells that in a stream.
    """

    prompt_seconds: float | None = None
    generation_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a generation: tokens in order, the cumulative usage, and at the end why it ended.

    `times` are with the finish, from engines that tell them.
    """

    tokens: tuple[Token, ...]
    usage: Usage
    finish: FinishReason | None = None
    times: EngineTimes | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a probe saw of a model's log-probabilities; `shortfall` says in words what is missing.

    `before_sampling` says whether they are the model's own, untouched by the temperature; None is not known.
    """

    shortfall: str | None
    tokens: int = 0
    alternatives: int = 0
    before_sampling: bool | None = None

    @property
    def proven(self) -> bool:
        """Whether the model can be a small tier."""
        return self.shortfall is None


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """A loaded model: the operator's name for it, its limits, and its evidence once probed."""

    name: str
    context_tokens: int
    max_alternatives: int
    evidence: Evidence = Evidence(shortfall="not probed yet")
