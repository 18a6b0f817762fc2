"""What operators ask of money: the same on both ends of a real connection."""

import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from marginal.errors import BackendProtocol, InvalidRequest, LedgerUnavailable
from marginal.routing.holds import Window
from marginal.routing.overview import Overview, Source
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
from marginal.telemetry.tracing import tracing_to
from marginal.transport.admin import AdminServicer, get_cost, list_budgets, list_costs, serving_admin
from marginal.transport.admin_costs import budgets_from_proto, budgets_to_proto, query_from_proto, query_to_proto
from marginal.transport.admin_records import record_from_proto, record_to_proto
from marginal.transport.guard import Guard
from marginal.v1 import admin_pb2

FIGURES = Figures(
    requests=9, judged=8, deferred=3, degraded=1, failed=1, cancelled=2, reckoned=1,
    input_tokens=100, cached_input_tokens=40, output_tokens=30,
    total_nanos=2_500_000_001, always_large_nanos=2_400_000_000, saved_nanos=-100_000_001, wasted_nanos=7,
)  # fmt: skip
ROWS = (CostRow("2026-11-24", "USD", FIGURES), CostRow("2026-11-25", "EUR", Figures(requests=1, total_nanos=3)))
SUMMARY = CostSummary(
    Grouping.DAY, ROWS, (CostRow("", "EUR", ROWS[1].figures), CostRow("", "USD", FIGURES)), damaged=2, left_out=4
)
BUDGETS = BudgetStates(
    "USD",
    (
        BudgetState("acme", Window.HOUR, "2026-11-24T22", 900, 80, 1_000, 1_234.5),
        BudgetState("acme", Window.MONTH, "2026-11", 900, 80, None, 500_000.0),
        BudgetState("other", Window.DAY, "2026-11-24", 0, 0, 0, 5_000.0),
    ),
)
RECORD: Mapping[str, Any] = {
    "request_id": "b39d47ef",
    "trace_id": "790d90062da7effa17144924f88d45e2",
    "tenant": "acme",
    "task": "maths",
    "policy": "default",
    "policy_version": "1",
    "tier": "large",
    "finish": "stop",
    "degraded": None,
    "error": None,
    "decision": {
        "verdict": "defer",
        "reason": "score",
        "score_name": "min_margin",
        "score": 0.009,
        "threshold": 0.25,
        "tokens_seen": 1,
        "censored": True,
        "bounded": False,
        "evidence_gap": None,
    },
    "attempts": [
        {
            "tier": "small",
            "model": "home-small",
            "outcome": "aborted",
            "input_tokens": 16,
            "cached_input_tokens": 4,
            "output_tokens": 1,
            "usage_source": "counted",
            "busy_micros": 7_414,
            "cost_nanos": 1_000,
            "seconds": 0.007414,
            "error": None,
        },
        {
            "tier": "large",
            "model": "home-large",
            "outcome": "failed",
            "input_tokens": 16,
            "cached_input_tokens": 0,
            "output_tokens": 6,
            "usage_source": "engine",
            "busy_micros": 0,
            "cost_nanos": 20_000,
            "seconds": 1.5,
            "error": "TierUnavailable",
        },
    ],
    "currency": "USD",
    "price_version": "8297627c7837",
    "price_sources": {"small": "policy file", "large": "policy file"},
    "total_nanos": 21_000,
    "always_large_nanos": 20_000,
    "wasted_nanos": 1_000,
    "saved_nanos": -1_000,
    "settlement": "settled",
    "admitted_at": 1_795_557_600.125,
    "open": False,
}
RECKONED: Mapping[str, Any] = RECORD | {
    "trace_id": "",
    "task": None,
    "tier": None,
    "finish": None,
    "degraded": "budget",
    "error": "RouterLost",
    "decision": None,
    "attempts": [],
    "price_version": None,
    "price_sources": {},
    "settlement": "expired",
}


class KnownBooks:
    """Books with one record, which remember what they were asked and by which thread."""

    def __init__(self) -> None:
        self.asked: list[CostQuery] = []
        self.threads: set[int] = set()
        self.store_is_away = False

    def costs(self, query: CostQuery) -> CostSummary:
        self.asked.append(query)
        self.threads.add(threading.get_ident())
        return SUMMARY

    def record(self, request_id: str) -> Mapping[str, Any] | None:
        return RECORD if request_id == RECORD["request_id"] else None

    async def budgets(self, tenant: str) -> BudgetStates:
        if self.store_is_away:
            raise LedgerUnavailable("the store of budgets cannot be asked now")
        return BudgetStates("USD", tuple(one for one in BUDGETS.states if tenant in ("", one.tenant)))


