"""The connection under the client of Text Generation Inference: pooled, bounded, and safe to split into lines."""

import contextlib
import logging
import re
from collections.abc import AsyncIterator, Generator
from pathlib import Path

import httpx2
from huggingface_hub import AsyncInferenceClient

from marginal.backends.http_calls import IDLE_SECONDS, Headers, tls
from marginal.backends.key_file import KeyFile
from marginal.backends.patience import Timeouts
from marginal.backends.sse import MOST_BYTES

LONGEST_REFUSAL_BYTES = 64 * 1024
"""Of the body of an HTTP error."""

KEPT_ALIVE = 32

_ESCAPED = {b"\xc2\x85": b"\\u0085", b"\xe2\x80\xa8": b"\\u2028", b"\xe2\x80\xa9": b"\\u2029"}
"""Characters that the client's line reader takes for line ends; in JSON they only occur in strings."""

_NO_NUMBER = re.compile(rb'("logprob":\s*)(?:NaN|-?Infinity)')
"""Quotes within a string are escaped, so that this is never part of one."""


class TooLong(httpx2.DecodingError):
    """The engine sent a line, or a refusal, that is longer than anything it has to say."""


class NoEvents(httpx2.DecodingError):
    """What answered is no engine."""


class EngineClient(AsyncInferenceClient):
    """Hugging Face's client for one generation, on connections that outlive it; leaving it closes the generation's.

    The client would make a pool, and read the certificates, for every generation; nothing public lends it one.
    """

    def __init__(self, url: str, connections: httpx2.AsyncClient) -> None:
        super().__init__(model=url)
        self.timeout = connections.timeout  # type: ignore[assignment]  # handed on to httpx2, which takes more
        self._lent = connections

    async def close(self) -> None:
        """Closes the generation's connection, unless its answer was read to the end."""
        with contextlib.suppress(httpx2.HTTPError, OSError):
            await self.exit_stack.aclose()

    async def _get_async_client(self) -> httpx2.AsyncClient:
        return self._lent


def opened(
    *, api_key_file: Path | None, ca_file: Path | None, headers: Headers | None, timeouts: Timeouts, most: int
) -> httpx2.AsyncClient:
    """Makes a pool of at most so many connections to one engine. Raises ConfigurationError for the key or the CA."""
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # it would log every URL
    limits = httpx2.Limits(max_connections=most, max_keepalive_connections=KEPT_ALIVE, keepalive_expiry=IDLE_SECONDS)
    return httpx2.AsyncClient(
        auth=_Credentials(None if api_key_file is None else KeyFile(api_key_file), headers),
        transport=_Guarded(httpx2.AsyncHTTPTransport(verify=tls(ca_file), limits=limits, trust_env=False)),
        timeout=httpx2.Timeout(None, connect=timeouts.connect_seconds),
        headers={"Accept-Encoding": "identity", "User-Agent": "marginal"},
        event_hooks={"response": [_read_refusal]},
    )


class _Credentials(httpx2.Auth):
    """The key of a file and the headers of each call, and nobody else's key.

    The client would send the Hugging Face token of whoever runs it to any engine.
    """

    def __init__(self, key: KeyFile | None, headers: Headers | None) -> None:
        self._key = key
        self._headers = headers

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        request.headers.pop("Authorization", None)
        if self._headers is not None:
            request.headers.update(self._headers())
        if self._key is not None:
            request.headers["Authorization"] = self._key.bearer()
        yield request


async def _read_refusal(response: httpx2.Response) -> None:
    if response.status_code >= 400:
        await response.aread()


class _Guarded(httpx2.AsyncBaseTransport):
    """Answers whose lines are bounded and end only where the engine ended them."""

    def __init__(self, inner: httpx2.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await self._inner.handle_async_request(request)
        stream = response.stream
        if not isinstance(stream, httpx2.AsyncByteStream):
            raise TypeError
        if response.status_code >= 400:
            guarded: httpx2.AsyncByteStream = _Bounded(stream)
        elif response.headers.get("Content-Type", "").startswith("text/html"):
            await response.aclose()
            raise NoEvents("a page for people")
        else:
            guarded = _Lines(stream, request.extensions.get("longest_line_bytes", MOST_BYTES))
        return httpx2.Response(
            response.status_code, headers=response.headers, stream=guarded, extensions=response.extensions
        )

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Bounded(httpx2.AsyncByteStream):
    """A body of limited length."""

    def __init__(self, inner: httpx2.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for piece in self._inner:
            size += len(piece)
            if size > LONGEST_REFUSAL_BYTES:
                raise TooLong("a refusal without end")
            yield piece

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Lines(httpx2.AsyncByteStream):
    """A body in whole lines of limited length, in which the client's parser finds nothing to stumble over."""

    def __init__(self, inner: httpx2.AsyncByteStream, longest: int) -> None:
        self._inner = inner
        self._longest = longest

    async def __aiter__(self) -> AsyncIterator[bytes]:
        begun: list[bytes] = []
        length = 0
        async for piece in self._inner:
            whole, newline, rest = piece.rpartition(b"\n")
            length = len(rest) if newline else length + len(rest)
            if max(length, len(piece)) > self._longest:
                raise TooLong("a line without end")
            if newline:
                yield _plain(b"".join((*begun, whole, newline)))
                begun.clear()
            begun.append(rest)
        if rest := b"".join(begun):
            yield _plain(rest)

    async def aclose(self) -> None:
        await self._inner.aclose()


def _plain(lines: bytes) -> bytes:
    """JSON that means the same, but for numbers that are none: the client would compare NaN with itself for ever."""
    for character, escape in _ESCAPED.items():
        lines = lines.replace(character, escape)
    return _NO_NUMBER.sub(rb"\1null", lines)
