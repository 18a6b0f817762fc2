"""Proves, before a model is used as a small tier, that its stream carries evidence to decide on."""

import math
from contextlib import aclosing

from marginal.errors import MarginalError
from marginal.routing.ports import LanguageModel
from marginal.tokens import Evidence, Generation, Message, Role, Sampling, Token

QUESTION = Generation(
    messages=(Message(Role.USER, "hello"),),
    sampling=Sampling(max_tokens=4),
    alternatives=5,
)
LEAST_ALTERNATIVES = 2
ROUNDING = 1e-6
"""How far the probabilities of one position may sum to more than 1."""


async def probe(model: LanguageModel, *, timeout: float = 30.0) -> Evidence:
    """Asks the model for a few tokens and says what their log-probabilities lack; never raises what a model raises.

    Proven are streamed log-probabilities that are finite and at most 0, with two alternatives or more at every token
    whose probabilities do not sum to more than 1. `timeout` is in seconds.
    """
    tokens: list[Token] = []
    try:
        async with aclosing(model.generate(QUESTION, timeout=timeout)) as chunks:
            async for chunk in chunks:
                tokens.extend(chunk.tokens)
    except MarginalError as error:
        return Evidence(f"the probe failed: {error}", len(tokens))
    fewest = min((len(token.alternatives) for token in tokens if token.text), default=0)
    return Evidence(_shortfall(tokens), len(tokens), fewest)


def _shortfall(tokens: list[Token]) -> str | None:
    if not any(token.text for token in tokens):
        return "the model answered the probe without any text"
    for position, token in enumerate(tokens):
        # a token without text is part of a character that its engine keeps back, evidence and all
        lack = _lack(token) if token.text else None
        if lack is not None:
            return f"token {position} of the probe {lack}"
    return None


def _lack(token: Token) -> str | None:
    logprobs = [alternative.logprob for alternative in token.alternatives]
    if token.logprob is None and not logprobs:
        return "came without log-probabilities: switch them on in the engine"
    if token.logprob is None or not all(map(math.isfinite, (token.logprob, *logprobs))):
        return "has a log-probability that is not finite"
    if max(token.logprob, *logprobs, -math.inf) > 0.0:
        return "has a log-probability above 0"
    if len(logprobs) < LEAST_ALTERNATIVES:
        return f"has {len(logprobs)} alternatives, at least {LEAST_ALTERNATIVES} are needed"
    if math.fsum(map(math.exp, logprobs)) > 1.0 + ROUNDING:
        return "has alternatives whose probabilities sum to more than 1"
    return None
