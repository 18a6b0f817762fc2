"""Everywhere that something could be left behind: files, a collector of spans and metrics, the store, the wire."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from valkey import Valkey

READ = {
    "string": lambda client, key: client.get(key),
    "hash": lambda client, key: client.hgetall(key),
    "set": lambda client, key: client.smembers(key),
    "list": lambda client, key: client.lrange(key, 0, -1),
    "zset": lambda client, key: client.zrange(key, 0, -1, withscores=True),
    "stream": lambda client, key: client.xrange(key),
}


class Collector(grpc.GenericRpcHandler):
    """Takes whatever OpenTelemetry sends and keeps the bytes, by the name of the service that they were sent to."""

    def __init__(self) -> None:
        self.received: dict[str, bytes] = {}
        self.endpoint = ""

    def service(self, handler_call_details: Any) -> Any:
        signal = handler_call_details.method.split("/")[1].rpartition(".")[2]

        async def export(request: bytes, _: Any) -> bytes:
            self.received[signal] = self.received.get(signal, b"") + request
            return b""

        return grpc.unary_unary_rpc_method_handler(export)


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """A collector at a port of the loopback."""
    collector = Collector()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((collector,))
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield collector
    await server.stop(None)


def files(directory: Path, *, but: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """Every file below a directory, those aside that were put there."""
    for path in sorted(directory.rglob("*")):
        if path.is_file() and path.name not in but:
            yield str(path.relative_to(directory)), path.read_bytes()


def stored(client: Valkey) -> Iterator[tuple[str, bytes]]:
    """Every key of a store, and what is under it in plain words."""
    for key in client.scan_iter():
        kind = client.type(key)
        yield f"{kind} {key}", f"{key} {READ[kind](client, key)}".encode()
