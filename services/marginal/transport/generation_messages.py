"""The words both APIs share, protobuf and values, both directions.

Enum values of ours have the names of their proto values without the prefix, so the name is the mapping.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Any, TypeVar

from marginal.errors import BackendProtocol, InvalidRequest
from marginal.tokens import Alternative, Message, Role, Sampling, Token, Usage
from marginal.v1 import generation_pb2

AnyEnum = TypeVar("AnyEnum", bound=Enum)

DEFAULT_SAMPLING = Sampling()


def messages_from_proto(messages: Sequence[generation_pb2.Message], *, most: int) -> tuple[Message, ...]:
    """A conversation as values. Raises InvalidRequest for more than `most`, or for a role we do not know."""
    if len(messages) > most:
        raise InvalidRequest("messages", f"has {len(messages)} messages, at most {most} are taken")
    return tuple(
        Message(
            value_of(Role, generation_pb2.Role, "ROLE", message.role, field=f"messages[{index}].role"), message.text
        )
        for index, message in enumerate(messages)
    )


def sampling_from_proto(sampling: generation_pb2.Sampling) -> Sampling:
    """Sampling with the defaults filled in."""
    default = DEFAULT_SAMPLING
    return Sampling(
        max_tokens=sampling.max_tokens if sampling.HasField("max_tokens") else default.max_tokens,
        temperature=sampling.temperature if sampling.HasField("temperature") else default.temperature,
        top_p=sampling.top_p if sampling.HasField("top_p") else default.top_p,
        seed=sampling.seed if sampling.HasField("seed") else default.seed,
    )


def usage_to_proto(usage: Usage) -> generation_pb2.Usage:
    """Usage on the wire."""
    return generation_pb2.Usage(
        input_tokens=usage.input_tokens,
        cached_input_tokens=usage.cached_input_tokens,
        output_tokens=usage.output_tokens,
        counted=usage.counted,
    )


def usage_from_proto(usage: generation_pb2.Usage) -> Usage:
    """Usage from the wire."""
    return Usage(usage.input_tokens, usage.output_tokens, usage.cached_input_tokens, usage.counted)


def token_to_proto(token: Token) -> generation_pb2.Token:
    """A token on the wire; missing evidence stays missing."""
    return generation_pb2.Token(
        text=token.text,
        token_id=token.token_id,
        logprob=token.logprob,
        alternatives=[
            generation_pb2.Alternative(text=other.text, token_id=other.token_id, logprob=other.logprob)
            for other in token.alternatives
        ],
    )


def token_from_proto(token: generation_pb2.Token) -> Token:
    """A token from the wire; missing evidence stays missing."""
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


def number_of(wrapper: Any, prefix: str, value: Enum | None) -> Any:
    """The proto number of `value`; 0, unspecified, for None."""
    return wrapper.Value(f"{prefix}_{value.name}") if value is not None else 0


def value_of(
    kind: type[AnyEnum], wrapper: Any, prefix: str, number: int, *, field: str, unspecified: AnyEnum | None = None
) -> AnyEnum:
    """Our value for a proto number. Raises InvalidRequest for one we do not know."""
    if number == 0 and unspecified is not None:
        return unspecified
    names = {value: name.removeprefix(f"{prefix}_") for name, value in wrapper.items() if value}
    if number not in names:
        raise InvalidRequest(field, f"must be one of {', '.join(names.values())}")
    return kind[names[number]]


def answered_value(kind: type[AnyEnum], wrapper: Any, prefix: str, number: int) -> AnyEnum:
    """Our value for a proto number in an answer. Raises BackendProtocol for one we do not know: no caller's fault."""
    try:
        return value_of(kind, wrapper, prefix, number, field=prefix.lower())
    except InvalidRequest as error:
        raise BackendProtocol(f"the answer's {error}: do both run the same version?") from None
