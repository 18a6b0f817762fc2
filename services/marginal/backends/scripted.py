"""A language model that replays given tokens with given timing: for tests, and for load without an engine."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from marginal.backends.early_stop import deciding
from marginal.errors import DeadlineExceeded, InvalidRequest, MarginalError
from marginal.tokens import Chunk, FinishReason, Generation, ModelDescription, Token, Usage

MAX_ALTERNATIVES = 20
RUNS_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Script:
    """What to replay: tokens, when they come, and whether and where it fails.

    The first token is due after `first_delay_seconds`, every further one `delay_seconds` after the one before. `fault`
    is raised instead of token number `fault_at`, counted from 0. `input_tokens` None counts the words of the messages.
    """

    tokens: tuple[Token, ...]
    delay_seconds: float = 0.0
    first_delay_seconds: float = 0.0
    tokens_per_chunk: int = 1
    fault: MarginalError | None = None
    fault_at: int = 0
    input_tokens: int | None = None


@dataclass(slots=True)
class Run:
    """What became of one generation: tokens generated, and its finish; without one it was `cut`, or failed."""

    generation: Generation
    generated: int = 0
    finish: FinishReason | None = None
    cut: bool = False


class ScriptedModel:
    """Replays a script, the same or one chosen by what is asked, and keeps account of what it generated."""

    def __init__(
        self,
        script: Script | Callable[[Generation], Script],
        *,
        name: str = "scripted",
        context_tokens: int = 4096,
    ) -> None:
        self._script = script
        self._name = name
        self._context_tokens = context_tokens
        self.generated = 0
        """Tokens of all generations so far."""
        self.active = 0
        """Generations going on now."""
        self.runs: deque[Run] = deque(maxlen=RUNS_REMEMBERED)
        """The latest generations, in the order they were started."""

    async def describe(self) -> ModelDescription:
        """Names the model and its limits; never fails."""
        return ModelDescription(self._name, self._context_tokens, MAX_ALTERNATIVES)

    async def generate(self, generation: Generation, *, timeout: float | None = None) -> AsyncGenerator[Chunk, None]:
        """Keeps the promises of `LanguageModel.generate`."""
        script = self._script if isinstance(self._script, Script) else self._script(generation)
        run = Run(generation)
        self.runs.append(run)
        self.active += 1
        try:
            async with aclosing(self._replay(script, run, timeout)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except (GeneratorExit, asyncio.CancelledError):
            run.cut = run.finish is None
            raise
        finally:
            self.active -= 1

    async def _replay(self, script: Script, run: Run, timeout: float | None) -> AsyncGenerator[Chunk, None]:
        generation = run.generation
        used = self._input_tokens(script, generation)
        is_deciding = deciding(generation)
        clock = _Clock(timeout)
        room = min(generation.sampling.max_tokens, self._context_tokens - used)
        finish = FinishReason.STOP if len(script.tokens) <= room else FinishReason.LENGTH
        fault = script.fault if script.fault_at <= min(room, len(script.tokens)) else None
        due = script.first_delay_seconds
        pending: list[Token] = []
        for token in script.tokens[: script.fault_at if fault else room]:
            await clock.until(due)
            due += script.delay_seconds
            run.generated += 1
            self.generated += 1
            pending.append(_asked(token, generation.alternatives))
            if is_deciding(pending[-1]):
                finish, fault = FinishReason.UNSURE, None
                break
            if len(pending) == script.tokens_per_chunk:
                yield Chunk(tuple(pending), Usage(used, run.generated))
                pending = []
        if pending:
            yield Chunk(tuple(pending), Usage(used, run.generated))
        if fault is not None:
            await clock.until(due)
            raise fault
        run.finish = finish
        yield Chunk((), Usage(used, run.generated), finish)

    def _input_tokens(self, script: Script, generation: Generation) -> int:
        used = script.input_tokens
        if used is None:
            used = sum(len(message.text.split()) for message in generation.messages) or 1
        if used >= self._context_tokens:
            raise InvalidRequest("messages", f"the prompt has {used} tokens, the model holds {self._context_tokens}")
        return used


class _Clock:
    """Waits for moments counted in seconds from its making, and not past a timeout."""

    def __init__(self, timeout: float | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._start = self._loop.time()
        self._timeout = timeout

    async def until(self, due: float) -> None:
        """Sleeps until `due`; lets others run even when that is past. Raises DeadlineExceeded."""
        late = self._timeout is not None and due > self._timeout
        moment = self._timeout if late and self._timeout is not None else due
        await asyncio.sleep(max(0.0, self._start + moment - self._loop.time()))
        if late or (self._timeout is not None and self._loop.time() - self._start > self._timeout):
            raise DeadlineExceeded("the deadline passed before the answer was complete")


def _asked(token: Token, alternatives: int) -> Token:
    if not alternatives:
        return Token(token.text, token_id=token.token_id)
    return Token(token.text, token.logprob, token.alternatives[:alternatives], token.token_id)
