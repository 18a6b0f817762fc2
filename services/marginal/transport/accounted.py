"""A stream of chunks that can tell what was used, when it was left before it could say so itself."""

from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, overload

from marginal.routing.ports import Accounted
from marginal.tokens import Chunk, Usage


@dataclass(slots=True)
class Account:
    """Where a stream puts what was used in all; None is no more than its chunks said."""

    used: Usage | None = None


class AccountedChunks(AsyncGenerator[Chunk, None]):
    """An asynchronous generator that is `Accounted`."""

    def __init__(self, chunks: Callable[[Account], AsyncGenerator[Chunk, None]]) -> None:
        """`chunks` makes the generator, which fills its account in before it is closed."""
        self._account = Account()
        self._chunks = chunks(self._account)

    @property
    def used(self) -> Usage | None:
        """What was used in all, once the stream is closed."""
        return self._account.used

    def __anext__(self) -> Coroutine[Any, Any, Chunk]:
        return self._chunks.__anext__()

    def asend(self, value: None) -> Coroutine[Any, Any, Chunk]:
        return self._chunks.asend(value)

    @overload
    def athrow(
        self, kind: type[BaseException], value: object = None, trace: TracebackType | None = None, /
    ) -> Coroutine[Any, Any, Chunk]: ...
    @overload
    def athrow(
        self, kind: BaseException, value: None = None, trace: TracebackType | None = None, /
    ) -> Coroutine[Any, Any, Chunk]: ...
    def athrow(self, kind: Any, value: Any = None, trace: Any = None, /) -> Coroutine[Any, Any, Chunk]:  # noqa: ARG002
        return self._chunks.athrow(kind)

    def aclose(self) -> Coroutine[Any, Any, None]:
        return self._chunks.aclose()


def used_by(chunks: AsyncGenerator[Chunk, None]) -> Usage | None:
    """What a closed stream says was used in all, None when it says no more than its chunks did."""
    return chunks.used if isinstance(chunks, Accounted) else None
