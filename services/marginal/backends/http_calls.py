"""How an engine is called over HTTP: where, with which key, and what it says when it refuses.

An error's text never holds a URL, a key or what the engine said.
"""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from marginal.backends.engine_errors import Complaint, complaint
from marginal.backends.key_file import KeyFile
from marginal.backends.patience import Timeouts, unreachable
from marginal.errors import BackendProtocol, ConfigurationError

Headers = Callable[[], Mapping[str, str]]

MOST_CONNECTIONS = 256
IDLE_SECONDS = 4.0
"""A connection is kept no longer: Python's servers close theirs after 5 s, and a request must not meet that."""

FACTS_SECONDS = 10.0
MOST_ANSWER_BYTES = 1024 * 1024


class HttpCalls:
    """The calls of one engine over one bounded pool of connections."""

    def __init__(
        self,
        base_url: str,
        *,
        api_key_file: Path | None,
        ca_file: Path | None,
        headers: Headers | None,
        timeouts: Timeouts,
        connections: int,
    ) -> None:
        """`base_url` may end with /v1. Raises ConfigurationError for a URL, key or CA that cannot be used."""
        self._base = _base(base_url)
        self._key = None if api_key_file is None else KeyFile(api_key_file)
        self._tls = tls(ca_file) if self._base.scheme == "https" else True  # reading certificates takes 20 ms
        self._headers = headers or dict
        self._timeouts = timeouts
        self._connections = connections
        self._opened: aiohttp.ClientSession | None = None

    async def post(self, path: str, body: Mapping[str, Any]) -> aiohttp.ClientResponse:
        """Sends a request and gives the answer's head; whoever gets it hangs up. Raises aiohttp's errors.

        An engine may have closed a connection that it promised to keep (llama-server does): then another is tried.
        """
        while True:
            line = _Line()
            try:
                return await self._session().post(
                    self._url(path),
                    json=body,
                    headers=self._all_headers(),
                    allow_redirects=False,
                    trace_request_ctx=line,
                )
            except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
                if not line.used_before:
                    raise

    async def ask(self, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, object]:
        """Gets (or posts to) a path and gives status and JSON, None if it is none. Raises ModelFault."""
        async with self._asked(path, body) as response:
            return response.status, await _json(response)

    async def read(self, path: str) -> tuple[int, Mapping[str, str], str]:
        """Gets a path and gives status, headers and text, such as an engine's metrics. Raises ModelFault."""
        async with self._asked(path, None) as response:
            return response.status, response.headers, (await _whole(response)).decode(errors="replace")

    @contextlib.asynccontextmanager
    async def _asked(self, path: str, body: Mapping[str, Any] | None) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            async with asyncio.timeout(FACTS_SECONDS):
                response = await self._session().request(
                    "GET" if body is None else "POST",
                    self._url(path),
                    json=body,
                    headers=self._all_headers(),
                    allow_redirects=False,
                )
                try:
                    yield response
                finally:
                    hang_up(response)
        except (aiohttp.ClientError, OSError) as error:  # a TimeoutError is an OSError
            raise unreachable(error, begun=False) from None

    async def close(self) -> None:
        """Closes every connection."""
        if self._opened is not None:
            await self._opened.close()

    def _session(self) -> aiohttp.ClientSession:
        if self._opened is None:
            lines = aiohttp.TraceConfig()
            lines.on_connection_reuseconn.append(_mark_used)
            self._opened = aiohttp.ClientSession(
                trace_configs=[lines],
                connector=aiohttp.TCPConnector(limit=self._connections, ssl=self._tls, keepalive_timeout=IDLE_SECONDS),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._timeouts.connect_seconds),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Accept-Encoding": "identity", "User-Agent": "marginal"},
            )
        return self._opened

    def _url(self, path: str) -> URL:
        return self._base.with_path(self._base.path.rstrip("/") + path, keep_query=True)

    def _all_headers(self) -> dict[str, str]:
        own = {} if self._key is None else {"Authorization": self._key.bearer()}
        return {**self._headers(), **own}


@dataclass(slots=True)
class _Line:
    """The connection of one request."""

    used_before: bool = False


async def _mark_used(_: aiohttp.ClientSession, context: Any, __: aiohttp.TraceConnectionReuseconnParams) -> None:
    if isinstance(context.trace_request_ctx, _Line):
        context.trace_request_ctx.used_before = True


def hang_up(response: aiohttp.ClientResponse) -> None:
    """Ends a call at once: the engine sees its connection cut, unless the answer was read to its end."""
    connection = response.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()
    response.close()


async def refusal(response: aiohttp.ClientResponse) -> Complaint:
    """Why an engine did not answer 200."""
    body: object = None
    with contextlib.suppress(BackendProtocol):
        body = await _json(response)
    status = None if response.ok else response.status
    return complaint(body, status=status, retry_after=response.headers.get("Retry-After"))


async def _json(response: aiohttp.ClientResponse) -> object:
    """The body as JSON, None if it is none. Raises BackendProtocol for one that is too large."""
    whole = await _whole(response)
    try:
        return json.loads(whole)
    except (ValueError, RecursionError):
        return None


async def _whole(response: aiohttp.ClientResponse) -> bytes:
    pieces: list[bytes] = []
    async for piece in response.content.iter_any():
        pieces.append(piece)
        if sum(map(len, pieces)) > MOST_ANSWER_BYTES:
            raise BackendProtocol("the engine sent an answer that is too large")
    return b"".join(pieces)


def _base(text: str) -> URL:
    try:
        url = URL(text)
        whole = url.scheme in ("http", "https") and bool(url.host) and url.port is not None
    except ValueError:
        whole = False
    if not whole:
        raise ConfigurationError("base_url: give http://HOST:PORT or https://HOST:PORT, with or without a path")
    path = url.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return url.with_path(path or "/", keep_query=True)


def tls(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError):
        raise ConfigurationError("ca_file: cannot be read, give a file of certificates in PEM") from None
