"""ModelService over any LanguageModel: convert, call, convert."""

import asyncio
from contextlib import AbstractContextManager, aclosing
from dataclasses import replace
from typing import Any, Protocol

import grpc

from marginal.routing.deadlines import within
from marginal.routing.ports import LanguageModel
from marginal.tokens import EngineTimes, Evidence, FinishReason, Usage
from marginal.transport import model_messages, validation
from marginal.transport.generation_messages import usage_to_proto
from marginal.transport.usages import Usages
from marginal.transport.validation import Limits
from marginal.transport.writing import write
from marginal.v1 import model_pb2, model_pb2_grpc


class GenerationEnded(Protocol):
    """Takes what one generation used and how it ended; `finish` is None when it was cut.

    `times` are what its engine says it took.
    """

    def __call__(
        self, usage: Usage, finish: FinishReason | None, *, cancelled: bool, times: EngineTimes | None = None
    ) -> None: ...


class GenerationRecorder(Protocol):
    """Where a model service accounts for its generations; implemented in telemetry."""

    def generation_span(self, model_name: str) -> AbstractContextManager[GenerationEnded]:
        """Spans one generation."""
        ...


SERVICE = "marginal.v1.ModelService"


class ModelServicer(model_pb2_grpc.ModelServiceServicer):
    """Serves one model; `evidence` is what the start-up probe saw, set once it has, and `name` the model's in spans."""

    def __init__(self, model: LanguageModel, *, name: str, limits: Limits, recorder: GenerationRecorder) -> None:
        self.evidence = Evidence(shortfall="not probed yet")
        self._model = model
        self.name = name
        self._limits = limits
        self._recorder = recorder
        self._usages = Usages()

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the service to a server."""
        model_pb2_grpc.add_ModelServiceServicer_to_server(self, server)

    async def GetModel(self, request: model_pb2.GetModelRequest, context: Any) -> model_pb2.GetModelResponse:  # noqa: ARG002
        description = replace(await self._model.describe(), evidence=self.evidence)
        return model_messages.description_to_proto(description)

    async def Generate(  # type: ignore[override]  # writes to the context, so that a cancel is a CancelledError here
        self, request: model_pb2.ModelServiceGenerateRequest, context: Any
    ) -> None:
        generation = model_messages.generation_from_proto(request, self._limits)
        timeout = validation.timeout(context.time_remaining(), limits=self._limits)
        self._usages.begin(request.generation_id)
        with self._recorder.generation_span(self.name) as ended:
            usage, finish, times, cancelled = Usage(), None, None, False
            try:
                async with within(timeout), aclosing(self._model.generate(generation, timeout=timeout)) as chunks:
                    async for chunk in chunks:
                        usage, finish, times = chunk.usage, chunk.finish, chunk.times
                        await write(context, model_messages.chunk_to_proto(chunk))
            except asyncio.CancelledError:
                cancelled = finish is None
                raise
            finally:
                ended(usage, finish, cancelled=cancelled, times=times)
                self._usages.end(request.generation_id, usage)

    async def GetUsage(self, request: model_pb2.GetUsageRequest, context: Any) -> model_pb2.GetUsageResponse:  # noqa: ARG002
        usage = await self._usages.of(request.generation_id)
        return model_pb2.GetUsageResponse(usage=usage_to_proto(usage))
