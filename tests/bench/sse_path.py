"""`python -m tests.bench.sse_path`: from an engine's bytes to Chunks, against bare aiohttp readers of the same stream.

A bare reader takes lines and parses the JSON of each event; the barest does not even parse. An engine's process sends
the same answer again and again, as fast as it is read: events of one token with 5 alternatives, as vLLM writes them.
"""

import argparse
import asyncio
import json
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web
from rich.console import Console
from rich.table import Table

from marginal.backends.openai_compatible import OpenAICompatible
from marginal.tokens import Generation, Message, Role, Sampling

TOKENS, ALTERNATIVES, ROUNDS = 5_000, 5, 15
PIECE = 16 * 1024
"""Bytes that the engine writes at once."""

PATH = "/v1/chat/completions"
QUESTION = Generation((Message(Role.USER, "hello"),), Sampling(max_tokens=TOKENS), alternatives=ALTERNATIVES)

Reader = Callable[[str], Awaitable[int]]


def stream() -> bytes:
    """One answer as vLLM streams it with usage in every event."""
    events = [_event({"role": "assistant", "content": ""}, None, 0)]
    for number in range(TOKENS):
        word = f" w{number % 1000}"
        top = [_entry(f"{word}{other}", -0.125 - 1.5 * other) for other in range(ALTERNATIVES)]
        row = _entry(word, -0.125) | {"top_logprobs": top}
        events.append(_event({"content": word}, {"content": [row]}, number + 1))
    events.append(_event({}, None, TOKENS, finish="stop"))
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + b"data: [DONE]\n\n"


async def through_marginal(url: str) -> int:
    """The whole path: to Chunks, as a model service reads them."""
    model = OpenAICompatible(url, model="bench", context_tokens=TOKENS * 2)
    seen = 0
    async for chunk in model.generate(QUESTION):
        seen += len(chunk.tokens)
    await model.close()
    return seen


async def parsing(url: str) -> int:
    """A bare reader that parses every event's JSON."""
    seen = 0
    async with aiohttp.ClientSession() as session, session.post(url + PATH, json={}) as response:
        async for line in response.content:
            if line.startswith(b"data: {"):
                seen += "logprobs" in json.loads(line[6:])["choices"][0]
    return seen


async def barest(url: str) -> int:
    """A bare reader of lines that parses nothing."""
    seen = 0
    async with aiohttp.ClientSession() as session, session.post(url + PATH, json={}) as response:
        async for line in response.content:
            seen += line.startswith(b"data: {")
    return seen


READERS: dict[str, Reader] = {"bytes to Chunks": through_marginal, "bare, with JSON": parsing, "bare": barest}


async def measure(rounds: int) -> dict[str, float]:
    """Tokens a second of processor time of each reader: the best of rounds, for others on the machine only slow it."""
    seconds: dict[str, list[float]] = {name: [] for name in READERS}
    async with _engine() as url:
        for _ in range(rounds):
            for name, read in READERS.items():
                before = time.process_time()
                assert await read(url) >= TOKENS
                seconds[name].append(time.process_time() - before)
    return {name: TOKENS / min(each) for name, each in seconds.items()}


def table(speeds: dict[str, float]) -> Table:
    shown = Table(title=f"one core, {TOKENS:,} events with {ALTERNATIVES} alternatives, the best of rounds", box=None)
    shown.add_column("reader")
    shown.add_column("tokens/s", justify="right")
    shown.add_column("of it", justify="right")
    for name, speed in speeds.items():
        shown.add_row(name, f"{speed:,.0f}", f"{speeds['bytes to Chunks'] / speed:.2f}")
    return shown


@asynccontextmanager
async def _engine() -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.sse_path", "--serve", stdin=PIPE, stdout=PIPE
    )
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.kill()
        await process.communicate()


async def _serve() -> None:
    answer = stream()

    async def reply(request: web.Request) -> web.StreamResponse:
        await request.read()
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        for start in range(0, len(answer), PIECE):
            await response.write(answer[start : start + PIECE])
        return response

    app = web.Application()
    app.router.add_post(PATH, reply)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)  # noqa: T201
    await asyncio.to_thread(sys.stdin.read)


def _event(delta: dict[str, str], logprobs: object, tokens: int, *, finish: str | None = None) -> dict[str, object]:
    usage = {"prompt_tokens": 9, "total_tokens": 9 + tokens, "completion_tokens": tokens}
    choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish, "token_ids": None}
    head = {"id": "chatcmpl-8f2d1c", "object": "chat.completion.chunk", "created": 1795548847, "model": "bench"}
    return head | {"choices": [choice], "usage": usage}


def _entry(text: str, logprob: float) -> dict[str, object]:
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--serve", action="store_true", help="be the engine")
    asked = parser.parse_args()
    if asked.serve:
        asyncio.run(_serve())
        return
    speeds = asyncio.run(measure(asked.rounds))
    if asked.json:
        print(json.dumps({"tokens_per_second": speeds, "events": TOKENS}, indent=2))  # noqa: T201
    else:
        Console().print(table(speeds))


if __name__ == "__main__":
    main()
