"""The lines of a journal, written and read: `admitted`, `progress`, `cost_record`, `superseded` and `again`.

An `admitted` line comes before anything is spent, `progress` lines say what open requests have cost so far, and a
`cost_record` line is all that finance needs of one request: the fields of its record, and what a store must be told of
it. A `superseded` line names requests whose reckoned records budgets need no more, as their own routers have told what
they came to. An `again` line begins a file that may have lines again which are in files before it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pydantic_core import to_json

from marginal.ledger.ports import Settled
from marginal.routing.holds import Ask, Grant
from marginal.routing.records import CostRecord, Settlement

ADMITTED = "admitted"
PROGRESS = "progress"
COST_RECORD = "cost_record"
SUPERSEDED = "superseded"
AGAIN = "again"

LOST = "RouterLost"
"""The error of a request whose router died on it."""

END_OF_TIME = datetime(9999, 12, 1, tzinfo=UTC).timestamp()
"""The last month that no calendar knows the end of begins then; a line with such a moment cannot be understood."""

Fields = Callable[[CostRecord], Mapping[str, Any]]
"""Gives a record's fields as JSON values."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that may spend `held_nanos`; `at` is when, in seconds since the Unix epoch by the store's clock."""

    request_id: str
    tenant: str
    at: float
    held_nanos: int
    scope: str
    policy: str = ""
    key: str = ""


def admitted(ask: Ask, grant: Grant) -> Admitted:
    """What is remembered of a request that was let in."""
    scope = grant.scope.value
    return Admitted(ask.request_id, ask.tenant, grant.admitted_at, grant.held_nanos, scope, ask.policy, ask.key)


def admitted_line(request: Admitted) -> Mapping[str, Any]:
    """The line of a request that was let in."""
    line = {
        "event": ADMITTED,
        "request_id": request.request_id,
        "tenant": request.tenant,
        "at": request.at,
        "held_nanos": request.held_nanos,
        "scope": request.scope,
        "policy": request.policy,
    }
    return line | {"key": request.key} if request.key else line


def admitted_from(line: Mapping[str, Any]) -> Admitted:
    """Reads the line again. Raises KeyError, TypeError, ValueError."""
    return Admitted(
        str(line["request_id"]),
        str(line["tenant"]),
        _moment(line["at"]),
        int(line["held_nanos"]),
        str(line["scope"]),
        str(line.get("policy", "")),
        str(line.get("key", "")),
    )


def progress_line(marks: Mapping[str, int], at: float) -> Mapping[str, Any]:
    """The line of what open requests have cost so far, in nano-units."""
    return {"event": PROGRESS, "at": at, "marks": marks}


def marks_from(line: Mapping[str, Any]) -> Mapping[str, int]:
    """Reads the line again. Raises KeyError, AttributeError, TypeError, ValueError."""
    return {request_id: int(nanos) for request_id, nanos in line["marks"].items()}


def superseded_line(request_ids: Sequence[str]) -> Mapping[str, Any]:
    """The line of requests whose reckoned records here the store has replaced by those of their own routers."""
    return {"event": SUPERSEDED, "request_ids": list(request_ids)}


def superseded_from(line: Mapping[str, Any]) -> Sequence[str]:
    """Reads the line again. Raises KeyError, TypeError."""
    return [str(request_id) for request_id in line["request_ids"]]


def again_line(since: int) -> Mapping[str, Any]:
    """The first line of a file in which lines of the files from that number on may be again."""
    return {"event": AGAIN, "since": since}


def encoded(line: Mapping[str, Any]) -> bytes:
    """The line as it is in a file, whatever it holds."""
    try:
        return to_json(line, inf_nan_mode="null") + b"\n"
    except ValueError:
        return json.dumps(dict(line), default=str, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def record_line(record: CostRecord, fields: Fields, *, key: str = "") -> Mapping[str, Any]:
    """The line of a record; the moment of admission is exact in it, since it names the windows that are charged."""
    line = {"event": COST_RECORD, **fields(record), "admitted_at": record.admitted_at, "open": record.open}
    return line | {"key": key} if key else line


def settled_of(record: CostRecord, *, key: str = "") -> Settled:
    """What a store is told of a record: a reckoned one may be replaced by the truth, an open one by its last."""
    return Settled(
        request_id=record.request_id,
        tenant=record.tenant,
        nanos=record.total_nanos,
        admitted_at=record.admitted_at,
        answered=record.error is None,
        final=not record.open and record.settlement is not Settlement.EXPIRED,
        key=key,
    )


def settled_from(line: Mapping[str, Any]) -> Settled:
    """The same of the record's line. Raises KeyError, ValueError."""
    return Settled(
        request_id=line["request_id"],
        tenant=line["tenant"],
        nanos=line["total_nanos"],
        admitted_at=_moment(line["admitted_at"]),
        answered=line.get("error") is None,
        final=not line.get("open") and settlement_of(line) is not Settlement.EXPIRED,
        key=line.get("key", ""),
    )


def check_record(line: Mapping[str, Any]) -> None:
    """Raises KeyError, TypeError or ValueError for a line that is not that of a record."""
    if not (
        isinstance(line["request_id"], str)
        and isinstance(line["tenant"], str)
        and isinstance(line["total_nanos"], int)
        and isinstance(line["admitted_at"], (int, float))
        and isinstance(line.get("key", ""), str)
    ):
        raise TypeError("one of its fields is of another type")
    _moment(line["admitted_at"])


def _moment(at: Any) -> float:
    """A moment in seconds since the Unix epoch. Raises TypeError, ValueError."""
    if not 0.0 <= at < END_OF_TIME:
        raise ValueError("there is no such moment")
    return float(at)


def settlement_of(line: Mapping[str, Any]) -> Settlement:
    """How sure a record's line is. Raises KeyError, ValueError."""
    return Settlement(line["settlement"])


def reckoned(request: Admitted, nanos: int, settlement: Settlement, currency: str) -> CostRecord:
    """The record of a request that nobody lived to count, charged at so many nano-units."""
    return CostRecord(
        request_id=request.request_id,
        trace_id="",
        tenant=request.tenant,
        policy=request.policy,
        policy_version="",
        currency=currency,
        decision=None,
        attempts=(),
        always_large_nanos=nanos,
        error=LOST,
        admitted_at=request.at,
        settlement=settlement,
        reckoned_nanos=nanos,
    )


def admitted_at(record: CostRecord, at: float) -> CostRecord:
    """The record as of the moment that its hold counts in."""
    return record if record.admitted_at == at else replace(record, admitted_at=at)


def after_its_shadow(line: Mapping[str, Any], nanos: int) -> Mapping[str, Any]:
    """The last line of a request that was answered but whose router died during the shadow attempt.

    `nanos` is the charge in all; what goes beyond the attempts that were counted is reckoned and wasted.
    """
    beyond = max(0, nanos - int(line["total_nanos"]))
    return {
        **line,
        "settlement": Settlement.RECOVERED.value,
        "open": False,
        "reckoned_nanos": beyond,
        "total_nanos": int(line["total_nanos"]) + beyond,
        "wasted_nanos": int(line["wasted_nanos"]) + beyond,
        "saved_nanos": int(line["saved_nanos"]) - beyond,
    }
