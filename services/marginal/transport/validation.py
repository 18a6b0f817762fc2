"""What a request may ask for; every refusal names the field and the limit."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from marginal.errors import InvalidRequest
from marginal.policy.evidence import MOST_ALTERNATIVES
from marginal.policy.scores import SCORES
from marginal.routing.requests import TASK
from marginal.tokens import EarlyStop, Message, Role, Sampling

IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,128}")


@dataclass(frozen=True, slots=True)
class Limits:
    """The most a request may ask for, how many seconds it may take, and how many its caller may not read for."""

    prompt_bytes: int = 256 * 1024
    messages: int = 256
    max_tokens: int = 2048
    choices: int = 64
    choice_bytes: int = 128
    alternatives: int = MOST_ALTERNATIVES
    deadline_seconds: float = 300.0
    stall_seconds: float = 60.0


def messages(messages: Sequence[Message], *, field: str, limits: Limits) -> tuple[Message, ...]:
    """Checks a conversation: not empty, not blank, within the byte limit, the last word not the assistant's."""
    if not messages or not messages[-1].text.strip():
        raise InvalidRequest(field, "is empty, give the model something to answer")
    if messages[-1].role is Role.ASSISTANT:
        raise InvalidRequest(f"{field}[{len(messages) - 1}].role", "the last message must not be the assistant's")
    size = sum(len(message.text.encode()) for message in messages)
    if size > limits.prompt_bytes:
        raise InvalidRequest(field, f"has {size} bytes, at most {limits.prompt_bytes} are taken")
    return tuple(messages)


def sampling(asked: Sampling, *, limits: Limits) -> Sampling:
    """Checks ranges; NaN is in none."""
    if not 1 <= asked.max_tokens <= limits.max_tokens:
        raise InvalidRequest("sampling.max_tokens", f"is {asked.max_tokens}, must be 1 to {limits.max_tokens}")
    if not (math.isfinite(asked.temperature) and 0.0 <= asked.temperature <= 2.0):
        raise InvalidRequest("sampling.temperature", f"is {asked.temperature}, must be 0 to 2")
    if not (math.isfinite(asked.top_p) and 0.0 < asked.top_p <= 1.0):
        raise InvalidRequest("sampling.top_p", f"is {asked.top_p}, must be above 0 and at most 1")
    return asked


def task(asked: str) -> str:
    """Checks a task label; "" is none."""
    if asked and not TASK.fullmatch(asked):
        raise InvalidRequest("task", f"must match {TASK.pattern}, or be empty")
    return asked


def idempotency_key(asked: str) -> str:
    """Checks a caller's name for a request; "" is none. It may be a secret, so it is not told back."""
    if asked and not IDEMPOTENCY_KEY.fullmatch(asked):
        raise InvalidRequest("idempotency_key", "must be 1 to 128 printable ASCII characters")
    return asked


def choices(asked: Iterable[str], *, limits: Limits) -> tuple[str, ...]:
    """Checks a class set: none, or two or more distinct names."""
    named = tuple(islice(asked, limits.choices + 1))
    if len(named) > limits.choices:
        raise InvalidRequest("choices", f"has more than {limits.choices} names")
    if any(len(choice.encode()) > limits.choice_bytes for choice in named):
        raise InvalidRequest("choices", f"has a name of more than {limits.choice_bytes} bytes")
    distinct = {choice.strip().casefold() for choice in named}
    if named and (len(distinct) < max(2, len(named)) or "" in distinct):
        raise InvalidRequest("choices", "must be two or more distinct names, or none")
    return named


def alternatives(asked: int, *, limits: Limits) -> int:
    """Checks how many alternatives per token are wanted."""
    if asked > limits.alternatives:
        raise InvalidRequest("alternatives", f"is {asked}, at most {limits.alternatives} are given")
    return asked


def timeout(remaining: float | None, *, limits: Limits) -> float:
    """Seconds a request may take: a little less than the caller's deadline, so that our status gets there in time."""
    if remaining is None:
        return limits.deadline_seconds
    return min(remaining - min(0.02, remaining / 20), limits.deadline_seconds)


def early_stop(asked: EarlyStop) -> EarlyStop:
    """Checks a rule that comes from a router."""
    if asked.score not in SCORES:
        raise InvalidRequest("early_stop.score", f"must be one of {', '.join(SCORES)}")
    scale = SCORES[asked.score].scale
    if not scale.keep_all <= asked.threshold <= scale.defer_all:
        limits = f"{scale.low:g} to {scale.high:g}"
        raise InvalidRequest("early_stop.threshold", f"is {asked.threshold}, {asked.score} goes from {limits}")
    if not 0.0 < asked.quantile < 1.0:
        raise InvalidRequest("early_stop.quantile", f"is {asked.quantile}, must be above 0 and below 1")
    return asked
