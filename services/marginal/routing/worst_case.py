"""The most a request can cost, known before anything is generated: what is held for it."""

import unicodedata
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
    """In nano-units: `small` and `large` pay for one attempt of the tier, `full` for whatever a request may lead to."""

    small: int
    large: int
    full: int

    def of(self, tier: Tier) -> int:
        """One attempt of the tier."""
        return self.small if tier is Tier.SMALL else self.large


def worst_case(
    policy: Policy, generation: Generation, *, mode: Mode, tiers: Mapping[Tier, TierState], seconds: float
) -> WorstCase:
    """What a request that may take `seconds` can cost at most.

    No tokenizer makes more tokens of a text than it has bytes, once it has normalised it, and no model reads more than
    its context. In full the small tier may be asked twice, when the large one fails after a deferral.
    """

    if mode is Mode.SHADOW:
        seconds = max(seconds, policy.shadow.timeout_seconds)

    def attempt(tier: Tier) -> int:
        read, written = _most_input(generation, tiers[tier].context_tokens), generation.sampling.max_tokens
        each = (Usage(read, written), Usage(read, written, cached_input_tokens=read))
        return max(policy.cost(tier, usage, busy_micros=round(seconds * 1e6)) for usage in each)

    small, large = attempt(Tier.SMALL), attempt(Tier.LARGE)
    if mode is Mode.SMALL_ONLY:
        return WorstCase(small, large, small)
    return WorstCase(small, large, small + large + (0 if mode is Mode.LARGE_ONLY else small))


def _most_input(generation: Generation, context_tokens: int | None) -> int:
    size = sum(_most_bytes(message.text) + MESSAGE_TOKENS for message in generation.messages)
    most = size + TEMPLATE_TOKENS
    return most if context_tokens is None else min(most, context_tokens)


def _most_bytes(text: str) -> int:
    """Bytes of a text as whichever form a tokenizer may turn it into: some characters grow tenfold."""
    if text.isascii():
        return len(text)
    return max(len(form.encode()) for form in (text, *(unicodedata.normalize(name, text) for name in ("NFC", "NFKC"))))
