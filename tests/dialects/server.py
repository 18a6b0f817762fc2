"""A server that speaks an engine's dialect, shows faults on demand, and keeps account of what it generated.

async with DialectServer("vllm") as server:
    server.inject("F5", at=3)
    ...                         # talk to server.url
    server.log[-1].generated
"""

import asyncio
import json
import socket
import ssl
import struct
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from dialects import answers
from dialects.faults import LONG_LINE_BYTES, RETRY_AFTER_SECONDS, Fault, asked_for, fault
from dialects.llama_server import LlamaServer
from dialects.metrics import metrics
from dialects.sglang import Sglang
from dialects.tgi import Tgi
from dialects.vllm import Vllm
from dialects.writing import Asked, Dialect, Refusal, Writer

DIALECTS: dict[str, type[Dialect]] = {each.name: each for each in (Tgi, Vllm, Sglang, LlamaServer)}
NEVER = 3600.0
TRICKLE_BYTES = 64
TRICKLE_SECONDS = 0.01
CRAWL_SECONDS = 60.0
"""Between two parts of an event once a link only crawls: a deadline falls within it, and never as a token arrives."""
SETTLING_TURNS, SETTLING_SECONDS = 10, 0.005
"""Between the last token and what breaks the stream, so that it is read: a reset takes unread bytes with it.

Turns of the loop, since a reader on the same loop reads in one of them, however slow the machine is.
"""


