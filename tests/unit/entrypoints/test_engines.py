"""What the start-up probe says of several endpoints together."""

from evidence import blind, sure
from marginal.backends.endpoints import Endpoint, Endpoints
from marginal.backends.scripted import Script, ScriptedModel
from marginal.entrypoints.engines import evidence
from marginal.errors import TierUnavailable

SEEING, BLIND = Script((sure(0.9),) * 4), Script((blind(),) * 4)
DOWN = Script((), fault=TierUnavailable("nothing listens"))


def over(*scripts: Script) -> Endpoints:
    return Endpoints([Endpoint(f"engine-{i}:80", ScriptedModel(script)) for i, script in enumerate(scripts)])


async def test_every_endpoint_is_probed_and_one_without_evidence_is_named_before_all_others() -> None:
    seen = await evidence(over(SEEING, DOWN, BLIND))
    assert seen.shortfall is not None
    assert seen.shortfall.startswith("engine-2:80: token 0 of the probe came without log-probabilities")
    assert seen.tokens == 4


async def test_an_endpoint_that_is_not_there_does_not_hold_up_one_that_proves_its_evidence() -> None:
    assert (await evidence(over(DOWN, SEEING))).proven


async def test_when_none_is_there_the_first_is_told() -> None:
    assert (await evidence(over(DOWN, DOWN))).shortfall == "engine-0:80: the probe failed: nothing listens"


async def test_a_model_that_is_no_endpoints_is_probed_itself() -> None:
    assert (await evidence(ScriptedModel(SEEING))).proven
