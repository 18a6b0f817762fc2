"""Domain errors and gRPC statuses: one table, read forwards by servers and backwards by clients.

Every status carries `google.rpc.ErrorInfo` with domain "marginal" and the reason of the table; the README says what a
caller should do about each.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from marginal.errors import (
    AlreadyAnswered,
    BackendProtocol,
    BudgetExceeded,
    ConfigurationError,
    CostLimited,
    DeadlineExceeded,
    DeadlineTooShort,
    InProgress,
    InvalidRequest,
    JournalFull,
    KeyReused,
    LedgerUnavailable,
    MarginalError,
    ModelNotFetched,
    NotAllowed,
    Overloaded,
    RateLimited,
    Repeated,
    SlowConsumer,
    StreamInterrupted,
    TierUnavailable,
    Unauthenticated,
)

DOMAIN = "marginal"
NO_RETRY = ("grpc-retry-pushback-ms", "-1")


@dataclass(frozen=True, slots=True)
class Outside:
    """How an error looks from outside; `retry_seconds` is a hint when trying again may help."""

    code: grpc.StatusCode
    reason: str
    retry_seconds: float | None = None


OUTSIDE: dict[type[MarginalError], Outside] = {
    InvalidRequest: Outside(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
    KeyReused: Outside(grpc.StatusCode.INVALID_ARGUMENT, "IDEMPOTENCY_MISMATCH"),
    Unauthenticated: Outside(grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"),
    NotAllowed: Outside(grpc.StatusCode.PERMISSION_DENIED, "NOT_ALLOWED"),
    RateLimited: Outside(grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", retry_seconds=1.0),
    BudgetExceeded: Outside(grpc.StatusCode.RESOURCE_EXHAUSTED, "BUDGET_EXCEEDED"),
    CostLimited: Outside(grpc.StatusCode.RESOURCE_EXHAUSTED, "COST_LIMIT"),
    InProgress: Outside(grpc.StatusCode.ABORTED, "IN_PROGRESS", retry_seconds=1.0),
    AlreadyAnswered: Outside(grpc.StatusCode.ALREADY_EXISTS, "ALREADY_ANSWERED"),
    LedgerUnavailable: Outside(grpc.StatusCode.UNAVAILABLE, "BUDGET_STORE_DOWN", retry_seconds=1.0),
    JournalFull: Outside(grpc.StatusCode.UNAVAILABLE, "LEDGER_WRITE", retry_seconds=5.0),
    TierUnavailable: Outside(grpc.StatusCode.UNAVAILABLE, "TIER_UNAVAILABLE", retry_seconds=1.0),
    Overloaded: Outside(grpc.StatusCode.UNAVAILABLE, "OVERLOADED", retry_seconds=1.0),
    StreamInterrupted: Outside(grpc.StatusCode.UNAVAILABLE, "STREAM_INTERRUPTED"),
    BackendProtocol: Outside(grpc.StatusCode.INTERNAL, "BACKEND_PROTOCOL"),
    DeadlineExceeded: Outside(grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
    DeadlineTooShort: Outside(grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_TOO_SHORT"),
    SlowConsumer: Outside(grpc.StatusCode.DEADLINE_EXCEEDED, "SLOW_CONSUMER"),
    ConfigurationError: Outside(grpc.StatusCode.FAILED_PRECONDITION, "CONFIGURATION"),
    ModelNotFetched: Outside(grpc.StatusCode.FAILED_PRECONDITION, "MODEL_NOT_FETCHED"),
}
INTERNAL = Outside(grpc.StatusCode.INTERNAL, "INTERNAL")

_BY_REASON = {outside.reason: error for error, outside in OUTSIDE.items()}
_FOREIGN: dict[grpc.StatusCode, type[MarginalError]] = {
    grpc.StatusCode.UNAVAILABLE: TierUnavailable,
    grpc.StatusCode.CANCELLED: TierUnavailable,
    grpc.StatusCode.UNIMPLEMENTED: TierUnavailable,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
}


async def abort(context: grpc.aio.ServicerContext[Message, Message], error: MarginalError) -> None:
    """Ends the call with the error's status; always raises."""
    outside = OUTSIDE[type(error)]
    info = error_details_pb2.ErrorInfo(reason=outside.reason, domain=DOMAIN)
    details: list[Message] = [info]
    if isinstance(error, InvalidRequest):
        info.metadata["field"] = error.field
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=error.problem)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, Repeated):
        info.metadata["request_id"] = error.request_id
    if isinstance(error, BudgetExceeded):
        info.metadata["window"] = error.window
        info.metadata["reset_seconds"] = f"{error.reset_seconds:.0f}"
        violation = error_details_pb2.QuotaFailure.Violation(subject=f"budget:{error.window}", description=str(error))
        details.append(error_details_pb2.QuotaFailure(violations=[violation]))
    wait = _retry_seconds(error, outside)
    if wait is not None:
        delay = duration_pb2.Duration()
        delay.FromTimedelta(timedelta(seconds=wait))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    await _abort(context, outside, str(error), details)


