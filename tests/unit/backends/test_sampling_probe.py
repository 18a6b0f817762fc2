"""Whether evidence is taken before sampling transforms, found out by asking cold and hot."""

import math

import pytest

from marginal.backends.sampling_probe import evidence_before_sampling
from marginal.backends.scripted import Script, ScriptedModel
from marginal.tokens import Alternative, Generation, Token


class Sampled:
    """The script of a model that reports the probabilities it samples from, or those of before."""

    def __init__(self, *, processed: bool, alternatives: int = 2) -> None:
        self._processed = processed
        self._alternatives = alternatives

    def __call__(self, generation: Generation) -> Script:
        heat = max(1.0, generation.sampling.temperature) if self._processed else 1.0
        logits = [2.0 / heat, 0.0]
        norm = math.log(math.fsum(map(math.exp, logits)))
        found = tuple(Alternative(text, logit - norm) for text, logit in zip("ab", logits, strict=True))
        return Script((Token("a", found[0].logprob, found[: self._alternatives]),))


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (Sampled(processed=False), True),
        (Sampled(processed=True), False),
        (Sampled(processed=False, alternatives=1), None),
        (Script(()), None),
    ],
)
async def test_an_engine_is_told_by_what_temperature_does_to_its_evidence(script: object, told: bool | None) -> None:
    assert await evidence_before_sampling(ScriptedModel(script)) is told  # type: ignore[arg-type]
