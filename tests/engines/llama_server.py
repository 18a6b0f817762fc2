"""A real engine over HTTP: llama.cpp's own server from the xllamacpp wheel, in a process of its own.

async with LlamaServer(path) as server:
    ...                         # talk to server.url
    server.measured()           # what its engine has computed so far
"""

import asyncio
import sys
import urllib.request
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path
from types import TracebackType
from typing import Self

START_SECONDS = 30.0

_PROGRAM = """
import sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.n_parallel, params.n_ctx = sys.argv[1], int(sys.argv[2]), int(sys.argv[2]) * int(sys.argv[3])
params.hostnames, params.port, params.n_threads_http = ["127.0.0.1"], 0, 16
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.api_keys = sys.argv[4:]
params.ctx_shift = params.ui = False
params.no_extra_bufts = params.force_pure_content_parser = True
params.endpoint_metrics = params.endpoint_props = params.endpoint_slots = True
params.cache_ram_mib, params.verbosity = 0, -1
server = xllamacpp.Server(params)
server.handle_metrics()
print(server.listening_address, flush=True)
sys.stdin.read()
"""


class LlamaServer:
    """One server on a free port of the loopback; it ends with the block, or with the process that started it."""

    def __init__(self, path: Path, *, parallel: int = 4, context_tokens: int = 256, key: str | None = None) -> None:
        """`context_tokens` are those of one slot; with `key` requests must carry it as a bearer token."""
        keys = () if key is None else (key,)
        self._arguments = (str(path), str(parallel), str(context_tokens), *keys)
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._process: Process | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _PROGRAM, *self._arguments, stdin=PIPE, stdout=PIPE, stderr=DEVNULL
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(START_SECONDS):
            self.url = (await self._process.stdout.readline()).decode().strip()
        assert self.url.startswith("http://127.0.0.1:")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            await self._process.communicate()

    def measured(self) -> dict[str, float]:
        """The engine's own counters, e.g. `n_decode_total`: one per step of one or more generations."""
        request = urllib.request.Request(f"{self.url}/metrics", headers=self._headers)  # noqa: S310
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            lines = answer.read().decode().splitlines()
        pairs = (line.removeprefix("llamacpp:").split() for line in lines if not line.startswith("#"))
        return {pair[0]: float(pair[1]) for pair in pairs if len(pair) == 2}
