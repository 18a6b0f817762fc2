"""Callers of a router, well-behaved or not, and what they saw of a call: an answer, a refusal, or nothing."""

from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from marginal.transport.money import nanos_of
from marginal.v1 import generation_pb2, router_pb2

GENERATE = "/marginal.v1.RouterService/Generate"
SECONDS = 60.0

Request = router_pb2.RouterServiceGenerateRequest
Metadata = tuple[tuple[str, str], ...]


def asking(prompt: str, *, max_tokens: int = 64, **others: Any) -> Request:
    """A request of the default policy, unless it says otherwise."""
    return Request(prompt=prompt, sampling=generation_pb2.Sampling(max_tokens=max_tokens), **others)


@dataclass
class Seen:
    """What came of a call: an answer with its final message, or a refusal with all its details."""

    code: grpc.StatusCode = grpc.StatusCode.OK
    text: str = ""
    pieces: int = 0
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
    def status(self) -> str:
        """ "OK", or the code and, if Marginal gave one, the reason."""
        return f"{self.code.name} {self.reason}".rstrip()

    @property
    def request_id(self) -> str:
        """ "" when the call ended without a word of the router's."""
        return str(self.trailers.get("marginal-request-id", self.final.request_id if self.final else ""))

    @property
    def pushback(self) -> str | None:
        """The trailer that tells gRPC's own retries to stop."""
        value = self.trailers.get("grpc-retry-pushback-ms")
        return None if value is None else str(value)

    @property
    def nanos(self) -> int:
        """What the caller was told that it costs."""
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
    """Calls one router over a connection of its own, with an API key or a tenant's name if it has one."""

    def __init__(self, target: str, *, key: str = "", tenant: str = "") -> None:
        self._channel = grpc.aio.insecure_channel(
            target,
            options=(
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.min_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 500),
            ),
        )
        said = {"authorization": f"Bearer {key}" if key else "", "marginal-tenant": tenant}
        self._metadata = tuple((name, value) for name, value in said.items() if value)

    def begun(
        self,
        request: Request | bytes,
        *metadata: tuple[str, str],
        timeout: float | None = SECONDS,
        compression: grpc.Compression | None = None,
    ) -> Any:
        """A call under way, to be read or left; it reads bytes, and sends those of `request` as they are."""
        data = request if isinstance(request, bytes) else request.SerializeToString()
        generate = self._channel.unary_stream(GENERATE)
        return generate(data, timeout=timeout, metadata=(*self._metadata, *metadata), compression=compression)

    async def call(
        self,
        request: Request | bytes,
        *metadata: tuple[str, str],
        timeout: float | None = SECONDS,
        compression: grpc.Compression | None = None,
        leaves_after: int | None = None,
    ) -> Seen:
        """Takes everything that comes, or so many messages."""
        call = self.begun(request, *metadata, timeout=timeout, compression=compression)
        return await taken(call, leaves_after=leaves_after)

    async def close(self) -> None:
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


async def taken(call: Any, *, leaves_after: int | None = None) -> Seen:
    """Takes what still comes of a call, or so many messages of it."""
    seen = Seen()
    try:
        while leaves_after is None or seen.pieces < leaves_after:
            message = await call.read()
            if message is grpc.aio.EOF:
                _take_trailers(seen, await call.trailing_metadata())
                return seen
            _take(seen, message)
    except grpc.aio.AioRpcError as error:
        _take_refusal(seen, error)
        return seen
    finally:
        call.cancel()
    seen.code = grpc.StatusCode.CANCELLED
    return seen


def _take(seen: Seen, message: bytes) -> None:
    response = router_pb2.RouterServiceGenerateResponse.FromString(message)
    seen.pieces += 1
    seen.text += response.text.text
    if response.HasField("final"):
        seen.final = response.final
        seen.sent += message


def _take_refusal(seen: Seen, error: grpc.aio.AioRpcError) -> None:
    seen.code, seen.text = error.code(), error.details() or ""
    seen.sent += f"{error.details()}{error.debug_error_string()}".encode()
    _take_trailers(seen, error.initial_metadata())
    _take_trailers(seen, error.trailing_metadata())
    try:
        status = rpc_status.from_call(error)
    except ValueError:  # gRPC's own code has replaced the one that the details came with
        status = None
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
