"""Proves, before a model is used as a small tier, that its stream carries evidence to decide on."""

import math
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from enum import Enum

from marginal.errors import MarginalError
from marginal.policy.evidence import NEAR_DUPLICATE_DEPTH
from marginal.routing.ports import LanguageModel
from marginal.tokens import Chunk, Evidence, Generation, Message, Role, Sampling, Token, Usage

QUESTION = Generation(
    messages=(Message(Role.USER, "hello"),),
    sampling=Sampling(max_tokens=4),
    alternatives=NEAR_DUPLICATE_DEPTH,
)
"""As many alternatives as the default score looks at: an engine that refuses them is found out here."""

WARMTH = 1.5
"""A temperature that moves log-probabilities which are taken after sampling transforms."""

WARM = tuple(replace(QUESTION, sampling=Sampling(max_tokens=2, temperature=WARMTH, seed=seed)) for seed in (1, 2, 3))
"""The same question, in the hope that not every seed draws the end token at once."""

PROBE_SECONDS = 30.0
LEAST_ALTERNATIVES = 2
ROUNDING = 1e-6
"""How far the probabilities of one position may sum to more than 1."""

SAME = 1e-3
"""Log-probabilities of the same position that differ by no more are the same, rounding and batching aside."""


class Lack(Enum):
    """What is wrong with an answer as evidence; the value is what follows `token N of the probe`."""

    NO_TEXT = "the model answered the probe without any text"
    MISSING = "came without log-probabilities: switch them on in the engine"
    NOT_FINITE = "has a log-probability that is not finite"
    ABOVE_ZERO = "has a log-probability above 0"
    FEW = f"has {{}} alternatives, at least {LEAST_ALTERNATIVES} are needed"
    SUM = "has alternatives whose probabilities sum to more than 1"


@dataclass(frozen=True, slots=True)
class Heard:
    """One answer as it came, `seconds` from the question to its end; `fault` is what ended it early, in words."""

    chunks: tuple[tuple[Token, ...], ...]
    usage: Usage
    seconds: float
    first_token_seconds: float | None = None
    fault: str | None = None

    @property
    def tokens(self) -> tuple[Token, ...]:
        """All tokens in order."""
        return tuple(token for chunk in self.chunks for token in chunk)

    @property
    def fewest_alternatives(self) -> int:
        """The alternatives of the token that has fewest, 0 without tokens."""
        return min((len(token.alternatives) for token in self.tokens if token.text), default=0)


async def probe(model: LanguageModel, *, timeout: float = PROBE_SECONDS) -> Evidence:
    """Asks the model for a few tokens and says what their log-probabilities lack; never raises what a model raises.

    Proven are streamed log-probabilities that are finite and at most 0, with two alternatives or more at every token
    whose probabilities do not sum to more than 1. Of those it is then told whether a temperature moves them. `timeout`
    is in seconds, for each of two questions, or a few more.
    """
    cold = await hear(model, QUESTION, timeout=timeout)
    evidence = judged(cold)
    if not evidence.proven:
        return evidence
    return replace(evidence, before_sampling=await before_sampling(model, cold, timeout=timeout))


async def hear(model: LanguageModel, generation: Generation, *, timeout: float = PROBE_SECONDS) -> Heard:
    """Listens to one answer to its end; never raises what a model raises."""
    chunks: list[Chunk] = []
    started, first, fault = time.perf_counter(), None, None
    try:
        async with aclosing(model.generate(generation, timeout=timeout)) as stream:
            async for chunk in stream:
                if first is None and chunk.tokens:
                    first = time.perf_counter() - started
                chunks.append(chunk)
    except MarginalError as error:
        fault = str(error)
    return Heard(
        tuple(chunk.tokens for chunk in chunks if chunk.tokens),
        chunks[-1].usage if chunks else Usage(),
        time.perf_counter() - started,
        first,
        fault,
    )


def judged(heard: Heard) -> Evidence:
    """What an answer's log-probabilities prove; whether they are before sampling is left open."""
    tokens = heard.tokens
    if heard.fault is not None:
        return Evidence(f"the probe failed: {heard.fault}", len(tokens))
    return Evidence(_shortfall(tokens), len(tokens), heard.fewest_alternatives)


async def before_sampling(model: LanguageModel, cold: Heard, *, timeout: float = PROBE_SECONDS) -> bool | None:
    """Whether log-probabilities are the same as in an answer at temperature 0; None when that cannot be told."""
    for generation in WARM:
        warm = await hear(model, generation, timeout=timeout)
        if warm.fault is not None or _first(warm):
            return _unmoved(_first(cold), _first(warm))
    return None


def lack(tokens: Sequence[Token]) -> tuple[Lack, int] | None:
    """The first thing that is wrong with an answer, and with which of its tokens; None when nothing is."""
    if not any(token.text for token in tokens):
        return Lack.NO_TEXT, 0
    for position, token in enumerate(tokens):
        # a token without text is part of a character that its engine keeps back, evidence and all
        found = _lack(token) if token.text else None
        if found is not None:
            return found, position
    return None


def _shortfall(tokens: Sequence[Token]) -> str | None:
    found = lack(tokens)
    if found is None:
        return None
    what, position = found
    words = str(what.value)
    if what is Lack.NO_TEXT:
        return words
    return f"token {position} of the probe {words.format(len(tokens[position].alternatives))}"


def _lack(token: Token) -> Lack | None:
    logprobs = [alternative.logprob for alternative in token.alternatives]
    if token.logprob is None and not logprobs:
        return Lack.MISSING
    if token.logprob is None or not all(map(math.isfinite, (token.logprob, *logprobs))):
        return Lack.NOT_FINITE
    if max(token.logprob, *logprobs, -math.inf) > 0.0:
        return Lack.ABOVE_ZERO
    if len(logprobs) < LEAST_ALTERNATIVES:
        return Lack.FEW
    if math.fsum(map(math.exp, logprobs)) > 1.0 + ROUNDING:
        return Lack.SUM
    return None


def _unmoved(first: list[float], second: list[float]) -> bool | None:
    """Whether a temperature left log-probabilities as they were.

    It divides the differences between them, so where there are none it shows nothing. What is neither the same nor
    divided is an engine that does not say the same twice.
    """
    count = min(len(first), len(second))
    if count < LEAST_ALTERNATIVES:
        return None
    spread, warmed = first[0] - first[count - 1], second[0] - second[count - 1]
    if spread * (1.0 - 1.0 / WARMTH) <= 2 * SAME:
        return None
    if all(abs(one - other) <= SAME for one, other in zip(first, second, strict=False)):
        return True
    return False if math.isclose(warmed, spread / WARMTH, rel_tol=0.1) else None


def _first(heard: Heard) -> list[float]:
    """The log-probabilities of the first token's alternatives, the surest first."""
    return sorted((one.logprob for token in heard.tokens[:1] for one in token.alternatives), reverse=True)
