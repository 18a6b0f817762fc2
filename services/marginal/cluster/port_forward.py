"""A port of a pod on this machine, by way of the API server; each connection is one of its own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from marginal.cluster.api import Api, ApiAway

CHUNK = 64 * 1024
DATA, CHANNELS = 0, 2
"""The channel with the data, of the two that each port has: the other tells errors."""


@dataclass(slots=True)
class Way:
    """`address` on this machine leads to the port; `refused` is why the latest connection was not to be had."""

    address: str = ""
    refused: str = ""


@asynccontextmanager
async def forwarded(api: Api, namespace: str, pod: str, port: int) -> AsyncIterator[Way]:
    """A way to the port meanwhile; a connection that cannot be had is closed."""
    way = Way()
    connections = set[asyncio.Task[None]]()

    def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(carry(reader, writer))
        connections.add(task)
        task.add_done_callback(connections.discard)

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError):
            try:
                async with api.port(namespace, pod, port) as socket:
                    await _both_ways(socket, reader, writer)
            except ApiAway as error:
                way.refused = str(error)

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    try:
        way.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield way
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


async def _both_ways(
    socket: aiohttp.ClientWebSocketResponse, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    there = asyncio.create_task(_there(socket, reader))
    back = asyncio.create_task(_back(socket, writer))
    try:
        await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (there, back):
            task.cancel()
        await asyncio.gather(there, back, return_exceptions=True)


async def _there(socket: aiohttp.ClientWebSocketResponse, reader: asyncio.StreamReader) -> None:
    while data := await reader.read(CHUNK):
        await socket.send_bytes(bytes([DATA]) + data)


async def _back(socket: aiohttp.ClientWebSocketResponse, writer: asyncio.StreamWriter) -> None:
    greeted = set[int]()
    async for message in socket:
        if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
            continue
        channel = message.data[0]
        if channel not in greeted and len(greeted) < CHANNELS:
            greeted.add(channel)  # the first frame of each only repeats the port's number
        elif channel == DATA:
            writer.write(message.data[1:])
            await writer.drain()
        else:
            return
