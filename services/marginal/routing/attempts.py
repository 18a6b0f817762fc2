"""One call of one tier: metered while it runs, priced when it ends."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from typing import Self

from marginal.errors import BackendProtocol, ModelFault, Overloaded, StreamInterrupted, TierUnavailable
from marginal.routing.policies import Policy
from marginal.routing.ports import Accounted
from marginal.routing.records import Attempt, Outcome
from marginal.routing.tiers import TierState
from marginal.routing.waiting import Place
from marginal.tokens import Chunk, FinishReason, Generation, Token, Usage

Clock = Callable[[], float]
Patience = Callable[[], float | None]
"""Seconds that the next token may take, None for as long as the deadline allows."""

END_SECONDS = 0.05
"""What a tier that has stopped by itself may take to say so: who waits is on the way to the other tier."""


class RunningAttempt:
    """An attempt under way: iterate it for its tokens, in one or several loops.

    Its usage grows as it goes; its outcome is ABORTED unless somebody keeps it or it fails. A model that goes on after
    `most_tokens` is cut off there, and what it wrote beyond them is neither handed on nor paid.
    """

    def __init__(
        self,
        state: TierState,
        chunks: AsyncGenerator[Chunk, None],
        patience: Patience,
        *,
        most_tokens: int,
        began: Callable[[], None],
    ) -> None:
        self.tier = state.tier
        self.usage = Usage()
        self.outcome = Outcome.ABORTED
        self.finish: FinishReason | None = None
        self.answered = False
        self.given_up = False
        self._state = state
        self._chunks = chunks
        self._patience = patience
        self._began = began
        self._most = self._left = most_tokens

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[Token, ...]:
        """The next tokens, at least one. Raises TierUnavailable, BackendProtocol and what the model raises."""
        while self.finish is None:
            chunk = await self._next_chunk()
            if chunk is None:
                raise BackendProtocol("the model's stream ended without a finish reason")
            if not self.answered:
                self.answered = True
                self._state.answered()
                self._began()
            if chunk.tokens and len(chunk.tokens) > self._left:
                chunk = self._cut_off(chunk)
            self._left -= len(chunk.tokens)
            self.usage = self._within(chunk.usage)
            self.finish = chunk.finish
            if chunk.tokens:
                return chunk.tokens
        raise StopAsyncIteration

    async def stopped(self) -> None:
        """Takes the end that follows a deciding token at once, as the early stop promises.

        A tier that does not keep the promise, or cannot, is left where it is.
        """
        with suppress(TimeoutError, StopAsyncIteration, ModelFault):
            async with asyncio.timeout(END_SECONDS):
                await anext(self)

    def settle(self) -> None:
        """Takes the tier's own account of a stream that is closed and had not come to its end."""
        if self.finish is None and isinstance(self._chunks, Accounted) and self._chunks.used is not None:
            self.usage = self._within(self._chunks.used)

    @property
    def used_nothing(self) -> bool:
        """Whether the tier did not begin to answer."""
        return not (self.answered or self.usage.input_tokens or self.usage.output_tokens)

    def _within(self, usage: Usage) -> Usage:
        """No more than was asked for is paid, whatever a tier claims: so much was held and not more."""
        if usage.output_tokens <= self._most and usage.cached_input_tokens <= usage.input_tokens:
            return usage
        output, cached = min(usage.output_tokens, self._most), min(usage.cached_input_tokens, usage.input_tokens)
        return Usage(usage.input_tokens, output, cached, counted=True)

    def _cut_off(self, chunk: Chunk) -> Chunk:
        beyond = len(chunk.tokens) - self._left
        paid = replace(chunk.usage, output_tokens=max(0, chunk.usage.output_tokens - beyond), counted=True)
        return Chunk(chunk.tokens[: self._left], paid, FinishReason.LENGTH)

    async def _next_chunk(self) -> Chunk | None:
        seconds = self._patience()
        try:
            async with asyncio.timeout(seconds):
                return await anext(self._chunks, None)
        except TimeoutError:
            self.given_up = True
            raise TierUnavailable(f"the {self.tier.value} tier was silent for {seconds:.3g} s") from None


@asynccontextmanager
async def attempting(
    state: TierState,
    generation: Generation,
    *,
    policy: Policy,
    place: Place,
    timeout: float,
    patience: Patience,
    clock: Clock,
    committed: Callable[[], bool],
    ended: Callable[[Attempt], None],
) -> AsyncIterator[RunningAttempt]:
    """Calls a tier; leaving it stops the generation and hands the priced Attempt to `ended`, whatever happened.

    `timeout` is in seconds. `place` is told how the tier takes it. A call that the tier did not begin to answer costs
    nothing, and one that was left costs what the tier says that it used, heard of or not, and no more time than it had.
    A fault of the model after the commit point is raised as StreamInterrupted. The tier's state learns of faults that
    are its own: not of Overloaded, which passes, and not of a caller's haste.
    """
    started, fault = clock(), None
    chunks = state.model.generate(generation, timeout=timeout)
    began = state.busy.begin(started)
    running = RunningAttempt(
        state,
        chunks,
        patience,
        most_tokens=generation.sampling.max_tokens,
        began=lambda: place.answered(clock() - started),
    )
    try:
        async with aclosing(chunks):
            yield running
    except ModelFault as error:
        fault, running.outcome = type(error).__name__, Outcome.FAILED
        hasty = running.given_up and clock() - started < policy.degrade.silence_seconds
        if isinstance(error, Overloaded) or (running.given_up and not running.answered):
            place.dropped()  # silence is all that shows of a tier with a long queue of its own
        if not hasty and not isinstance(error, Overloaded):
            state.failed(clock())
        if committed():
            raise StreamInterrupted(f"the {state.tier.value} tier failed after part of its answer was sent") from error
        raise
    except Exception as error:
        fault, running.outcome = type(error).__name__, Outcome.FAILED
        raise
    finally:
        running.settle()
        now = clock()
        share = state.busy.end(began, now)
        busy_micros = 0 if running.used_nothing else min(share, round(timeout * 1e6))
        ended(
            Attempt(
                tier=state.tier,
                model=state.model_name,
                outcome=running.outcome,
                usage=running.usage,
                cost_nanos=0 if running.used_nothing else policy.cost(state.tier, running.usage, busy_micros),
                seconds=now - started,
                error=fault,
                busy_micros=busy_micros,
            )
        )
