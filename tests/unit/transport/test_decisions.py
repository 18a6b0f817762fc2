"""A decision as the caller of the router gets it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from marginal.policy.deferral import Decision, Reason, Verdict
from marginal.policy.evidence import Gap
from marginal.routing.records import Attempt, CostRecord, Outcome
from marginal.tokens import FinishReason, Tier, Usage
from marginal.transport.router_client import RouterClient
from marginal.transport.router_messages import final_to_proto
from marginal.v1 import router_pb2, router_pb2_grpc


class Answering(router_pb2_grpc.RouterServiceServicer):
    """A router that answers every request with the same decision."""

    def __init__(self, decision: Decision) -> None:
        self._decision = decision

    async def Complete(  # noqa: N802
        self, request: router_pb2.CompleteRequest, context: object
    ) -> router_pb2.CompleteResponse:
        del request, context
        record = CostRecord(
            request_id="request-1",
            trace_id="",
            tenant="acme",
            policy="balanced",
            policy_version="3",
            currency="USD",
            decision=self._decision,
            attempts=(Attempt(Tier.SMALL, "home-small", Outcome.KEPT, Usage(4, 1), 100, 0.5),),
            always_large_nanos=1_000,
            tier=Tier.SMALL,
            finish=FinishReason.STOP,
        )
        return router_pb2.CompleteResponse(text="yes", final=final_to_proto(record))


@asynccontextmanager
async def serving(decision: Decision) -> AsyncIterator[str]:
    server = grpc.aio.server()
    router_pb2_grpc.add_RouterServiceServicer_to_server(Answering(decision), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@pytest.mark.parametrize(
    "decision",
    [
        Decision(Verdict.KEEP, Reason.SCORE, "first_token_margin", 0.875, 0.5, 1),
        Decision(Verdict.KEEP, Reason.SCORE, "first_token_margin", 0.875, 0.5, 1, bounded=True),
        Decision(Verdict.DEFER, Reason.SCORE, "min_margin", 0.125, 0.5, 3, censored=True, bounded=True),
        Decision(Verdict.DEFER, Reason.NO_SCORE, "min_margin", None, 0.5, 1, gap=Gap.OUTSIDE_CHOICES),
        Decision(Verdict.KEEP, Reason.MODE),
    ],
    ids=["exact", "bounded", "censored and bounded", "no score", "mode"],
)
async def test_a_decision_reaches_the_caller_as_it_was_made(decision: Decision) -> None:
    async with serving(decision) as target, RouterClient(target) as client:
        _, answer = await client.complete("Is it?")
    assert answer.decision == decision
