"""Runs in a pod: calls a router until told to end, and writes a JSON object a line for each call.

Arguments: the router as HOST:PORT, callers at a time, the mode, the deadline in seconds, and calls altogether (0: until
the file /tmp/end is there). After these, `retry` lets gRPC ask again where nothing has been answered yet, `ca=FILE`
speaks TLS with whom these authorities vouch for, `key=FILE` shows an API key, and after each call its caller rests for
`pause=SECONDS`.
Each caller has a connection of its own, as callers in different pods have, and one that is lost is made anew.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import NamedTuple

import grpc

from marginal.v1 import router_pb2
from marginal.v1.router_pb2_grpc import RouterServiceStub

END = Path("/tmp/end")  # noqa: S108 (of a pod of our own)
RETRY = {
    "methodConfig": [
        {
            "name": [{"service": "marginal.v1.RouterService"}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}
MODES = {"auto": router_pb2.MODE_AUTO, "small": router_pb2.MODE_SMALL_ONLY, "large": router_pb2.MODE_LARGE_ONLY}


class Way(NamedTuple):
    """How the router is reached."""

    target: str
    retry: bool
    ca: bytes | None
    key: str
    pause: float

    def channel(self) -> grpc.aio.Channel:
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.initial_reconnect_backoff_ms", 50),
            ("grpc.max_reconnect_backoff_ms", 500),
        ]
        if self.retry:
            options.append(("grpc.service_config", json.dumps(RETRY)))
        if self.ca is None:
            return grpc.aio.insecure_channel(self.target, options=options)
        return grpc.aio.secure_channel(self.target, grpc.ssl_channel_credentials(self.ca), options=options)


async def call(
    stub: RouterServiceStub, prompt: str, mode: str, seconds: float, metadata: list[tuple[str, str]]
) -> dict[str, object]:
    """One call from its first moment to its last."""
    asked = router_pb2.RouterServiceGenerateRequest(prompt=prompt, mode=MODES[mode])
    told: dict[str, object] = {"began": time.time(), "first_seconds": None, "failed": ""}
    began = time.monotonic()
    try:
        async for event in stub.Generate(asked, timeout=seconds, metadata=metadata):
            if told["first_seconds"] is None:
                told["first_seconds"] = time.monotonic() - began
            if event.HasField("final"):
                final = event.final
                told |= {
                    "tier": router_pb2.Tier.Name(final.tier),
                    "tiers_asked": [router_pb2.Tier.Name(attempt.tier) for attempt in final.attempts],
                    "policy_version": final.decision.policy_version,
                    "degraded": router_pb2.DegradedReason.Name(final.degraded_reason) if final.degraded_reason else "",
                    "trace_id": final.trace_id,
                    "nanos": final.total.units * 1_000_000_000 + final.total.nanos,
                }
        if "tier" not in told:
            told["failed"] = "ended without a final message"
    except grpc.aio.AioRpcError as error:
        told["failed"] = f"{error.code().name}: {error.details()}"
    return told | {"seconds": time.monotonic() - began}


async def caller(way: Way, name: int, mode: str, seconds: float, calls: int) -> None:
    metadata = [("authorization", f"Bearer {way.key}")] if way.key else []
    async with way.channel() as channel:
        stub = RouterServiceStub(channel)
        done = 0
        while not END.exists() and not 0 < calls <= done:  # noqa: ASYNC240 (a file of memory)
            told = await call(stub, f"caller {name} asks for the {done}th time", mode, seconds, metadata)
            print(json.dumps(told), flush=True)  # noqa: T201
            done += 1
            await asyncio.sleep(max(way.pause, 0.05 if told["failed"] else 0.0))


async def main(target: str, callers: str, mode: str, seconds: str, calls: str, *more: str) -> None:
    each = int(calls) // int(callers)
    given = dict(word.split("=", 1) for word in more if "=" in word)
    ca = Path(given["ca"]).read_bytes() if "ca" in given else None  # noqa: ASYNC240 (before anything is asked)
    key = Path(given["key"]).read_text().strip() if "key" in given else ""  # noqa: ASYNC240
    way = Way(target, "retry" in more, ca, key, float(given.get("pause", 0)))
    await asyncio.gather(*(caller(way, name, mode, float(seconds), each) for name in range(int(callers))))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
