"""A stream that the router leaves is paid as the tier itself accounts for it."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from marginal.routing.attempts import attempting
from marginal.routing.records import Attempt, Outcome
from marginal.tokens import Chunk, FinishReason, Generation, Message, Role, Sampling, Tier, Token, Usage
from unit.routing.cascade import INPUT_TOKENS, LARGE, PRICES, UNSURE, Cascade, script

ASKED = Generation((Message(Role.USER, "who knows?"),), Sampling(max_tokens=4))
SEEN, LAST = Usage(10, 1), Usage(10, 4)


class Accounting:
    """A model that goes on for ever, and says in the end what its stream used."""

    def __init__(self, used: Usage | None, *, begins: bool = True) -> None:
        self.used = used
        self._begins = begins

    def generate(self, generation: Generation, *, timeout: float | None = None) -> "Chunks":  # noqa: ARG002
        return Chunks(self.used, begins=self._begins)


class Chunks(AsyncGenerator[Chunk, None]):
    """Its stream: a token a read."""

    def __init__(self, used: Usage | None, *, begins: bool) -> None:
        self.used = used
        self._begins = begins

    async def asend(self, value: None) -> Chunk:  # noqa: ARG002
        if not self._begins:
            await asyncio.sleep(30)
        return Chunk((Token("a"),), SEEN)

    async def athrow(self, kind: object, value: object = None, trace: object = None) -> Chunk:  # noqa: ARG002
        raise StopAsyncIteration


async def left(model: Accounting, *, after: int) -> Attempt:
    """The attempt of a router that reads so often and leaves."""
    cascade, ended = Cascade(), list[Attempt]()
    state = cascade.tiers[Tier.SMALL]
    state.model = model
    async with (
        state.places.place("critical", 1.0) as place,
        attempting(
            state,
            ASKED,
            policy=cascade.book.policies.by_name["test"],
            place=place,
            timeout=1.0,
            patience=lambda: None,
            clock=cascade.clock,
            committed=lambda: False,
            ended=ended.append,
        ) as attempt,
    ):
        for _ in range(after):
            await anext(attempt, None)
    return ended[0]


@pytest.mark.parametrize("used", [LAST, Usage(10, 4, counted=True)])
async def test_tokens_that_were_generated_and_not_heard_of_are_paid(used: Usage) -> None:
    attempt = await left(Accounting(used), after=1)
    assert attempt.usage == used
    assert attempt.cost_nanos == PRICES[Tier.SMALL].cost(used)
    assert attempt.outcome is Outcome.ABORTED


async def test_a_tier_that_has_nothing_to_add_is_paid_what_was_heard() -> None:
    assert (await left(Accounting(None), after=1)).usage == SEEN


async def test_a_tier_that_began_to_answer_without_our_hearing_of_it_is_paid() -> None:
    attempt = await left(Accounting(LAST), after=0)
    assert attempt.cost_nanos == PRICES[Tier.SMALL].cost(LAST)


@pytest.mark.parametrize("used", [None, Usage(), Usage(counted=True)])
async def test_a_tier_that_did_not_begin_costs_nothing_not_even_the_price_of_a_call(used: Usage | None) -> None:
    assert (await left(Accounting(used), after=0)).cost_nanos == 0


@pytest.mark.parametrize("reads", [1, ASKED.sampling.max_tokens + 1])
async def test_what_was_written_beyond_the_asked_is_not_paid_whatever_the_tier_says(reads: int) -> None:
    usage = (await left(Accounting(Usage(10, 9)), after=reads)).usage
    assert usage.output_tokens <= ASKED.sampling.max_tokens
    assert usage.counted


async def test_on_a_deferral_the_end_that_the_early_stop_promises_is_taken() -> None:
    cascade = Cascade(small=script(UNSURE), large=script(LARGE))
    record = await cascade.ask()
    (run,) = cascade.small_model.runs
    assert (run.finish, run.cut) == (FinishReason.UNSURE, False)
    assert record.attempts[0].usage == Usage(INPUT_TOKENS, 2)