@dataclass
class Generated:
    """One generation as the engine saw it: tokens generated and sent, and whether it finished or why it was cut.

    `cut` is the fault that ended it, or `disconnect` when it was only that the reader had gone. Times are seconds of a
    monotonic clock.
    """

    number: int
    route: str
    prompt_tokens: int = 0
    max_tokens: int = 0
    generated: int = 0
    sent: int = 0
    finished: bool = False
    finish: str | None = None
    cut: str | None = None
    disconnected: bool = False
    deaf: bool = False
    fault: str | None = None
    status: int = 200
    traceparent: str | None = None
    started: float = field(default_factory=time.monotonic)
    cut_at: float | None = None
    ended: float | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class DialectServer:
    """An engine's HTTP server, in this process and on a free port of the loopback."""

    def __init__(
        self, dialect: str, *, key: str | None = None, prefix: str = "", tls: ssl.SSLContext | None = None
    ) -> None:
        """With `key` requests must carry it as a bearer token; `prefix` is where the engine's paths begin."""
        self.dialect = DIALECTS[dialect]()
        self.log: list[Generated] = []
        self.active = 0
        """Generations going on now."""
        self.counters = True
        """Whether they are told at /metrics; to be changed before it starts."""
        self._key = key
        self._prefix = prefix
        self._closed = asyncio.Event()
        self._tls = tls
        self._faults: deque[Fault] = deque()
        self._running: web.AppRunner | None = None
        self.url = ""

    @property
    def generated(self) -> int:
        """Tokens of all generations so far."""
        return sum(entry.generated for entry in self.log)

    def inject(self, name: str, *, variant: str = "", at: int | None = None, times: int = 1) -> None:
        """Makes the next `times` generations show a fault, after `at` tokens."""
        self._faults.extend([fault(name, variant, at)] * times)

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        for path in self.dialect.generating:
            app.router.add_post(self._prefix + path, self._generate)
        for path, answer in self.dialect.facts().items():
            app.router.add_get(self._prefix + path, _answering(answer, self._authorized))
        if self.counters:
            app.router.add_get(f"{self._prefix}/metrics", metrics(self.dialect.name, lambda: self.active))
        for path in ("/tokenize", "/chat_tokenize"):
            app.router.add_post(self._prefix + path, self._tokenize)
        self._running = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
        await self._running.setup()
        site = web.TCPSite(self._running, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        port = self._running.addresses[0][1]
        self.url = f"http{'s' if self._tls else ''}://127.0.0.1:{port}{self._prefix}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._running is not None:
            await self._running.cleanup()
            self._closed.set()
            await self.quiet()

    async def quiet(self, *, seconds: float = 5.0) -> None:
        """Waits until no generation goes on. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while self.active:  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    def _authorized(self, request: web.Request) -> bool:
        return self._key is None or request.headers.get("Authorization") == f"Bearer {self._key}"

    async def _tokenize(self, request: web.Request) -> web.StreamResponse:
        if not self._authorized(request):
            return web.json_response(self.dialect.failure(401), status=401)
        return web.json_response(self.dialect.tokenize(await request.json()))

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        path = request.path.removeprefix(self._prefix)
        entry = Generated(len(self.log), path, traceparent=request.headers.get("traceparent"))
        self.log.append(entry)
        if not self._authorized(request):
            entry.status = 401
            return web.json_response(self.dialect.failure(401), status=401)
        try:
            body: Mapping[str, Any] = await request.json()
            asked = self.dialect.read(path, body)
        except Refusal as refusal:
            entry.status, entry.ended = refusal.status if refusal.status != 200 else 422, time.monotonic()
            return await _refused(request, refusal)
        entry.prompt_tokens, entry.max_tokens = asked.prompt_tokens, asked.max_tokens
        shown = asked_for(asked.question) or (self._faults.popleft() if self._faults else None)
        entry.fault = f"{shown.name}/{shown.variant}" if shown else None
        self.active += 1
        try:
            return await _Generation(request, self.dialect, asked, shown, entry, self._closed).run()
        except (asyncio.CancelledError, ConnectionError):
            entry.disconnected = True
            entry.cut, entry.cut_at = entry.cut or "disconnect", time.monotonic()
            raise
        finally:
            self.active -= 1
            entry.ended = time.monotonic()


class _Generation:
    """One generation on its way out."""

    def __init__(
        self,
        request: web.Request,
        dialect: Dialect,
        asked: Asked,
        shown: Fault | None,
        entry: Generated,
        closed: asyncio.Event,
    ) -> None:
        self._request = request
        self._dialect = dialect
        self._asked = asked
        self._fault = shown
        self._entry = entry
        self._closed = closed
        self._response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})

    async def run(self) -> web.StreamResponse:
        early = await self._before_the_stream()
        if early is not None:
            return early
        await self._response.prepare(self._request)
        writer = self._dialect.writer(self._asked, self._fault)
        if await self._instead_of_tokens(writer):
            return self._response
        pieces = answers.answer(self._asked.question)[: self._asked.max_tokens]
        finish = "stop" if pieces[-1].special else "length"
        if self._is("F6"):  # the last event is lost, with the token in it
            pieces = pieces[:-1]
        await self._send(writer.opening())
        for position, piece in enumerate(pieces):
            if self._is("F4", "F5", "F7", "F11", "F15", "F19") and position >= self._at:
                await self._break(writer)
                return self._response
            if position:
                await self._pace()
            self._entry.generated += 1
            last = position == len(pieces) - 1 and not self._is("F6")
            events = writer.token(piece, finish if last else None)
            await self._send(events, sent=self._entry.generated - writer.held)
        if self._is("F6"):
            self._cut()
            return self._response
        self._entry.finished, self._entry.finish = True, finish
        await self._send(writer.ending(finish))
        return self._response

    async def _before_the_stream(self) -> web.StreamResponse | None:
        """Faults that show instead of a stream."""
        if self._is("F12", "F13"):
            await asyncio.sleep(NEVER)
        if self._is("F8", "F9") and self._variant != "stream":
            self._entry.status = int(self._variant)
            self._cut()
            headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if self._is("F8") else {}
            return web.json_response(
                self._dialect.failure(self._entry.status), status=self._entry.status, headers=headers
            )
        if self._is("F19") and self._variant == "html":
            self._cut()
            return web.Response(text="<html><body><h1>It works!</h1></body></html>", content_type="text/html")
        return None

    async def _instead_of_tokens(self, writer: Writer) -> bool:
        if self._is("F10"):
            await asyncio.sleep(NEVER)
        if self._is("F8"):
            self._cut()
            await self._send(writer.error("overloaded"))
            return True
        return False

    async def _break(self, writer: Writer) -> None:
        """Faults that show after some tokens, and after these were read."""
        self._cut()
        if not self._is("F11"):
            for _ in range(SETTLING_TURNS):
                await asyncio.sleep(SETTLING_SECONDS)
        if self._is("F7"):
            await self._send(writer.error("generation"))
        elif self._is("F11"):
            await asyncio.sleep(NEVER)
        elif self._is("F19"):
            await self._send([_nonsense(self._variant)])
        else:
            if self._is("F15"):
                await self._send([b'data: {"choices":[{"ind'])
            self._abort(reset=self._variant == "reset")

    async def _pace(self) -> None:
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(answers.pace(self._asked.question)):
                    await self._closed.wait()
                raise asyncio.CancelledError
        except asyncio.CancelledError:
            if not self._is("F20") or self._entry.deaf:
                raise
            self._entry.deaf = self._entry.disconnected = True
            self._entry.cut_at = time.monotonic()

    async def _send(self, events: list[bytes], *, sent: int | None = None) -> None:
        """Writes events; with the last of their bytes so many tokens are `sent`."""
        if self._entry.deaf:
            return
        pieces = [piece for event in events for piece in self._pieces(event)]
        for position, piece in enumerate(pieces, start=1):
            try:
                if self._is("F14"):
                    crawls = self._variant == "crawl" and self._entry.sent >= self._at and position > 1
                    await asyncio.sleep(CRAWL_SECONDS if crawls else TRICKLE_SECONDS)
                if position == len(pieces) and sent is not None:
                    self._entry.sent = sent
                await self._response.write(piece)
            except ConnectionError:
                if not self._is("F20"):
                    raise
                self._entry.deaf = self._entry.disconnected = True
                self._entry.cut_at = time.monotonic()

    def _pieces(self, event: bytes) -> list[bytes]:
        if not self._is("F14"):
            return [event]
        return [event[start : start + TRICKLE_BYTES] for start in range(0, len(event), TRICKLE_BYTES)]

    def _abort(self, *, reset: bool) -> None:
        transport = self._request.transport
        if transport is None:
            return
        if reset:
            bare = transport.get_extra_info("socket")
            bare.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()

    def _cut(self) -> None:
        assert self._fault is not None
        self._entry.cut, self._entry.cut_at = self._entry.fault, time.monotonic()

    def _is(self, *names: str) -> bool:
        return self._fault is not None and self._fault.name in names

    @property
    def _variant(self) -> str:
        return self._fault.variant if self._fault else ""

    @property
    def _at(self) -> int:
        return self._fault.at if self._fault else 0


def _nonsense(variant: str) -> bytes:
    if variant == "long":
        return b'data: {"choices":[{"text":"' + b"x" * LONG_LINE_BYTES
    if variant == "utf8":
        return b'data: {"index":1,"token":{"id":1,"text":"\xe6\xbc","logprob":-0.1,"spec\xff\n\n'
    return b'data: {"choices": [oops\n\n'


async def _refused(request: web.Request, refusal: Refusal) -> web.StreamResponse:
    if refusal.status != 200:
        return web.json_response(refusal.body, status=refusal.status)
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    await response.write(b"data:" + json.dumps(refusal.body).encode() + b"\n\n")
    return response


def _answering(answer: Any, authorized: Any) -> Any:
    async def handler(request: web.Request) -> web.StreamResponse:
        if not authorized(request):
            return web.json_response({"error": "unauthorized"}, status=401)
        return web.Response(text=answer) if isinstance(answer, str) else web.json_response(answer)

    return handler
