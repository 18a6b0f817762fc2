"""Messages of ModelService and values, both directions."""

from marginal.policy.scores import QUANTILE
from marginal.tokens import Chunk, EarlyStop, Evidence, FinishReason, Generation, ModelDescription
from marginal.transport import validation
from marginal.transport.generation_messages import (
    answered_value,
    messages_from_proto,
    number_of,
    sampling_from_proto,
    token_from_proto,
    token_to_proto,
    usage_from_proto,
    usage_to_proto,
)
from marginal.transport.validation import Limits
from marginal.v1 import generation_pb2, model_pb2


def generation_to_proto(generation: Generation, *, generation_id: str = "") -> model_pb2.ModelServiceGenerateRequest:
    """What a model service is asked; its usage can be asked after by the id."""
    sampling, stop = generation.sampling, generation.early_stop
    return model_pb2.ModelServiceGenerateRequest(
        messages=[
            generation_pb2.Message(role=number_of(generation_pb2.Role, "ROLE", message.role), text=message.text)
            for message in generation.messages
        ],
        sampling=generation_pb2.Sampling(
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=sampling.seed,
        ),
        alternatives=generation.alternatives,
        choices=generation.choices,
        early_stop=model_pb2.EarlyStop(
            score=stop.score,
            window=stop.window,
            threshold=stop.threshold,
            defer_without_score=stop.defer_without_score,
            quantile=stop.quantile,
            exact=stop.exact,
        )
        if stop
        else None,
        generation_id=generation_id,
    )


def generation_from_proto(request: model_pb2.ModelServiceGenerateRequest, limits: Limits) -> Generation:
    """What a model service was asked. Raises InvalidRequest."""
    stop, asked = request.early_stop, messages_from_proto(request.messages, most=limits.messages)
    return Generation(
        messages=validation.messages(asked, field="messages", limits=limits),
        sampling=validation.sampling(sampling_from_proto(request.sampling), limits=limits),
        alternatives=validation.alternatives(request.alternatives, limits=limits),
        choices=validation.choices(request.choices, limits=limits),
        early_stop=validation.early_stop(_early_stop_from_proto(stop)) if request.HasField("early_stop") else None,
    )


def _early_stop_from_proto(stop: model_pb2.EarlyStop) -> EarlyStop:
    return EarlyStop(
        stop.score,
        stop.window,
        stop.threshold,
        stop.defer_without_score,
        quantile=stop.quantile or QUANTILE,
        exact=stop.exact,
    )


def chunk_to_proto(chunk: Chunk) -> model_pb2.ModelServiceGenerateResponse:
    """A piece of a generation; tokens and the finish travel in messages of their own."""
    response = model_pb2.ModelServiceGenerateResponse(usage=usage_to_proto(chunk.usage))
    if chunk.finish is not None:
        response.finish.reason = number_of(generation_pb2.FinishReason, "FINISH_REASON", chunk.finish)
    else:
        response.tokens.tokens.extend(map(token_to_proto, chunk.tokens))
    return response


def chunk_from_proto(response: model_pb2.ModelServiceGenerateResponse) -> Chunk:
    """The piece of a generation in a model service's message. Raises BackendProtocol."""
    finish = None
    if response.HasField("finish"):
        finish = answered_value(FinishReason, generation_pb2.FinishReason, "FINISH_REASON", response.finish.reason)
    return Chunk(
        tokens=tuple(map(token_from_proto, response.tokens.tokens)),
        usage=usage_from_proto(response.usage),
        finish=finish,
    )


def description_to_proto(description: ModelDescription) -> model_pb2.GetModelResponse:
    """What a model service says of its model."""
    evidence = description.evidence
    return model_pb2.GetModelResponse(
        name=description.name,
        context_tokens=description.context_tokens,
        max_alternatives=description.max_alternatives,
        evidence=model_pb2.Evidence(
            proven=evidence.proven,
            shortfall=evidence.shortfall or "",
            tokens=evidence.tokens,
            alternatives=evidence.alternatives,
            before_sampling=evidence.before_sampling,
        ),
    )


def description_from_proto(response: model_pb2.GetModelResponse) -> ModelDescription:
    """The model behind a model service."""
    seen = response.evidence
    shortfall = None if seen.proven else seen.shortfall or "no evidence reported"
    before = seen.before_sampling if seen.HasField("before_sampling") else None
    evidence = Evidence(shortfall, seen.tokens, seen.alternatives, before)
    return ModelDescription(response.name, response.context_tokens, response.max_alternatives, evidence)
