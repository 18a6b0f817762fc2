"""Where a generation stops by itself: the policy's own rule, evaluated next to the engine."""

from collections.abc import Callable

from marginal.errors import InvalidRequest
from marginal.policy.deferral import Deferral, Verdict
from marginal.policy.scores import SCORES
from marginal.tokens import Generation, Token


def deciding(generation: Generation) -> Callable[[Token], bool]:
    """Gives a function that takes the tokens in order and is true at the one at which the answer is to be deferred.

    Without a rule no token is. Raises InvalidRequest for a score that nobody registered.
    """
    rule = generation.early_stop
    if rule is None:
        return _never
    if rule.score not in SCORES:
        raise InvalidRequest("early_stop.score", f"unknown, known are {', '.join(SCORES)}")
    deferral = Deferral(rule, choices=generation.choices)
    return lambda token: deferral.feed(token) is Verdict.DEFER


def _never(_: Token) -> bool:
    return False
