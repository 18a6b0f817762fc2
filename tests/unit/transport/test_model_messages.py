"""What a model service is asked arrives as it was meant."""

import pytest

from marginal.errors import BackendProtocol, InvalidRequest
from marginal.policy.scores import QUANTILE, SCORES
from marginal.tokens import EarlyStop, Evidence, Generation, Message, ModelDescription, Role, Sampling, Usage
from marginal.transport.generation_messages import usage_from_proto, usage_to_proto
from marginal.transport.model_messages import (
    description_from_proto,
    description_to_proto,
    generation_from_proto,
    generation_to_proto,
)
from marginal.transport.remote_model import ours
from marginal.transport.validation import Limits
from marginal.v1 import model_pb2

ASKED = Generation((Message(Role.USER, "who?"),), Sampling(16, 0.5, 0.9, seed=7), alternatives=5, choices=("a", "b"))


def arrived(generation: Generation) -> Generation:
    return generation_from_proto(generation_to_proto(generation), Limits())


@pytest.mark.parametrize(
    "rule",
    [
        None,
        EarlyStop("min_margin", 4, 0.25),
        EarlyStop("quantile_margin", 8, 0.5, defer_without_score=False, quantile=0.35),
        EarlyStop("mean_logprob", 0, -2.5, exact=True),
        EarlyStop("entropy", 1, SCORES["entropy"].scale.defer_all),
    ],
    ids=lambda rule: rule.score if rule else "no rule",
)
def test_a_rule_arrives_whole(rule: EarlyStop | None) -> None:
    asked = Generation(ASKED.messages, ASKED.sampling, 5, ASKED.choices, rule)
    assert arrived(asked) == asked


@pytest.mark.parametrize("usage", [Usage(12, 3, 4), Usage(12, 3, 4, counted=True)])
def test_usage_arrives_with_whose_count_it_is(usage: Usage) -> None:
    assert usage_from_proto(usage_to_proto(usage)) == usage


def test_a_router_that_names_no_quantile_means_the_default() -> None:
    message = generation_to_proto(Generation(ASKED.messages, early_stop=EarlyStop("quantile_margin", 0, 0.5)))
    message.early_stop.quantile = 0.0
    stop = generation_from_proto(message, Limits()).early_stop
    assert stop is not None
    assert stop.quantile == QUANTILE


@pytest.mark.parametrize(
    ("field", "value"),
    [("score", "luck"), ("threshold", -0.1), ("threshold", float("nan")), ("threshold", 1.1), ("quantile", 1.0)],
)
def test_a_rule_that_cannot_be_is_refused_by_its_field(field: str, value: object) -> None:
    message = model_pb2.ModelServiceGenerateRequest()
    message.CopyFrom(generation_to_proto(Generation(ASKED.messages, early_stop=EarlyStop("min_margin", 0, 0.5))))
    setattr(message.early_stop, field, value)
    with pytest.raises(InvalidRequest, match=rf"early_stop\.{field}"):
        generation_from_proto(message, Limits())


def test_a_rule_that_an_older_service_refuses_is_not_the_callers_mistake() -> None:
    refused = ours(InvalidRequest("early_stop.score", "must be one of min_margin"))
    assert isinstance(refused, BackendProtocol)
    assert "of this version or newer" in str(refused)
    assert isinstance(ours(InvalidRequest("messages", "too long")), InvalidRequest)


@pytest.mark.parametrize("before", [None, True, False])
def test_whether_evidence_is_before_sampling_arrives_or_stays_unknown(before: bool | None) -> None:
    described = ModelDescription("home-small", 256, 20, Evidence(None, 4, 10, before))
    assert description_from_proto(description_to_proto(described)) == described
