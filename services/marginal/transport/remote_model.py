"""A language model at the other end of a channel."""

import asyncio
import json
import math
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc

from marginal.errors import BackendProtocol, DeadlineExceeded, InvalidRequest, MarginalError, TierUnavailable
from marginal.tokens import Chunk, Generation, ModelDescription, Usage
from marginal.transport import model_messages
from marginal.transport.accounted import Account, AccountedChunks
from marginal.transport.beside import beside
from marginal.transport.generation_messages import usage_from_proto
from marginal.transport.model_servicer import SERVICE
from marginal.transport.remote_pool import RemotePool
from marginal.transport.targets import Discovery, discovery
from marginal.transport.tls import ClientTls, Line, error_of_call
from marginal.transport.tracing import CallTracer, client_interceptors
from marginal.v1 import model_pb2
from marginal.v1.model_pb2_grpc import ModelServiceStub

if TYPE_CHECKING:
    from marginal.v1.model_pb2_grpc import ModelServiceAsyncStub

DESCRIBE_SECONDS = 5.0

USAGE_SECONDS = 2.0
"""How long the usage of a stream that was left is waited for: a starved service was seen to be silent for a second."""

LEAST_USAGE_SECONDS = 0.25
TOO_LITTLE_SECONDS = 0.1
"""With less than this left to a request nobody is waiting for what comes next."""

NOTHING_SEEN = Usage(counted=True)

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

    def __init__(
        self, serving: "Line[ModelServiceAsyncStub]", *, even_not_serving: "Line[ModelServiceAsyncStub]"
    ) -> None:
        """`serving` reaches serving tiers only; `even_not_serving` one that could say why it is not."""
        self._serving = serving
        self._describing = even_not_serving

    @property
    def ready(self) -> bool:
        """Whether a serving tier is connected; begins to connect when none is."""
        return self._serving.ready

    async def close(self) -> None:
        """Ends every call."""
        await self._serving.close()
        await self._describing.close()

    async def describe(self) -> ModelDescription:
        """Asks GetModel. Raises ModelFault, DeadlineExceeded."""
        try:
            response = await self._describing.stub().GetModel(model_pb2.GetModelRequest(), timeout=DESCRIBE_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise error_of_call(error) from None
        except grpc.aio.UsageError:
            raise TierUnavailable("the connection to it is closed") from None
        except asyncio.CancelledError:
            if _cancelled_here():
                raise
            raise TierUnavailable("the connection to it was closed") from None
        return model_messages.description_from_proto(response)

    def generate(self, generation: Generation, *, timeout: float | None = None) -> AccountedChunks:
        """Streams Generate; closing cancels the call, and then asks what was used in all."""
        return AccountedChunks(lambda account: self._generate(generation, timeout, account))

    async def _generate(
        self, generation: Generation, timeout: float | None, account: Account
    ) -> AsyncGenerator[Chunk, None]:
        now, seen, told = asyncio.get_running_loop().time, Usage(), False
        until = None if timeout is None else now() + timeout
        generation_id = secrets.token_hex(16)
        asked = model_messages.generation_to_proto(generation, generation_id=generation_id)
        call = self._serving.stub().Generate(asked, timeout=timeout)
        try:
            async for response in call:
                chunk = model_messages.chunk_from_proto(response)
                seen = chunk.usage
                if chunk.finish is not None:
                    await call.code()  # the trailers, so that closing does not cancel a call that has ended well
                    told = True
                yield chunk
        except grpc.aio.AioRpcError as failed:
            error = ours(error_of_call(failed))
            told = not isinstance(error, DeadlineExceeded)  # a status comes after all that was sent
            if isinstance(error, TierUnavailable) and seen != Usage():
                account.used = replace(seen, counted=True)
            raise error from None
        except asyncio.CancelledError:
            if _cancelled_here():
                raise
            told, account.used = True, replace(seen, counted=True)
            raise TierUnavailable("the model service cancelled the call") from None
        finally:
            call.cancel()
            if not told:
                account.used = replace(seen, counted=True)
                left = math.inf if until is None else until - now()
                await _to_the_end(self._ask(generation_id, account, seconds=_patience(left)))

    async def _ask(self, generation_id: str, account: Account, *, seconds: float) -> None:
        """Puts into the account what the service says; leaves it as it is when that does not answer in time."""
        request = model_pb2.GetUsageRequest(generation_id=generation_id)
        try:
            response = await self._serving.stub().GetUsage(request, timeout=seconds)
        except grpc.aio.AioRpcError as failed:
            if account.used == NOTHING_SEEN and isinstance(error_of_call(failed), InvalidRequest):
                account.used = None  # it never began there
        except (grpc.aio.UsageError, asyncio.CancelledError):
            return  # a channel that is closed, or a service that is closing
        else:
            account.used = usage_from_proto(response.usage)


@asynccontextmanager
async def connected(
    target: str,
    tracer: CallTracer | None = None,
    *,
    tls: ClientTls | None = None,
    found: Discovery | None = None,
    lost: Callable[[], object] = lambda: None,
) -> AsyncIterator[RemotePool]:
    """Opens the model services of one tier; their calls are traced when a tracer is given.

    `target` is in the words of `targets.discovery`; `found` says where its addresses are when it is in others. When
    they are not followed any more `lost` is called, and what ended that is raised on the way out. Raises
    ConfigurationError for a target that is none.
    """
    found = found or discovery(target)
    # the names of certificates are of the service, the addresses may be of its pods
    own = (("grpc.default_authority", found.authority),) if found.authority else ()

    def dial(address: str) -> RemoteModel:
        interceptors = client_interceptors(tracer, address) if tracer else None
        peer, options = f"dns:///{address}", (*CHANNEL_OPTIONS, *own)
        serving = Line(peer, ModelServiceStub, tls=tls, options=options, interceptors=interceptors)
        any_ = Line(peer, ModelServiceStub, tls=tls, options=(*RECONNECT_OPTIONS, *own))
        return RemoteModel(serving, even_not_serving=any_)

    pool = RemotePool(dial)
    try:
        async with beside(lost, **{f"discovery of {target}": found.follow(pool.are_now)}):
            await asyncio.sleep(0)  # what is fixed is known at once
            yield pool
    finally:
        await pool.close()


def ours(error: MarginalError) -> MarginalError:
    """A rule that the service does not know is no mistake of the caller's, who never saw it."""
    if isinstance(error, InvalidRequest) and error.field.startswith("early_stop"):
        return BackendProtocol(f"the model service refused {error.field}: it must be of this version or newer")
    return error


def _patience(left: float) -> float:
    """Seconds to wait for a usage: a share of what is left to the request, which may go on with the other tier."""
    return USAGE_SECONDS if left < TOO_LITTLE_SECONDS else min(USAGE_SECONDS, max(LEAST_USAGE_SECONDS, left / 4))


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Does work that is short, even when our own task is cancelled once more meanwhile."""
    task, cancelled = asyncio.ensure_future(work), False
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            cancelled = True
    task.result()
    if cancelled:
        raise asyncio.CancelledError


def _cancelled_here() -> bool:
    """Whether our own task is being cancelled; grpc.aio also raises CancelledError for a status CANCELLED."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
