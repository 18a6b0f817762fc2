"""Protobuf messages and values, both directions, nothing else.

Enum values of ours have the names of their proto values without the prefix, so the name is the mapping.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Any, TypeVar

from google.type import money_pb2

from marginal.errors import InvalidRequest
from marginal.policy.deferral import Decision
from marginal.policy.scores import EvidenceGap, margin
from marginal.pricing import NANOS_PER_UNIT
from marginal.routing.records import Attempt, CostRecord
from marginal.routing.requests import Delta, Mode, OnDegrade, Request
from marginal.tokens import (
    Alternative,
    Chunk,
    EarlyStop,
    Evidence,
    FinishReason,
    Generation,
    Message,
    ModelDescription,
    Role,
    Sampling,
    Token,
    Usage,
)
from marginal.transport import validation
from marginal.transport.validation import Limits
from marginal.v1 import generation_pb2, model_pb2, router_pb2

AnyEnum = TypeVar("AnyEnum", bound=Enum)

DEFAULT_SAMPLING = Sampling()


def generation_to_proto(generation: Generation) -> model_pb2.ModelServiceGenerateRequest:
    """What a model service is asked."""
    sampling, stop = generation.sampling, generation.early_stop
    return model_pb2.ModelServiceGenerateRequest(
        messages=[
            generation_pb2.Message(role=_number(generation_pb2.Role, "ROLE", message.role), text=message.text)
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
        early_stop=model_pb2.EarlyStop(score=stop.score, window=stop.window, threshold=stop.threshold)
        if stop
        else None,
    )


def generation_from_proto(request: model_pb2.ModelServiceGenerateRequest, limits: Limits) -> Generation:
    """What a model service was asked. Raises InvalidRequest."""
    stop = request.early_stop
    return Generation(
        messages=validation.messages(_messages(request.messages), field="messages", limits=limits),
        sampling=validation.sampling(_sampling(request.sampling), limits=limits),
        alternatives=validation.alternatives(request.alternatives, limits=limits),
        choices=validation.choices(request.choices, limits=limits),
        early_stop=validation.early_stop(EarlyStop(stop.score, stop.window, stop.threshold))
        if request.HasField("early_stop")
        else None,
    )


def request_from_proto(
    request: router_pb2.RouterServiceGenerateRequest, limits: Limits, *, request_id: str, tenant: str
) -> Request:
    """What the router was asked. Raises InvalidRequest."""
    if request.prompt and request.messages:
        raise InvalidRequest("prompt", "is given together with messages, give exactly one of the two")
    field = "messages" if request.messages else "prompt"
    asked = _messages(request.messages) if request.messages else (Message(Role.USER, request.prompt),)
    generation = Generation(
        messages=validation.messages(asked, field=field, limits=limits),
        sampling=validation.sampling(_sampling(request.sampling), limits=limits),
        choices=validation.choices(request.choices, limits=limits),
    )
    return Request(
        request_id=request_id,
        generation=generation,
        policy=request.policy,
        mode=_value(Mode, router_pb2.Mode, "MODE", request.mode, field="mode", unspecified=Mode.AUTO),
        on_degrade=_value(
            OnDegrade,
            router_pb2.OnDegrade,
            "ON_DEGRADE",
            request.on_degrade,
            field="on_degrade",
            unspecified=OnDegrade.SERVE,
        ),
        tenant=tenant,
    )


def chunk_to_proto(chunk: Chunk) -> model_pb2.ModelServiceGenerateResponse:
    """A piece of a generation; tokens and the finish travel in messages of their own."""
    response = model_pb2.ModelServiceGenerateResponse(usage=_usage_to_proto(chunk.usage))
    if chunk.finish is not None:
        response.finish.reason = _number(generation_pb2.FinishReason, "FINISH_REASON", chunk.finish)
    else:
        response.tokens.tokens.extend(map(_token_to_proto, chunk.tokens))
    return response


def chunk_from_proto(response: model_pb2.ModelServiceGenerateResponse) -> Chunk:
    """The piece of a generation in a model service's message."""
    finish = None
    if response.HasField("finish"):
        prefix = "FINISH_REASON"
        finish = _value(FinishReason, generation_pb2.FinishReason, prefix, response.finish.reason, field="finish")
    usage = response.usage
    return Chunk(
        tokens=tuple(map(_token_from_proto, response.tokens.tokens)),
        usage=Usage(usage.input_tokens, usage.output_tokens, usage.cached_input_tokens),
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
        ),
    )


def description_from_proto(response: model_pb2.GetModelResponse) -> ModelDescription:
    """The model behind a model service."""
    seen = response.evidence
    shortfall = None if seen.proven else seen.shortfall or "no evidence reported"
    evidence = Evidence(shortfall, tokens=seen.tokens, alternatives=seen.alternatives)
    return ModelDescription(response.name, response.context_tokens, response.max_alternatives, evidence)


