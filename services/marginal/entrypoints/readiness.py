"""Knowing what the tiers are: the small one's evidence before a router is ready, both names while it runs."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress

from marginal.errors import DeadlineExceeded, ModelFault
from marginal.routing.tiers import TierState
from marginal.telemetry.logs import Log
from marginal.transport.beside import beside

ASK_AGAIN_SECONDS = 0.2
NAME_AGAIN_SECONDS = 20.0


async def until_evidence(small: TierState, log: Log) -> None:
    """Waits until the small tier has proven that it streams usable log-probabilities; one at zero is woken for it."""
    said = None
    while True:
        try:
            description = await small.model.describe()
            if description.evidence.proven:
                small.is_now(description)
                return
            waiting = description.evidence.shortfall
        except (ModelFault, DeadlineExceeded) as error:
            waiting = str(error)
        small.presence.missed()
        if waiting != said:
            log.info("waiting for the small tier", because=waiting)
            said = waiting
        await asyncio.sleep(ASK_AGAIN_SECONDS)


@asynccontextmanager
async def naming(tiers: Iterable[TierState], lost: Callable[[], object]) -> AsyncIterator[None]:
    """Keeps up with the names of the tiers' models meanwhile; `lost` is called when it cannot go on."""
    async with beside(lost, **{f"naming of the {state.tier.value} tier": _keep_name(state) for state in tiers}):
        yield


async def _keep_name(state: TierState) -> None:
    """The tier may come up later, and come back as another."""
    while True:
        with suppress(ModelFault, DeadlineExceeded):
            state.is_now(await state.model.describe())
        known = state.model_name != state.tier.value
        await asyncio.sleep(NAME_AGAIN_SECONDS if known else ASK_AGAIN_SECONDS)
