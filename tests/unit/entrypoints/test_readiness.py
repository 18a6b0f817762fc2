"""What a router waits for before it is ready."""

import asyncio

import pytest

from marginal.backends.scripted import Script, ScriptedModel
from marginal.entrypoints.readiness import naming, until_evidence
from marginal.errors import TierUnavailable
from marginal.routing.tiers import TierState
from marginal.tokens import Evidence, ModelDescription, Tier
from unit.telemetry.spans import MemoryLog


class Sleeper(ScriptedModel):
    """A small tier at zero that has evidence once it is awake."""

    awake = False

    async def describe(self) -> ModelDescription:
        if not self.awake:
            raise TierUnavailable("no replica of it is there")
        return ModelDescription("tiny", 256, 20, Evidence(None, 4, 10))


async def test_a_small_tier_at_zero_is_woken_so_that_the_router_can_be_ready() -> None:
    model = Sleeper(Script(()))
    small = TierState(Tier.SMALL, model)
    small.presence.is_now(anyone=False)
    wanted = asyncio.Event()
    small.presence.tell(wanted.set)
    waiting = asyncio.create_task(until_evidence(small, MemoryLog().logs.log))
    async with asyncio.timeout(5):
        await wanted.wait()
        model.awake = True
        small.presence.is_now(anyone=True)
        await waiting
    assert small.model_name == "tiny"


class Forsaken(ScriptedModel):
    """A model whose calls are cancelled by nobody we know."""

    async def describe(self) -> ModelDescription:
        raise asyncio.CancelledError


async def test_names_that_cannot_be_kept_up_with_any_more_stop_the_router_with_an_error() -> None:
    stop = asyncio.Event()
    with pytest.raises(RuntimeError, match="naming of the large tier: cancelled"):
        async with naming([TierState(Tier.LARGE, Forsaken(Script(())))], stop.set), asyncio.timeout(5):
            await stop.wait()