def delta_to_proto(delta: Delta, *, margins: bool) -> router_pb2.RouterServiceGenerateResponse:
    """A piece of the answer, with the margins token by token when asked for."""
    text = router_pb2.TextDelta(
        text="".join(token.text for token in delta.tokens), tier=_number(router_pb2.Tier, "TIER", delta.tier)
    )
    if margins:
        text.margins.extend(
            router_pb2.TokenMargin(text=token.text, margin=_margin_or_none(token)) for token in delta.tokens
        )
    return router_pb2.RouterServiceGenerateResponse(text=text)


def final_to_proto(record: CostRecord) -> router_pb2.Final:
    """The last message of a stream."""
    return router_pb2.Final(
        request_id=record.request_id,
        tier=_number(router_pb2.Tier, "TIER", record.tier),
        finish_reason=_number(generation_pb2.FinishReason, "FINISH_REASON", record.finish),
        decision=_decision_to_proto(record.decision, record) if record.decision else None,
        degraded_reason=_number(router_pb2.DegradedReason, "DEGRADED_REASON", record.degraded),
        attempts=[_attempt_to_proto(attempt, record.currency) for attempt in record.attempts],
        total=_money(record.total_nanos, record.currency),
        always_large=_money(record.always_large_nanos, record.currency),
        trace_id=record.trace_id,
    )


def _decision_to_proto(decision: Decision, record: CostRecord) -> router_pb2.Decision:
    return router_pb2.Decision(
        verdict=_number(router_pb2.Verdict, "VERDICT", decision.verdict),
        reason=_number(router_pb2.DecisionReason, "DECISION_REASON", decision.reason),
        score_name=decision.score_name,
        score=decision.score,
        threshold=decision.threshold,
        tokens_seen=decision.tokens_seen,
        censored=decision.censored,
        policy=record.policy,
        policy_version=record.policy_version,
    )


def _attempt_to_proto(attempt: Attempt, currency: str) -> router_pb2.Attempt:
    return router_pb2.Attempt(
        tier=_number(router_pb2.Tier, "TIER", attempt.tier),
        model=attempt.model,
        outcome=_number(router_pb2.Outcome, "OUTCOME", attempt.outcome),
        usage=_usage_to_proto(attempt.usage),
        cost=_money(attempt.cost_nanos, currency),
        milliseconds=attempt.seconds * 1000.0,
    )


def _money(nanos: int, currency: str) -> money_pb2.Money:
    units, rest = divmod(nanos, NANOS_PER_UNIT)
    return money_pb2.Money(currency_code=currency, units=units, nanos=rest)


def _usage_to_proto(usage: Usage) -> generation_pb2.Usage:
    return generation_pb2.Usage(
        input_tokens=usage.input_tokens,
        cached_input_tokens=usage.cached_input_tokens,
        output_tokens=usage.output_tokens,
    )


def _token_to_proto(token: Token) -> generation_pb2.Token:
    return generation_pb2.Token(
        text=token.text,
        token_id=token.token_id,
        logprob=token.logprob,
        alternatives=[
            generation_pb2.Alternative(text=other.text, token_id=other.token_id, logprob=other.logprob)
            for other in token.alternatives
        ],
    )


def _token_from_proto(token: generation_pb2.Token) -> Token:
    alternatives = tuple(
        Alternative(other.text, other.logprob, other.token_id if other.HasField("token_id") else None)
        for other in token.alternatives
    )
    return Token(
        text=token.text,
        logprob=token.logprob if token.HasField("logprob") else None,
        alternatives=alternatives,
        token_id=token.token_id if token.HasField("token_id") else None,
    )


def _messages(messages: Sequence[generation_pb2.Message]) -> tuple[Message, ...]:
    return tuple(
        Message(_value(Role, generation_pb2.Role, "ROLE", message.role, field=f"messages[{index}].role"), message.text)
        for index, message in enumerate(messages)
    )


def _sampling(sampling: generation_pb2.Sampling) -> Sampling:
    default = DEFAULT_SAMPLING
    return Sampling(
        max_tokens=sampling.max_tokens if sampling.HasField("max_tokens") else default.max_tokens,
        temperature=sampling.temperature if sampling.HasField("temperature") else default.temperature,
        top_p=sampling.top_p if sampling.HasField("top_p") else default.top_p,
        seed=sampling.seed if sampling.HasField("seed") else default.seed,
    )


def _margin_or_none(token: Token) -> float | None:
    try:
        return margin(token)
    except EvidenceGap:
        return None


def _number(wrapper: Any, prefix: str, value: Enum | None) -> Any:
    """The proto number of `value`; 0, unspecified, for None."""
    return wrapper.Value(f"{prefix}_{value.name}") if value is not None else 0


def _value(
    kind: type[AnyEnum], wrapper: Any, prefix: str, number: int, *, field: str, unspecified: AnyEnum | None = None
) -> AnyEnum:
    """Our value for a proto number. Raises InvalidRequest for one we do not know."""
    if number == 0 and unspecified is not None:
        return unspecified
    names = {value: name.removeprefix(f"{prefix}_") for name, value in wrapper.items() if value}
    if number not in names:
        raise InvalidRequest(field, f"must be one of {', '.join(names.values())}")
    return kind[names[number]]
