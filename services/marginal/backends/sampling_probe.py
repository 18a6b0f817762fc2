"""Finds out whether an engine's log-probabilities are those of the model, or those it samples from."""

from contextlib import aclosing

from marginal.routing.ports import LanguageModel
from marginal.tokens import Generation, Message, Role, Sampling, Token

HOT = 1.5
"""A temperature that would change every probability visibly."""

SAME = 1e-3
"""By how much log-probabilities may differ and still be the same: batches are not computed bit for bit."""

SEEDS = (1, 2, 3)
"""Of which some draw no end token at once."""

QUESTIONS = ("hello", "what is the capital of France")


async def evidence_before_sampling(model: LanguageModel, *, timeout: float = 30.0) -> bool | None:
    """Asks at temperature 0 and 1.5 and compares the first token's alternatives; None when there are none to compare.

    True when they are the same within 1e-3: then temperature and top-p do not move a score. `timeout` is in seconds and
    for each of the answers. Raises what `model.generate` raises.
    """
    compared = False
    for question in QUESTIONS:
        cold = await _first(model, question, Sampling(max_tokens=2, temperature=0.0, seed=SEEDS[0]), timeout)
        for seed in SEEDS if cold is not None else ():
            hot = await _first(model, question, Sampling(max_tokens=2, temperature=HOT, seed=seed), timeout)
            if cold is not None and hot is not None:
                if not _same(cold, hot):
                    return False
                compared = True
                break
    return compared or None


async def _first(model: LanguageModel, question: str, sampling: Sampling, timeout: float) -> Token | None:
    """The first token, when it has alternatives."""
    generation = Generation((Message(Role.USER, question),), sampling, alternatives=5)
    async with aclosing(model.generate(generation, timeout=timeout)) as chunks:
        async for chunk in chunks:
            if chunk.tokens:
                return chunk.tokens[0] if len(chunk.tokens[0].alternatives) > 1 else None
    return None


def _same(one: Token, other: Token) -> bool:
    pairs = zip(one.alternatives, other.alternatives, strict=False)
    return len(one.alternatives) == len(other.alternatives) and all(
        abs(a.logprob - b.logprob) <= SAME for a, b in pairs
    )