async def abort_internal(context: grpc.aio.ServicerContext[Message, Message], error_id: str) -> None:
    """Ends the call for an unexpected exception: its text stays in the log, under `error_id`; always raises."""
    info = error_details_pb2.ErrorInfo(reason=INTERNAL.reason, domain=DOMAIN, metadata={"error_id": error_id})
    await _abort(context, INTERNAL, f"internal error, id {error_id}", [info])


def error_from_rpc(error: grpc.aio.AioRpcError) -> MarginalError:
    """The domain error behind a failed call; a foreign status keeps its code but never its text."""
    for detail in _details(error):
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info) and info.domain == DOMAIN and info.reason in _BY_REASON:
            return _rebuilt(_BY_REASON[info.reason], info, error)
    kind = _FOREIGN.get(error.code(), BackendProtocol)
    return kind(f"it answered {error.code().name}")


def _details(error: grpc.aio.AioRpcError) -> Iterable[any_pb2.Any]:
    """The rich details; none when gRPC's own status replaced the one they were sent with."""
    try:
        status = rpc_status.from_call(error)
    except ValueError:
        return ()
    return status.details if status is not None else ()


def _rebuilt(
    kind: type[MarginalError], info: error_details_pb2.ErrorInfo, error: grpc.aio.AioRpcError
) -> MarginalError:
    text = error.details() or ""
    if kind is Overloaded:
        return Overloaded(text, retry_seconds=_told_to_wait(error))
    if kind is RateLimited:
        return RateLimited(text, retry_seconds=_told_to_wait(error) or 0.0)
    if kind is BudgetExceeded:
        return BudgetExceeded(info.metadata["window"], reset_seconds=float(info.metadata["reset_seconds"]))
    if issubclass(kind, InvalidRequest):
        field = info.metadata["field"]
        return kind(field, text.removeprefix(f"{field}: "))
    if issubclass(kind, Repeated):
        return kind(text, request_id=info.metadata["request_id"])
    return kind(text)


def _told_to_wait(error: grpc.aio.AioRpcError) -> float | None:
    retry = error_details_pb2.RetryInfo()
    waits = [retry.retry_delay.ToTimedelta() for detail in _details(error) if detail.Unpack(retry)]
    return waits[0].total_seconds() if waits else None


def _retry_seconds(error: MarginalError, outside: Outside) -> float | None:
    """When to try again: as the model itself says, or as the table does."""
    own = error.retry_seconds if isinstance(error, (Overloaded, RateLimited)) else None
    return outside.retry_seconds if own is None else own


async def _abort(
    context: grpc.aio.ServicerContext[Message, Message], outside: Outside, text: str, details: list[Message]
) -> None:
    status = status_pb2.Status(code=outside.code.value[0], message=text)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    metadata = (*context.trailing_metadata(), *rpc_status.to_status(status).trailing_metadata)
    if outside.retry_seconds is None:
        metadata = (*metadata, NO_RETRY)
    await context.abort(outside.code, text, trailing_metadata=metadata)
