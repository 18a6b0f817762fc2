"""One call of one tier: metered while it runs, priced when it ends."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Self

from marginal.errors import BackendProtocol, MarginalError, ModelFault, StreamInterrupted, TierUnavailable
from marginal.routing.policies import Policy
from marginal.routing.records import Attempt, Outcome
from marginal.routing.tiers import TierState
from marginal.tokens import Chunk, FinishReason, Generation, Tier, Token, Usage

Clock = Callable[[], float]


class RunningAttempt:
    """An attempt under way: iterate it for its tokens, in one or several loops.

    Its usage grows as it goes; its outcome is ABORTED unless somebody keeps it or it fails.
    """

    def __init__(self, tier: Tier, chunks: AsyncGenerator[Chunk, None], *, first_token_seconds: float) -> None:
        self.tier = tier
        self.usage = Usage()
        self.outcome = Outcome.ABORTED
        self.finish: FinishReason | None = None
        self.answered = False
        self._chunks = chunks
        self._first_token_seconds = first_token_seconds

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[Token, ...]:
        """The next tokens, at least one. Raises TierUnavailable, BackendProtocol and what the model raises."""
        while self.finish is None:
            chunk = await (anext(self._chunks, None) if self.answered else self._first())
            if chunk is None:
                raise BackendProtocol("the model's stream ended without a finish reason")
            self.answered = True
            self.usage = chunk.usage
            self.finish = chunk.finish
            if chunk.tokens:
                return chunk.tokens
        raise StopAsyncIteration

    async def _first(self) -> Chunk | None:
        try:
            async with asyncio.timeout(self._first_token_seconds):
                return await anext(self._chunks, None)
        except TimeoutError:
            raise TierUnavailable(f"no token within {self._first_token_seconds:g} s") from None


@asynccontextmanager
async def attempting(
    state: TierState,
    generation: Generation,
    *,
    policy: Policy,
    timeout: float,
    clock: Clock,
    committed: Callable[[], bool],
    ended: Callable[[Attempt], None],
) -> AsyncIterator[RunningAttempt]:
    """Calls a tier; leaving it stops the generation and hands the priced Attempt to `ended`, whatever happened.

    `timeout` is in seconds. A call that failed before its first token costs nothing. A fault of the model after the
    commit point is raised as StreamInterrupted.
    """
    started, fault = clock(), None
    chunks = state.model.generate(generation, timeout=timeout)
    running = RunningAttempt(state.tier, chunks, first_token_seconds=policy.degrade.first_token_seconds)
    try:
        async with aclosing(chunks):
            yield running
    except MarginalError as error:
        fault, running.outcome = type(error).__name__, Outcome.FAILED
        if not isinstance(error, ModelFault):
            raise
        state.failed(clock())
        if committed():
            raise StreamInterrupted(f"the {state.tier.value} tier failed after part of its answer was sent") from error
        raise
    finally:
        if running.answered and fault is None:
            state.answered()
        refused = fault is not None and not running.answered
        cost_nanos = 0 if refused else policy.cost(state.tier, running.usage)
        seconds = clock() - started
        ended(Attempt(state.tier, state.model_name, running.outcome, running.usage, cost_nanos, seconds, fault))
