"""The probe proves a model's evidence, or says in words what is missing."""

import asyncio
import math

import pytest

from marginal.backends.scripted import Script, ScriptedModel
from marginal.errors import TierUnavailable
from marginal.routing.evidence import probe
from marginal.tokens import Alternative, Token


def model_saying(*tokens: Token) -> ScriptedModel:
    return ScriptedModel(Script(tokens))


def token(*probabilities: float, logprob: float | None = -0.1) -> Token:
    alternatives = tuple(Alternative(f"t{i}", math.log(p)) for i, p in enumerate(probabilities))
    return Token("t0", logprob, alternatives)


SURE = token(0.6, 0.3, 0.05)


async def test_finite_logprobs_with_two_alternatives_at_every_token_prove_a_model() -> None:
    evidence = await probe(model_saying(SURE, token(0.5, 0.5), SURE, SURE, SURE))
    assert evidence.proven
    assert (evidence.tokens, evidence.alternatives) == (4, 2)


@pytest.mark.parametrize(
    ("tokens", "missing"),
    [
        ((), "without any text"),
        ((Token(""),), "without any text"),
        ((SURE, Token("t")), "token 1 of the probe came without log-probabilities"),
        ((SURE, token(0.6, 0.3, logprob=None)), "token 1 of the probe has a log-probability that is not finite"),
        ((token(0.6, 0.3, logprob=math.nan),), "not finite"),
        ((Token("t", -0.1, (Alternative("t", -0.1), Alternative("u", -math.inf))),), "not finite"),
        ((token(0.6, 0.3, logprob=0.3),), "above 0"),
        ((Token("t", -0.1, (Alternative("t", 0.2), Alternative("u", -1.0))),), "above 0"),
        ((token(0.9),), "has 1 alternatives, at least 2"),
        ((Token("t", -0.1),), "has 0 alternatives, at least 2"),
        ((token(0.9, 0.9),), "sum to more than 1"),
    ],
)
async def test_a_model_that_lacks_evidence_is_not_proven_and_the_shortfall_names_it(
    tokens: tuple[Token, ...], missing: str
) -> None:
    evidence = await probe(model_saying(*tokens))
    assert not evidence.proven
    assert missing in (evidence.shortfall or "")


async def test_a_token_whose_character_is_still_incomplete_is_passed_over() -> None:
    assert (await probe(model_saying(Token(""), SURE))).proven


async def test_a_model_that_fails_is_not_proven_and_the_probe_does_not_raise() -> None:
    failing = ScriptedModel(Script((SURE, SURE), fault=TierUnavailable("no engine"), fault_at=1))
    assert (await probe(failing)).shortfall == "the probe failed: no engine"


async def test_a_model_that_does_not_answer_in_time_is_not_proven() -> None:
    slow = ScriptedModel(Script((SURE,), first_delay_seconds=60.0))
    async with asyncio.timeout(10):
        assert "deadline" in ((await probe(slow, timeout=0.05)).shortfall or "")


async def test_the_probe_leaves_no_generation_running() -> None:
    model = model_saying(*[SURE] * 100)
    await probe(model)
    assert model.active == 0
    assert model.generated == 4 + 2
