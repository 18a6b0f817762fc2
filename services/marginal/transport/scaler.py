"""KEDA's ExternalScaler: how much of a tier is wanted, and a push when one at zero is.

`scalerMetadata` of a trigger: `tier`, "small" or "large", and `target`, the demand one replica is for. It is served in
plain text to whoever asks: all that it tells are two numbers.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol

import grpc

from marginal.errors import InvalidRequest
from marginal.tokens import Tier
from marginal.transport.guard import Guard
from marginal.transport.server import options
from marginal.transport.tls import dialled, error_of_call, open_port
from marginal.v1 import externalscaler_pb2 as keda
from marginal.v1 import externalscaler_pb2_grpc

MESSAGE_BYTES = 64 * 1024
TARGETS = {Tier.SMALL: 8.0, Tier.LARGE: 4.0}
"""Demand per replica where the trigger names none: see tests/bench/autoscaling.py."""

METRICS = {tier: f"marginal-{tier.value}-demand" for tier in Tier}


class Scale(Protocol):
    """What is wanted of the tiers, by all routers as far as this one knows."""

    def demand(self, tier: Tier) -> float:
        """Requests, the mean of the last while."""
        ...

    def active(self, tier: Tier) -> bool:
        """Whether the tier should be there at all."""
        ...

    def changes(self, tier: Tier) -> AsyncIterator[bool]:
        """`active` now, and at once whenever it changes."""
        ...


class ScalerServicer(externalscaler_pb2_grpc.ExternalScalerServicer):
    """Answers KEDA."""

    def __init__(self, scale: Scale) -> None:
        self._scale = scale

    async def IsActive(  # noqa: N802 (named as in the proto)
        self, request: keda.ScaledObjectRef, _: Any
    ) -> keda.IsActiveResponse:
        return keda.IsActiveResponse(result=self._scale.active(_tier(request.scalerMetadata)))

    async def StreamIsActive(  # type: ignore[override]  # noqa: N802 (writes to the context, as our other streams do)
        self, request: keda.ScaledObjectRef, context: Any
    ) -> None:
        async for active in self._scale.changes(_tier(request.scalerMetadata)):
            await context.write(keda.IsActiveResponse(result=active))

    async def GetMetricSpec(  # noqa: N802
        self, request: keda.ScaledObjectRef, _: Any
    ) -> keda.GetMetricSpecResponse:
        return _spec(request.scalerMetadata)

    async def StreamMetricSpec(  # type: ignore[override]  # noqa: N802
        self, request: keda.ScaledObjectRef, context: Any
    ) -> None:
        await context.write(_spec(request.scalerMetadata))
        await asyncio.Event().wait()  # a target is the trigger's, and never changes meanwhile

    async def GetMetrics(  # noqa: N802
        self, request: keda.GetMetricsRequest, _: Any
    ) -> keda.GetMetricsResponse:
        tier = _tier(request.scaledObjectRef.scalerMetadata)
        value = keda.MetricValue(metricName=METRICS[tier], metricValueFloat=self._scale.demand(tier))
        return keda.GetMetricsResponse(metricValues=[value])


@asynccontextmanager
async def serving_scaler(listen: str, scale: Scale, *, guard: Guard) -> AsyncIterator[None]:
    """Serves at `listen` meanwhile; "" serves nothing. Raises ConfigurationError when the address cannot be had."""
    if not listen:
        yield
        return
    server = grpc.aio.server(interceptors=[guard], options=options(guard, message_bytes=MESSAGE_BYTES))
    externalscaler_pb2_grpc.add_ExternalScalerServicer_to_server(ScalerServicer(scale), server)
    open_port(server, listen, None, option="--scaler-listen")
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)


async def demand_at(target: str, tier: Tier, *, timeout_seconds: float = 5.0) -> float:
    """What is wanted of a tier, as a router's scaler address tells. Raises MarginalError."""
    ref = keda.ScaledObjectRef(scalerMetadata={"tier": tier.value})
    async with dialled(target, None) as channel:
        stub = externalscaler_pb2_grpc.ExternalScalerStub(channel)
        try:
            answer = await stub.GetMetrics(keda.GetMetricsRequest(scaledObjectRef=ref), timeout=timeout_seconds)
        except grpc.aio.AioRpcError as error:
            raise error_of_call(error) from error
    return float(answer.metricValues[0].metricValueFloat)


def _spec(metadata: Mapping[str, str]) -> keda.GetMetricSpecResponse:
    tier = _tier(metadata)
    spec = keda.MetricSpec(metricName=METRICS[tier], targetSizeFloat=_target(metadata, tier))
    return keda.GetMetricSpecResponse(metricSpecs=[spec])


def _tier(metadata: Mapping[str, str]) -> Tier:
    try:
        return Tier(metadata.get("tier", ""))
    except ValueError:
        raise InvalidRequest("scalerMetadata.tier", 'must be "small" or "large"') from None


def _target(metadata: Mapping[str, str], tier: Tier) -> float:
    try:
        target = float(metadata.get("target", TARGETS[tier]))
    except ValueError:
        target = 0.0
    if not 0.0 < target < 1e9:
        raise InvalidRequest("scalerMetadata.target", "must be a number above 0, as text")
    return target
