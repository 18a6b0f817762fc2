"""What a caller gets who asks for the impossible: a status, a reason and the field, before anything is generated.

The rows of the catalogue of abuse, A1 to A35, are in `integration/abuse`.
"""

import asyncio
import logging

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from integration.abuse.house import until
from integration.served import COMPLETE, Served, served
from marginal.errors import (
    AlreadyAnswered,
    BudgetExceeded,
    DeadlineExceeded,
    InProgress,
    InvalidRequest,
    KeyReused,
    MarginalError,
    Overloaded,
    RateLimited,
    TierUnavailable,
)
from marginal.transport.statuses import OUTSIDE, error_from_rpc
from marginal.transport.validation import Limits
from marginal.v1 import router_pb2
from marginal.v1.generation_pb2 import ROLE_USER, Message
from unit.routing.cascade import LARGE, UNSURE, Cascade, script

Request = router_pb2.RouterServiceGenerateRequest
GOOD = Request(prompt="who knows?")
CANARY = "CANARY-51b7"


async def refusal(
    target: Served, request: bytes | Request, **call: object
) -> tuple[grpc.aio.AioRpcError, dict[str, object]]:
    """The failed call and what its details say."""
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await target.call(request, **call)  # type: ignore[arg-type]
    details: dict[str, object] = {}
    status = rpc_status.from_call(failed.value)
    for packed in status.details if status else ():
        info = error_details_pb2.ErrorInfo()
        if packed.Unpack(info):
            details |= {"reason": info.reason, "domain": info.domain, **info.metadata}
    return failed.value, details


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (Request(prompt="hi", messages=[Message(role=ROLE_USER, text="hi")]), "prompt"),
        (Request(prompt="hi", choices=["only"]), "choices"),
        (Request(prompt="hi", choices=["a", "b" * 129]), "choices"),
        (Request(prompt="hi", choices=[str(number) for number in range(65)]), "choices"),
        (Request(prompt="hi", choices=["yes", " YES"]), "choices"),
        (Request(prompt="hi", choices=["yes", ""]), "choices"),
        (Request(prompt="hi", policy="other"), "policy"),
        (Request(prompt="hi", mode=99), "mode"),  # type: ignore[arg-type]
        (Request(prompt="hi", on_degrade=99), "on_degrade"),  # type: ignore[arg-type]
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_bad_field_is_named_and_nothing_is_generated(request_: Request, field: str) -> None:
    cascade = Cascade()
    async with served(cascade) as target:
        error, details = await refusal(target, request_)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert details == {"reason": "INVALID_REQUEST", "domain": "marginal", "field": field}
    assert cascade.small_model.generated == cascade.large_model.generated == 0


async def test_a_failed_request_can_be_found_by_its_id() -> None:
    cascade = Cascade(small=script(fault=TierUnavailable("down")), large=script(fault=TierUnavailable("down")))
    async with served(cascade) as target:
        error, _ = await refusal(target, GOOD)
    assert dict(error.trailing_metadata() or ())["marginal-request-id"] == cascade.recorder.records[0].request_id


async def test_a_caller_is_told_in_time_that_the_deadline_passed() -> None:
    slow = script(delay=30.0)
    cascade = Cascade(small=slow, large=slow)
    async with served(cascade) as target:
        error, details = await refusal(target, GOOD, timeout=0.3)
    assert (error.code(), details["reason"]) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
    assert cascade.recorder.records[0].error == "DeadlineExceeded"


async def test_many_more_calls_than_places_are_shed_with_a_reason_and_none_is_reset() -> None:
    cascade = Cascade(small=script(delay=2.0))
    async with served(cascade, max_calls=64) as target:
        calls = [asyncio.create_task(refusal(target, GOOD)) for _ in range(200)]
        seen = await asyncio.gather(*calls, return_exceptions=True)
    reasons = [each[1].get("reason") for each in seen if isinstance(each, tuple)]
    assert reasons == ["OVERLOADED"] * 136


async def test_the_tenant_is_on_the_record() -> None:
    cascade = Cascade()
    async with served(cascade) as target:
        await target.call(GOOD, metadata=(("marginal-tenant", "acme"),))
    assert cascade.recorder.records[0].tenant == "acme"


class Broken:
    """A model with a bug that would tell on the caller."""

    async def generate(self, *_: object, **__: object) -> object:
        raise ValueError(CANARY)
        yield


async def test_the_text_of_an_unexpected_exception_never_leaves(caplog: pytest.LogCaptureFixture) -> None:
    cascade = Cascade()
    cascade.tiers[next(iter(cascade.tiers))].model = Broken()  # type: ignore[assignment]
    async with served(cascade) as target:
        with caplog.at_level(logging.DEBUG):
            error, details = await refusal(target, GOOD)
    assert error.code() is grpc.StatusCode.INTERNAL
    assert details["reason"] == "INTERNAL"
    assert str(details["error_id"]) in caplog.text
    assert CANARY not in f"{error}{details}{caplog.text}"


