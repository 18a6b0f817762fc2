"""The most a request can cost, known before anything is generated: what is held for it."""

from collections.abc import Mapping
from dataclasses import dataclass

from marginal.routing.policies import Policy
from marginal.routing.requests import Mode
from marginal.routing.tiers import TierState
from marginal.tokens import Generation, Tier, Usage

TEMPLATE_TOKENS = 64
"""What a chat template may add to a conversation, a system prompt of its own included."""

MESSAGE_TOKENS = 8
"""What it may add to each message: the marks of its beginning, its role and its end."""


@dataclass(frozen=True, slots=True)
class WorstCase:
    """In nano-units: `small` pays for one attempt of the small tier, `full` for whatever a request may lead to."""

    small: int
    full: int


def worst_case(
    policy: Policy, generation: Generation, *, mode: Mode, tiers: Mapping[Tier, TierState], seconds: float
) -> WorstCase:
    """What a request that may take `seconds` can cost at most.

    No tokenizer makes more tokens of a text than it has bytes, and no model reads more than its context. In full the
    small tier may be asked twice, when the large one fails after a deferral.
    """

    def attempt(tier: Tier) -> int:
        read, written = _most_input(generation, tiers[tier].context_tokens), generation.sampling.max_tokens
        each = (Usage(read, written), Usage(read, written, cached_input_tokens=read))
        return max(policy.cost(tier, usage, busy_micros=round(seconds * 1e6)) for usage in each)

    small, large = attempt(Tier.SMALL), attempt(Tier.LARGE)
    if mode is Mode.SMALL_ONLY:
        return WorstCase(small, small)
    return WorstCase(small, small + large + (0 if mode is Mode.LARGE_ONLY else small))


def _most_input(generation: Generation, context_tokens: int | None) -> int:
    size = sum(len(message.text.encode()) + MESSAGE_TOKENS for message in generation.messages)
    most = size + TEMPLATE_TOKENS
    return most if context_tokens is None else min(most, context_tokens)