@asynccontextmanager
async def served(books: KnownBooks, address: str) -> AsyncIterator[None]:
    tracer = tracing_to(None, service_name="test", version="1").tracer
    servicer = AdminServicer(lambda: Overview(Source("test", 0.0), "default", "USD", ()), books)
    async with serving_admin(address, servicer, guard=Guard(tracer, max_calls=4, trust_baggage=False)):
        yield


@pytest.fixture
def address(tmp_path: Any) -> str:
    return f"unix:{tmp_path}/admin"


async def test_sums_travel_whole_and_are_read_in_a_thread(address: str) -> None:
    books, query = KnownBooks(), CostQuery(Grouping.DAY, 1_795_000_000.5, 1_796_000_000.0, "acme", "default")
    async with served(books, address):
        assert await list_costs(address, query) == SUMMARY
        assert await list_costs(address, CostQuery()) == SUMMARY
    assert books.asked == [query, CostQuery()]
    assert threading.get_ident() not in books.threads
    assert len(books.threads) == 1


async def test_a_record_travels_whole(address: str) -> None:
    async with served(KnownBooks(), address):
        assert await get_cost(address, "b39d47ef") == RECORD


@pytest.mark.parametrize("request_id", ["unknown", "", "two words", "x" * 129, "naïve"])
async def test_a_record_that_is_not_there_is_the_callers_mistake(address: str, request_id: str) -> None:
    async with served(KnownBooks(), address):
        with pytest.raises(InvalidRequest) as caught:
            await get_cost(address, request_id)
    assert caught.value.field == "request_id"


async def test_budgets_travel_whole_and_a_store_that_is_away_is_told(address: str) -> None:
    books = KnownBooks()
    async with served(books, address):
        assert await list_budgets(address) == BUDGETS
        assert {one.tenant for one in (await list_budgets(address, tenant="other")).states} == {"other"}
        with pytest.raises(InvalidRequest, match="tenant"):
            await list_budgets(address, tenant="No Tenant")
        books.store_is_away = True
        with pytest.raises(LedgerUnavailable):
            await list_budgets(address)


@pytest.mark.parametrize("line", [RECORD, RECKONED])
def test_a_line_is_the_same_after_it_was_a_message(line: Mapping[str, Any]) -> None:
    assert record_from_proto(record_to_proto({**line, "event": "cost_record", "key": "hash"})) == line


def test_a_line_of_an_earlier_version_is_a_message_too() -> None:
    new = {"usage_source", "busy_micros", "price_version", "price_sources", "open"}
    attempts = [{name: value for name, value in one.items() if name not in new} for one in RECORD["attempts"]]
    old = {name: value for name, value in RECORD.items() if name not in new} | {"attempts": attempts}
    assert record_from_proto(record_to_proto(old))["attempts"][0]["usage_source"] is None


@pytest.mark.parametrize("field", ["since", "until"])
@pytest.mark.parametrize("moment", [-1.0, float("nan"), float("inf"), 1e300])
def test_a_moment_that_is_none_is_refused(field: str, moment: float) -> None:
    request = admin_pb2.ListCostsRequest()
    setattr(request, field, moment)
    with pytest.raises(InvalidRequest, match=field):
        query_from_proto(request)


def test_a_grouping_of_a_later_version_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="by"):
        query_from_proto(admin_pb2.ListCostsRequest(by=99))  # type: ignore[arg-type]


def test_nothing_named_is_everything_by_tenant() -> None:
    assert query_from_proto(admin_pb2.ListCostsRequest()) == CostQuery()
    assert query_from_proto(query_to_proto(CostQuery(since=0.0))) == CostQuery(since=0.0)


def test_more_budgets_than_a_message_takes_are_counted() -> None:
    many = BudgetStates("USD", BUDGETS.states[:1] * (MOST_ROWS + 5))
    told = budgets_from_proto(budgets_to_proto(many))
    assert (len(told.states), told.left_out) == (MOST_ROWS, 5)


def test_an_answer_that_names_no_window_is_no_answer_of_ours() -> None:
    with pytest.raises(BackendProtocol):
        budgets_from_proto(admin_pb2.ListBudgetsResponse(budgets=[admin_pb2.BudgetState(tenant="acme")]))
