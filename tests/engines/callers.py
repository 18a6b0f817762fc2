"""A caller of a router, and what it saw of a call: an answer, a refusal, or nothing because it hung up."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from marginal.transport.money import nanos_of
from marginal.v1 import generation_pb2, router_pb2

GENERATE = "/marginal.v1.RouterService/Generate"
SECONDS = 60.0

Request = router_pb2.RouterServiceGenerateRequest


def asking(prompt: str, *, max_tokens: int = 64, **others: Any) -> Request:
    """A request of the default policy, unless it says otherwise."""
    return Request(prompt=prompt, sampling=generation_pb2.Sampling(max_tokens=max_tokens), **others)


@dataclass
class Seen:
    """What came of a call; `status` is "OK", or the code and, if Marginal gave one, the reason."""

    code: grpc.StatusCode = grpc.StatusCode.OK
    reason: str = ""
    pieces: int = 0
    final: router_pb2.Final | None = None
    trailers: Mapping[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> str:
        return f"{self.code.name} {self.reason}".rstrip()

    @property
    def request_id(self) -> str:
        """ "" when the call ended without a word of the router's."""
        return str(self.trailers.get("marginal-request-id", self.final.request_id if self.final else ""))

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


class Caller:
    """Calls one router over a connection of its own."""

    def __init__(self, target: str, *, tenant: str = "") -> None:
        self._channel = grpc.aio.insecure_channel(
            target,
            options=(
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.min_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 500),
            ),
        )
        self._metadata = (("marginal-tenant", tenant),) if tenant else ()

    def begun(self, request: Request, *, timeout: float | None = SECONDS) -> Any:
        """A call under way, to be read or left."""
        generate = self._channel.unary_stream(
            GENERATE,
            request_serializer=Request.SerializeToString,
            response_deserializer=router_pb2.RouterServiceGenerateResponse.FromString,
        )
        return generate(request, timeout=timeout, metadata=self._metadata)

    async def call(self, request: Request, *, timeout: float | None = SECONDS, leaves_after: int | None = None) -> Seen:
        """Takes everything that comes, or so many messages."""
        return await taken(self.begun(request, timeout=timeout), leaves_after=leaves_after)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close()


async def taken(call: Any, *, leaves_after: int | None = None) -> Seen:
    """Takes what still comes of a call, or so many messages of it."""
    seen = Seen()
    try:
        while leaves_after is None or seen.pieces < leaves_after:
            message = await call.read()
            if message is grpc.aio.EOF:
                seen.trailers = dict(await call.trailing_metadata() or ())
                return seen
            seen.pieces += 1
            if message.HasField("final"):
                seen.final = message.final
    except grpc.aio.AioRpcError as error:
        _take_refusal(seen, error)
        return seen
    finally:
        call.cancel()
    seen.code = grpc.StatusCode.CANCELLED
    return seen


def _take_refusal(seen: Seen, error: grpc.aio.AioRpcError) -> None:
    seen.code, seen.trailers = error.code(), dict(error.trailing_metadata() or ())
    try:
        status = rpc_status.from_call(error)
    except ValueError:  # gRPC's own code has replaced the one that the details came with
        status = None
    for detail in status.details if status else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            seen.reason = info.reason
