"""Tokens with the evidence a test wants."""

import math
from collections.abc import Mapping

from marginal.tokens import Alternative, Token

NEARLY_NOTHING = 1e-12


def sure(margin: float, *, text: str = "a") -> Token:
    """A token whose top two candidates are `margin` apart and share the whole probability."""
    return spread({text: (1.0 + margin) / 2.0, "other": max((1.0 - margin) / 2.0, NEARLY_NOTHING)})


def spread(probabilities: Mapping[str, float]) -> Token:
    """A token with these candidates; the first is the one generated."""
    alternatives = tuple(Alternative(text, math.log(share)) for text, share in probabilities.items())
    return Token(alternatives[0].text, alternatives[0].logprob, alternatives)


def blind(text: str = "a") -> Token:
    """A token without any evidence."""
    return Token(text)
