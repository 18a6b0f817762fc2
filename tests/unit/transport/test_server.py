"""A server whose readiness nobody can tell any more ends, and says why."""

import asyncio

import pytest

from contract.subjects import Untraced
from marginal.transport.guard import Guard
from marginal.transport.server import ServerSettings, serve


@pytest.mark.parametrize("fault", [asyncio.CancelledError(), LookupError()], ids=lambda fault: type(fault).__name__)
async def test_a_server_that_cannot_become_ready_any_more_ends_with_an_error(fault: BaseException) -> None:
    async def never() -> None:
        raise fault

    with pytest.raises((RuntimeError, LookupError)):
        async with asyncio.timeout(5):
            await serve(
                "marginal.v1.Any",
                ServerSettings("127.0.0.1:0"),
                guard=Guard(Untraced(), max_calls=1, trust_baggage=False),
                register=lambda server: None,  # noqa: ARG005
                until_ready=never,
                stop=asyncio.Event(),
            )
