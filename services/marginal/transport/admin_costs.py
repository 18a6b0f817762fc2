"""Costs and budgets as messages of AdminService and as values, both directions."""

from collections.abc import Mapping
from typing import Any

from marginal.errors import InvalidRequest
from marginal.routing.holds import Window
from marginal.routing.spending import (
    MOST_ROWS,
    BudgetState,
    BudgetStates,
    CostQuery,
    CostRow,
    CostSummary,
    Figures,
    Grouping,
)
from marginal.tokens import Usage
from marginal.transport.generation_messages import (
    answered_value,
    number_of,
    usage_from_proto,
    usage_to_proto,
    value_of,
)
from marginal.transport.money import money, nanos_of
from marginal.v1 import admin_pb2

MOST_SECONDS = 253_402_300_800.0
"""Year 10000: moments end before it."""

_COUNTS = ("requests", "judged", "deferred", "degraded", "failed", "cancelled", "reckoned")
_AMOUNTS = ("total", "always_large", "saved", "wasted", "shadow")


def query_to_proto(query: CostQuery) -> admin_pb2.ListCostsRequest:
    """A question on the wire."""
    return admin_pb2.ListCostsRequest(
        by=number_of(admin_pb2.CostGrouping, "COST_GROUPING", query.by),
        since=query.since,
        until=query.until,
        tenant=query.tenant,
        policy=query.policy,
    )


def query_from_proto(request: admin_pb2.ListCostsRequest) -> CostQuery:
    """A question from the wire. Raises InvalidRequest."""
    by = value_of(
        Grouping, admin_pb2.CostGrouping, "COST_GROUPING", request.by, field="by", unspecified=Grouping.TENANT
    )
    since = request.since if request.HasField("since") else None
    until = request.until if request.HasField("until") else None
    for field, moment in (("since", since), ("until", until)):
        if moment is not None and not 0.0 <= moment < MOST_SECONDS:
            raise InvalidRequest(field, "must be a moment in seconds since the Unix epoch")
    return CostQuery(by, since, until, request.tenant, request.policy)


def summary_to_proto(summary: CostSummary) -> admin_pb2.ListCostsResponse:
    """A summary on the wire."""
    return admin_pb2.ListCostsResponse(
        by=number_of(admin_pb2.CostGrouping, "COST_GROUPING", summary.by),
        rows=map(_row_to_proto, summary.rows),
        totals=map(_row_to_proto, summary.totals),
        damaged=summary.damaged,
        left_out=summary.left_out,
    )


def summary_from_proto(response: admin_pb2.ListCostsResponse) -> CostSummary:
    """A summary from the wire. Raises BackendProtocol."""
    return CostSummary(
        answered_value(Grouping, admin_pb2.CostGrouping, "COST_GROUPING", response.by),
        tuple(map(_row_from_proto, response.rows)),
        tuple(map(_row_from_proto, response.totals)),
        damaged=response.damaged,
        left_out=response.left_out,
    )


def budgets_to_proto(budgets: BudgetStates) -> admin_pb2.ListBudgetsResponse:
    """Budgets on the wire, as many as one message takes."""
    shown, currency = budgets.states[:MOST_ROWS], budgets.currency
    return admin_pb2.ListBudgetsResponse(
        budgets=[
            admin_pb2.BudgetState(
                tenant=one.tenant,
                window=number_of(admin_pb2.BudgetWindow, "BUDGET_WINDOW", one.window),
                period=one.period,
                spent=money(one.spent_nanos, currency),
                held=money(one.held_nanos, currency),
                limit=None if one.limit_nanos is None else money(one.limit_nanos, currency),
                resets_seconds=one.resets_seconds,
            )
            for one in shown
        ],
        left_out=len(budgets.states) - len(shown),
    )


def budgets_from_proto(response: admin_pb2.ListBudgetsResponse) -> BudgetStates:
    """Budgets from the wire. Raises BackendProtocol."""
    states = tuple(
        BudgetState(
            one.tenant,
            answered_value(Window, admin_pb2.BudgetWindow, "BUDGET_WINDOW", one.window),
            one.period,
            nanos_of(one.spent),
            nanos_of(one.held),
            nanos_of(one.limit) if one.HasField("limit") else None,
            one.resets_seconds,
        )
        for one in response.budgets
    )
    return BudgetStates(
        "/".join(sorted({one.spent.currency_code for one in response.budgets})), states, response.left_out
    )


def _row_to_proto(row: CostRow) -> admin_pb2.CostRow:
    figures = row.figures
    usage = Usage(figures.input_tokens, figures.output_tokens, figures.cached_input_tokens)
    counts: Mapping[str, Any] = {name: getattr(figures, name) for name in _COUNTS}
    amounts: Mapping[str, Any] = {name: money(getattr(figures, f"{name}_nanos"), row.currency) for name in _AMOUNTS}
    return admin_pb2.CostRow(key=row.key, usage=usage_to_proto(usage), **counts, **amounts)


def _row_from_proto(row: admin_pb2.CostRow) -> CostRow:
    usage = usage_from_proto(row.usage)
    figures = Figures(
        input_tokens=usage.input_tokens,
        cached_input_tokens=usage.cached_input_tokens,
        output_tokens=usage.output_tokens,
        **{name: getattr(row, name) for name in _COUNTS},
        **{f"{name}_nanos": nanos_of(getattr(row, name)) for name in _AMOUNTS},
    )
    return CostRow(row.key, row.total.currency_code, figures)
