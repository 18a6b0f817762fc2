"""What routing needs of the world, as protocols; adapters live in backends, transport and telemetry."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

from marginal.routing.holds import Ask, Grant
from marginal.routing.records import Attempt, CostRecord
from marginal.tokens import Chunk, Generation, ModelDescription, Tier, Usage


class LanguageModel(Protocol):
    """Something that answers a generation token by token: in process, over gRPC, or behind an engine.

    Every implementation keeps the promises of `tests/contract/test_language_model.py`.
    """

    async def describe(self) -> ModelDescription:
        """Names the model and its limits. Raises ModelFault when it cannot be reached."""
        ...

    def generate(self, generation: Generation, *, timeout: float | None = None) -> AsyncGenerator[Chunk, None]:
        """Streams chunks of at least one token as they are generated, then one chunk with the finish reason.

        `timeout` is in seconds. Closing the generator stops the generation within one token. With `early_stop` the
        deciding token is the last one, and the finish reason is UNSURE. Raises InvalidRequest, ModelFault,
        DeadlineExceeded.
        """
        ...


@runtime_checkable
class Accounted(Protocol):
    """What a stream of chunks may be besides: one that asks for what it used when it is closed before its end.

    For streams that lose on the way what was generated but not yet heard of; who generates in process loses nothing.
    """

    @property
    def used(self) -> Usage | None:
        """What was used in all, once the stream is closed; None when that is what its last chunk said.

        It is `counted` when nobody could be asked.
        """
        ...


class Recorder(Protocol):
    """Where routing tells what it did; nothing of it may fail a request."""

    def attempt(self, tier: Tier) -> AbstractContextManager[Callable[[Attempt], None]]:
        """Spans one attempt; the callable takes the attempt as it ended."""
        ...

    def answered(self, record: CostRecord) -> None:
        """Takes what the caller is told, while the request's trace is still current."""
        ...

    def completed(self, record: CostRecord) -> None:
        """Takes the one cost record of a request, its shadow attempt included."""
        ...

    def trace_id(self) -> str:
        """The current trace's id in hexadecimal, empty when there is none."""
        ...


class Ledger(Protocol):
    """Who may spend how much, and what was spent. Every call is idempotent by request id.

    `progress` and `settle` never fail and never wait: what cannot be told to a store now is told later.
    """

    async def reserve(self, ask: Ask) -> Grant:
        """Holds a request's worst case, or that of the small tier alone.

        Raises BudgetExceeded, LedgerUnavailable, JournalFull, and of a key seen before InProgress, AlreadyAnswered or
        KeyReused.
        """
        ...

    def progress(self, request_id: str, nanos: int) -> None:
        """Tells what an open request can have cost by now, its attempts under way at their worst.

        It is charged so much if nothing more is heard of it.
        """
        ...

    def settle(self, record: CostRecord) -> None:
        """Takes the final record of a request and gives back what was held beyond it.

        A second record of the same request replaces the first: the cost of a shadow attempt comes later.
        """
        ...

    async def durable(self) -> None:
        """Waits until every record taken so far would survive the end of this process and its machine."""
        ...
