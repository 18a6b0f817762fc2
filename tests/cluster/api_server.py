"""A Kubernetes API server as far as Marginal asks one: lists, watches, expired versions, and a way to a pod's port."""

import asyncio
import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Self

from aiohttp import WSMsgType, web

Object = dict[str, Any]
DATA, ERROR = 0, 1
"""The two channels of each forwarded port."""


class ApiServer:
    """Holds objects by the path of their collection; every change has a version, and watches hear of it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        """Paths with "list", "watch VERSION", "get" or "forward" in front."""
        self.ports: dict[tuple[str, int], int] = {}
        """Ports on this machine that stand for those of pods."""
        self.refuses: dict[str, int] = {}
        """Paths, or beginnings of them, and the status that they are refused with."""
        self.token = "secret-token"  # noqa: S105 (of a server of our own)
        """Who shows another is not known."""
        self._collections: dict[str, dict[str, Object]] = {}
        self._events: list[tuple[int, str, str, Object]] = []
        self._version = 100
        self._forgotten = 0
        self._changed = asyncio.Condition()
        self._runner: web.AppRunner | None = None
        self._note = asyncio.Event()
        self._port = 0

    async def __aenter__(self) -> Self:
        await self.come_back()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.go_away()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def kubeconfig(self, directory: Path, *, namespace: str = "default") -> Path:
        """Writes a kubeconfig that leads here."""
        names = {"cluster": "here", "user": "me", "namespace": namespace}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "clusters": [{"name": "here", "cluster": {"server": self.url}}],
            "users": [{"name": "me", "user": {"token": self.token}}],
            "contexts": [{"name": "here", "context": names}],
        }
        path = directory / "kubeconfig"
        path.write_text(json.dumps(config))  # JSON is YAML
        return path

    async def put(self, collection: str, found: Object) -> None:
        """Creates or replaces an object by its name."""
        objects = self._collections.setdefault(collection, {})
        name = found["metadata"]["name"]
        await self._tell("MODIFIED" if name in objects else "ADDED", collection, found)
        objects[name] = found

    async def delete(self, collection: str, name: str) -> None:
        await self._tell("DELETED", collection, self._collections[collection].pop(name))

    async def bookmark(self, collection: str) -> None:
        """Tells watches of a version at which nothing changed for them."""
        await self._tell("BOOKMARK", collection, {"metadata": {}})

    def forget(self) -> None:
        """Every version so far is expired: who wants to watch from there must list again."""
        self._forgotten = self._version

    def forget_all(self) -> None:
        """The same, and every version to come is expired as well."""
        self._forgotten = sys.maxsize

    async def go_away(self) -> None:
        """Stops listening and drops whoever is connected."""
        if self._runner:
            await self._runner.cleanup()
        self._runner = None

    async def come_back(self) -> None:
        """Listens again, at the same port."""
        app = web.Application()
        app.router.add_get("/api/v1/namespaces/{namespace}/pods/{pod}/portforward", self._forward)
        app.router.add_get("/{path:.*}", self._read)
        self._runner = web.AppRunner(app, shutdown_timeout=0.01)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def times_asked(self, beginning: str, times: int) -> None:
        """Waits until so many requests began like this."""
        while sum(one.startswith(beginning) for one in self.asked) < times:
            self._note.clear()
            await self._note.wait()

    def _asked(self, what: str) -> None:
        self.asked.append(what)
        self._note.set()

    async def _tell(self, kind: str, collection: str, found: Object) -> None:
        async with self._changed:
            self._version += 1
            found["metadata"] |= {"resourceVersion": str(self._version)}
            self._events.append((self._version, kind, collection, json.loads(json.dumps(found))))
            self._changed.notify_all()

    async def _read(self, request: web.Request) -> web.StreamResponse:
        path, query = request.path, request.query
        status = next((code for start, code in self.refuses.items() if path.startswith(start)), None)
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            status = 401
        if status is not None:
            return web.json_response({"kind": "Status", "code": status}, status=status)
        if query.get("watch"):
            return await self._watch(request, path, query)
        collection, _, name = path.rpartition("/")
        if name in self._collections.get(collection, {}):
            self._asked(f"get {path}")
            return web.json_response(self._collections[collection][name])
        self._asked(f"list {path}")
        if path not in self._collections and name not in PLURALS:
            return web.json_response({"kind": "Status", "code": 404}, status=404)
        items = [one for one in self._collections.get(path, {}).values() if _selected(one, query)]
        return web.json_response({"metadata": {"resourceVersion": str(self._version)}, "items": items})

    async def _watch(self, request: web.Request, path: str, query: Mapping[str, str]) -> web.StreamResponse:
        version = int(query["resourceVersion"])
        self._asked(f"watch {version} {path}")
        response = web.StreamResponse()
        await response.prepare(request)
        if version < self._forgotten:
            await _write(response, "ERROR", {"kind": "Status", "code": 410, "reason": "Expired"})
            return response
        with suppress(TimeoutError):
            async with asyncio.timeout(float(query["timeoutSeconds"])):
                while True:
                    for at, kind, collection, found in list(self._events):
                        if at > version and collection == path:
                            version = at
                            if kind == "BOOKMARK" or _selected(found, query):
                                await _write(response, kind, found)
                    async with self._changed:
                        await self._changed.wait_for(partial(self._news, path, version))
        return response

    def _news(self, path: str, version: int) -> bool:
        return any(at > version and collection == path for at, _, collection, _ in self._events)

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Accept", "*/*") != "*/*":
            return web.Response(status=406)  # as a real one: a connection is no object
        if status := self.refuses.get(request.path):
            return web.Response(status=status)
        port = int(request.query["ports"])
        self._asked(f"forward {request.match_info['pod']}:{port}")
        socket = web.WebSocketResponse(protocols=("v4.channel.k8s.io",))
        await socket.prepare(request)
        for channel in (DATA, ERROR):
            await socket.send_bytes(bytes([channel]) + port.to_bytes(2, "little"))
        reader, writer = await asyncio.open_connection("127.0.0.1", self.ports[request.match_info["pod"], port])

        async def back() -> None:
            while data := await reader.read(65_536):
                await socket.send_bytes(bytes([DATA]) + data)
            await socket.close()

        pumping = asyncio.create_task(back())
        try:
            async for message in socket:
                if message.type is WSMsgType.BINARY and message.data[0] == DATA:
                    writer.write(message.data[1:])
                    await writer.drain()
        finally:
            pumping.cancel()
            writer.close()
        return socket


PLURALS = {
    "endpointslices",
    "deployments",
    "pods",
    "events",
    "horizontalpodautoscalers",
    "statefulsets",
    "services",
    "replicasets",
}


def endpoint(
    address: str, *, ready: bool | None = True, serving: bool | None = None, terminating: bool = False, pod: str = ""
) -> Object:
    """One endpoint of a slice."""
    conditions = {"ready": ready, "serving": ready if serving is None else serving, "terminating": terminating}
    return {
        "addresses": [address],
        "conditions": {name: value for name, value in conditions.items() if value is not None},
        "targetRef": {"kind": "Pod", "uid": pod or address},
    }


def endpoint_slice(name: str, service: str, *endpoints: Object, family: str = "IPv4", port: int = 50052) -> Object:
    """An EndpointSlice of a service."""
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
        "addressType": family,
        "ports": [{"name": "grpc", "port": port}],
        "endpoints": list(endpoints),
    }


def _selected(found: Object, query: Mapping[str, str]) -> bool:
    labels = found["metadata"].get("labels", {})
    wanted = [pair.split("=", 1) for pair in query.get("labelSelector", "").split(",") if pair]
    return all(labels.get(key) == value for key, value in wanted)


async def _write(response: web.StreamResponse, kind: str, found: Object) -> None:
    await response.write(json.dumps({"type": kind, "object": found}).encode() + b"\n")
