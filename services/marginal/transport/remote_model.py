"""A language model at the other end of a channel."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import grpc

from marginal.errors import BackendProtocol, InvalidRequest, MarginalError, TierUnavailable
from marginal.tokens import Chunk, Generation, ModelDescription
from marginal.transport import model_messages
from marginal.transport.model_servicer import SERVICE
from marginal.transport.statuses import error_from_rpc
from marginal.transport.tracing import CallTracer, client_interceptors
from marginal.v1 import model_pb2, model_pb2_grpc

DESCRIBE_SECONDS = 5.0

SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": SERVICE},
}

RECONNECT_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)

CHANNEL_OPTIONS = (
    *RECONNECT_OPTIONS,
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
)
"""Health-checked round robin over every address; a frozen peer is noticed after 25 s (ping_timeout governs, not
keepalive_timeout: measured)."""


class RemoteModel:
    """ModelService as a LanguageModel; errors are the ones the model raised over there."""

    def __init__(self, channel: grpc.aio.Channel, *, even_not_serving: grpc.aio.Channel) -> None:
        """`channel` reaches serving tiers only; `even_not_serving` one that could say why it is not."""
        self._stub = model_pb2_grpc.ModelServiceStub(channel)
        self._describing = model_pb2_grpc.ModelServiceStub(even_not_serving)

    async def describe(self) -> ModelDescription:
        """Asks GetModel. Raises ModelFault, DeadlineExceeded."""
        try:
            response = await self._describing.GetModel(model_pb2.GetModelRequest(), timeout=DESCRIBE_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from None
        return model_messages.description_from_proto(response)

    async def generate(self, generation: Generation, *, timeout: float | None = None) -> AsyncGenerator[Chunk, None]:
        """Streams Generate; closing cancels the call."""
        call = self._stub.Generate(model_messages.generation_to_proto(generation), timeout=timeout)
        try:
            async for response in call:
                chunk = model_messages.chunk_from_proto(response)
                if chunk.finish is not None:
                    await call.code()  # the trailers, so that closing does not cancel a call that has ended well
                yield chunk
        except grpc.aio.AioRpcError as error:
            raise ours(error_from_rpc(error)) from None
        except asyncio.CancelledError:
            if _cancelled_here():
                raise
            raise TierUnavailable("the model service cancelled the call") from None
        finally:
            call.cancel()


@asynccontextmanager
async def connected(target: str, tracer: CallTracer | None = None) -> AsyncIterator[RemoteModel]:
    """Opens a model service at `target`, "host:port"; its calls are traced when a tracer is given."""
    interceptors = client_interceptors(tracer, target) if tracer else []
    address = f"dns:///{target}"
    async with (
        grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS, interceptors=interceptors) as serving,
        grpc.aio.insecure_channel(address, options=RECONNECT_OPTIONS) as any_,
    ):
        yield RemoteModel(serving, even_not_serving=any_)


def ours(error: MarginalError) -> MarginalError:
    """A rule that the service does not know is no mistake of the caller's, who never saw it."""
    if isinstance(error, InvalidRequest) and error.field.startswith("early_stop"):
        return BackendProtocol(f"the model service refused {error.field}: it must be of this version or newer")
    return error


def _cancelled_here() -> bool:
    """Whether our own task is being cancelled; grpc.aio also raises CancelledError for a status CANCELLED."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