SPECIAL: dict[type[MarginalError], MarginalError] = {
    type(error): error
    for error in (
        InvalidRequest("messages", "too long"),
        KeyReused("idempotency_key", "was another request's"),
        RateLimited("in words", retry_seconds=2.0),
        Overloaded("in words", retry_seconds=2.0),
        BudgetExceeded("day", reset_seconds=60.0),
        InProgress("in words", request_id="first"),
        AlreadyAnswered("in words", request_id="first"),
    )
}
"""Those that say more than a text."""


@pytest.mark.parametrize("kind", sorted(OUTSIDE, key=lambda kind: kind.__name__))
async def test_an_error_arrives_as_the_error_it_was(kind: type[MarginalError]) -> None:
    raised = SPECIAL[kind] if kind in SPECIAL else kind("in words")
    cascade = Cascade(small=script(fault=raised), large=script(fault=raised))
    async with served(cascade) as target:
        error, _ = await refusal(target, Request(prompt="hi", mode=router_pb2.MODE_SMALL_ONLY))
    arrived = error_from_rpc(error)
    assert type(arrived) is kind
    assert (str(arrived), vars(arrived)) == (str(raised), vars(raised))


async def test_what_must_not_be_retried_says_so() -> None:
    cascade = Cascade(small=script(fault=TierUnavailable("down"), fault_at=3), large=script(fault=TierUnavailable("x")))
    async with served(cascade) as target:
        interrupted, _ = await refusal(target, Request(prompt="hi", mode=router_pb2.MODE_SMALL_ONLY))
        assert dict(interrupted.trailing_metadata() or ())["grpc-retry-pushback-ms"] == "-1"
        retryable, _ = await refusal(target, Request(prompt="hi", mode=router_pb2.MODE_LARGE_ONLY, on_degrade=2))
        assert "grpc-retry-pushback-ms" not in dict(retryable.trailing_metadata() or ())


async def test_a_caller_without_a_deadline_gets_the_services_own() -> None:
    cascade = Cascade(small=script(delay=30.0), large=script(delay=30.0))
    async with served(cascade, limits=Limits(deadline_seconds=0.1)) as target:
        error, _ = await refusal(target, GOOD, timeout=None)
    assert isinstance(error_from_rpc(error), DeadlineExceeded)
    assert cascade.small_model.active == 0
    assert len(cascade.recorder.records) == 1


async def test_a_full_server_sheds_calls_and_still_answers_its_probes() -> None:
    cascade = Cascade(small=script(delay=0.3))
    async with served(cascade, max_calls=2) as target:
        calls = [asyncio.create_task(target.call(GOOD)) for _ in range(2)]
        await asyncio.sleep(0.1)
        error, details = await refusal(target, GOOD)
        assert (error.code(), details["reason"]) == (grpc.StatusCode.UNAVAILABLE, "OVERLOADED")
        assert await target.healthy()
        await asyncio.gather(*calls)


async def test_a_caller_who_cancels_leaves_nothing_behind() -> None:
    cascade = Cascade(small=script(UNSURE), large=script(LARGE, delay=30.0))
    async with served(cascade) as target:
        calls = [asyncio.create_task(target.call(GOOD)) for _ in range(16)]
        await until(lambda: cascade.large_model.active == len(calls))
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await asyncio.wait_for(target.guard.idle(), 2.0)
    assert (cascade.small_model.active, cascade.large_model.active) == (0, 0)
    assert [record.error for record in cascade.recorder.records] == ["Cancelled"] * 16


async def test_complete_answers_at_once_with_the_same_final_message() -> None:
    async with served(Cascade()) as target:
        complete = target.channel.unary_unary(
            COMPLETE,
            request_serializer=router_pb2.CompleteRequest.SerializeToString,
            response_deserializer=router_pb2.CompleteResponse.FromString,
        )
        answer = await complete(router_pb2.CompleteRequest(request=GOOD), timeout=5.0)
        streamed = await target.call(GOOD)
    assert answer.text == "".join(message.text.text for message in streamed) == "sure of it"
    assert answer.final.total == streamed[-1].final.total
    assert answer.final.tier == router_pb2.TIER_SMALL


async def test_margins_are_told_only_when_asked_for() -> None:
    async with served(Cascade()) as target:
        silent, told = await target.call(GOOD), await target.call(Request(prompt="hi", return_margins=True))
    assert not silent[0].text.margins
    assert [round(each.margin, 6) for each in told[0].text.margins] == [0.9, 0.9, 0.9]
