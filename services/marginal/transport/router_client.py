"""RouterService from the caller's side, in domain words."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from marginal.errors import BackendProtocol, TierUnavailable
from marginal.policy.deferral import Decision, Reason, Verdict
from marginal.policy.evidence import Gap
from marginal.routing.records import Attempt, DegradedReason, Outcome
from marginal.routing.requests import Mode, OnDegrade
from marginal.tokens import FinishReason, Tier
from marginal.transport.credentials import AUTHORIZATION
from marginal.transport.generation_messages import answered_value, number_of, usage_from_proto
from marginal.transport.money import nanos_of
from marginal.transport.tls import ClientTls, dialled, error_of_call, handshake_problem
from marginal.v1 import generation_pb2, router_pb2, router_pb2_grpc

POLL_SECONDS = 0.05
CHANNEL_OPTIONS = (("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 500))


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of the answer: its text, the tier it comes from, and every token's margin when those were asked for."""

    text: str
    tier: Tier
    margins: tuple[tuple[str, float | None], ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """How a request was answered; costs are nano-units of `currency`, `trace_id` is "" when tracing is off."""

    request_id: str
    tier: Tier
    finish: FinishReason
    decision: Decision
    policy: str
    policy_version: str
    degraded: DegradedReason | None
    attempts: tuple[Attempt, ...]
    total_nanos: int
    always_large_nanos: int
    currency: str
    trace_id: str


class RouterClient:
    """A caller of the router at `target`, with an API key where it wants one; use it as an async context manager."""

    def __init__(self, target: str, *, api_key: str = "", tls: ClientTls | None = None) -> None:
        self._channel = dialled(target, tls, options=CHANNEL_OPTIONS)
        self._metadata = ((AUTHORIZATION, f"Bearer {api_key}"),) if api_key else ()
        self._stub = router_pb2_grpc.RouterServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close()

    async def ask(
        self,
        prompt: str,
        *,
        choices: tuple[str, ...] = (),
        policy: str = "",
        task: str = "",
        mode: Mode = Mode.AUTO,
        on_degrade: OnDegrade = OnDegrade.SERVE,
        max_tokens: int | None = None,
        margins: bool = False,
        timeout_seconds: float = 60.0,
    ) -> AsyncGenerator[Piece | Answer, None]:
        """Streams the pieces of the answer as they arrive, then one Answer. Raises MarginalError.

        Closing the generator cancels the request. `policy` "" is the router's default.
        """
        request = router_pb2.RouterServiceGenerateRequest(
            prompt=prompt,
            choices=choices,
            sampling=generation_pb2.Sampling(max_tokens=max_tokens),
            policy=policy,
            task=task,
            mode=number_of(router_pb2.Mode, "MODE", mode),
            on_degrade=number_of(router_pb2.OnDegrade, "ON_DEGRADE", on_degrade),
            return_margins=margins,
        )
        call = self._stub.Generate(request, timeout=timeout_seconds, metadata=self._metadata)
        final: router_pb2.Final | None = None
        try:
            async for response in call:
                if response.HasField("final"):
                    final = response.final
                else:
                    yield _piece(response.text)
        except grpc.aio.AioRpcError as error:
            raise error_of_call(error) from error
        finally:
            call.cancel()
        if final is None:
            raise BackendProtocol("the router ended its answer without a final message")
        yield _answer(final)

    async def complete(
        self, prompt: str, *, policy: str = "", mode: Mode = Mode.AUTO, timeout_seconds: float = 60.0
    ) -> tuple[str, Answer]:
        """The whole text at once, and the Answer. Raises MarginalError."""
        mode_number = number_of(router_pb2.Mode, "MODE", mode)
        request = router_pb2.RouterServiceGenerateRequest(prompt=prompt, policy=policy, mode=mode_number)
        try:
            response = await self._stub.Complete(
                router_pb2.CompleteRequest(request=request), timeout=timeout_seconds, metadata=self._metadata
            )
        except grpc.aio.AioRpcError as error:
            raise error_of_call(error) from error
        return response.text, _answer(response.final)


async def wait_until_serving(
    target: str, service: str, *, timeout_seconds: float, tls: ClientTls | None = None
) -> None:
    """Returns once `target` reports `service` as SERVING. Raises TierUnavailable after the time."""
    seen = "no answer"
    try:
        async with asyncio.timeout(timeout_seconds), dialled(target, tls, options=CHANNEL_OPTIONS) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            while True:
                seen = await _health(stub, service)
                if seen == "SERVING":
                    return
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise TierUnavailable(f"{service} at {target} was not ready after {timeout_seconds:g} s: {seen}") from None


async def _health(stub: health_pb2_grpc.HealthStub, service: str) -> str:
    try:
        response = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=2.0)
    except grpc.aio.AioRpcError as error:
        return handshake_problem(error) or error.code().name
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))


def _piece(delta: router_pb2.TextDelta) -> Piece:
    margins = tuple((one.text, one.margin if one.HasField("margin") else None) for one in delta.margins)
    return Piece(delta.text, answered_value(Tier, router_pb2.Tier, "TIER", delta.tier), margins)


def _answer(final: router_pb2.Final) -> Answer:
    return Answer(
        final.request_id,
        answered_value(Tier, router_pb2.Tier, "TIER", final.tier),
        answered_value(FinishReason, generation_pb2.FinishReason, "FINISH_REASON", final.finish_reason),
        _decision(final.decision),
        final.decision.policy,
        final.decision.policy_version,
        answered_value(DegradedReason, router_pb2.DegradedReason, "DEGRADED_REASON", final.degraded_reason)
        if final.degraded_reason
        else None,
        tuple(map(_attempt, final.attempts)),
        nanos_of(final.total),
        nanos_of(final.always_large),
        final.total.currency_code,
        final.trace_id,
    )


def _decision(decision: router_pb2.Decision) -> Decision:
    return Decision(
        answered_value(Verdict, router_pb2.Verdict, "VERDICT", decision.verdict),
        answered_value(Reason, router_pb2.DecisionReason, "DECISION_REASON", decision.reason),
        decision.score_name,
        decision.score if decision.HasField("score") else None,
        decision.threshold if decision.HasField("threshold") else None,
        decision.tokens_seen,
        censored=decision.censored,
        bounded=decision.bounded,
        gap=answered_value(Gap, router_pb2.EvidenceGap, "EVIDENCE_GAP", decision.evidence_gap)
        if decision.evidence_gap
        else None,
    )


def _attempt(attempt: router_pb2.Attempt) -> Attempt:
    return Attempt(
        answered_value(Tier, router_pb2.Tier, "TIER", attempt.tier),
        attempt.model,
        answered_value(Outcome, router_pb2.Outcome, "OUTCOME", attempt.outcome),
        usage_from_proto(attempt.usage),
        nanos_of(attempt.cost),
        attempt.milliseconds / 1_000,
    )
