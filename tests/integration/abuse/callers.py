"""Callers of a router, well-behaved or not: raw bytes go in, and everything that comes back is looked at."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from marginal.routing.records import CANCELLED
from marginal.transport.money import nanos_of
from marginal.v1 import generation_pb2, router_pb2

GENERATE = "/marginal.v1.RouterService/Generate"
SECONDS = 20.0

Request = router_pb2.RouterServiceGenerateRequest
Metadata = tuple[tuple[str, str], ...]


def asking(prompt: str = "a question", *, max_tokens: int = 4, **others: Any) -> Request:
    """A request like any other."""
    return Request(prompt=prompt, sampling=generation_pb2.Sampling(max_tokens=max_tokens), **others)


@dataclass
class Seen:
    """What came of a call: an answer with its final message, or a refusal with all its details."""

    code: grpc.StatusCode = grpc.StatusCode.OK
    text: str = ""
    final: router_pb2.Final | None = None
    reason: str = ""
    info: dict[str, str] = field(default_factory=dict)
    fields: list[str] = field(default_factory=list)
    quotas: list[str] = field(default_factory=list)
    retry_seconds: float | None = None
    trailers: dict[str, str | bytes] = field(default_factory=dict)
    sent: bytes = b""
    """Status text, headers and trailers as they came over the wire, and the final message; not the answer's text."""

    @property
    def request_id(self) -> str:
        return str(self.trailers.get("marginal-request-id", ""))

    @property
    def pushback(self) -> str | None:
        """The trailer that tells gRPC's own retries to stop."""
        value = self.trailers.get("grpc-retry-pushback-ms")
        return None if value is None else str(value)

    @property
    def nanos(self) -> int:
        assert self.final is not None
        return nanos_of(self.final.total)

    @property
    def degraded(self) -> str:
        assert self.final is not None
        return router_pb2.DegradedReason.Name(self.final.degraded_reason).removeprefix("DEGRADED_REASON_")

    @property
    def tier(self) -> str:
        assert self.final is not None
        return router_pb2.Tier.Name(self.final.tier).removeprefix("TIER_")

    @property
    def threshold(self) -> float:
        assert self.final is not None
        return self.final.decision.threshold


class Caller:
    """One caller with a channel of its own and, if it has one, its API key."""

    def __init__(self, target: str, key: str = "") -> None:
        self._channel = grpc.aio.insecure_channel(target, options=(("grpc.use_local_subchannel_pool", 1),))
        self._metadata: Metadata = (("authorization", f"Bearer {key}"),) if key else ()

    async def close(self) -> None:
        await self._channel.close()

    async def call(
        self,
        request: bytes | Request,
        *metadata: tuple[str, str],
        timeout: float = SECONDS,
        compression: grpc.Compression | None = None,
        hang_up: bool = False,
    ) -> Seen:
        """Sends a request and takes everything that comes; with `hang_up` only the first message."""
        data = request if isinstance(request, bytes) else request.SerializeToString()
        generate = self._channel.unary_stream(GENERATE)
        call = generate(data, timeout=timeout, metadata=(*self._metadata, *metadata), compression=compression)
        seen = Seen()
        try:
            async for message in call:
                _take(seen, message)
                if hang_up:
                    call.cancel()
        except grpc.aio.AioRpcError as error:
            _take_refusal(seen, error)
        except asyncio.CancelledError:
            if not hang_up:
                raise
            seen.code, seen.reason = grpc.StatusCode.CANCELLED, CANCELLED
        else:
            _take_trailers(seen, await call.trailing_metadata())
        return seen


def _take(seen: Seen, message: bytes) -> None:
    response = router_pb2.RouterServiceGenerateResponse.FromString(message)
    if response.HasField("final"):
        seen.final = response.final
        seen.sent += message
    seen.text += response.text.text


def _take_refusal(seen: Seen, error: grpc.aio.AioRpcError) -> None:
    seen.code, seen.text = error.code(), error.details() or ""
    seen.sent += f"{error.details()}{error.debug_error_string()}".encode()
    _take_trailers(seen, (*error.initial_metadata(), *error.trailing_metadata()))
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        info, fault = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        retry, quota = error_details_pb2.RetryInfo(), error_details_pb2.QuotaFailure()
        unpacked: list[Message] = [kind for kind in (info, fault, retry, quota) if detail.Unpack(kind)]
        assert len(unpacked) == 1, detail
        if info in unpacked:
            assert info.domain == "marginal"
            seen.reason, seen.info = info.reason, dict(info.metadata)
        seen.fields += [violation.field for violation in fault.field_violations]
        seen.quotas += [violation.subject for violation in quota.violations]
        if retry in unpacked:
            seen.retry_seconds = retry.retry_delay.ToTimedelta().total_seconds()


def _take_trailers(seen: Seen, trailers: Any) -> None:
    for key, value in trailers or ():
        seen.trailers[key] = value
        seen.sent += f" {key}=".encode() + (value if isinstance(value, bytes) else str(value).encode())
