from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from marginal.routing.records import Comparison, DegradedReason
from marginal.telemetry.metrics import MOST_VALUES, Metrics
from marginal.telemetry.tracing import tracing_to
from marginal.tokens import Tier
from unit.telemetry.test_recorder import RECORD


class Counted:
    """A router's counters, and what they have come to."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self._tracing = tracing_to(None, service_name="test", version="1", readers=[self._reader])
        self.metrics: Metrics = self._tracing.metrics

    def sums(self, name: str) -> dict[Mapping[str, Any], int]:
        data = self._reader.get_metrics_data()
        assert data is not None
        [scope] = data.resource_metrics[0].scope_metrics
        return {
            tuple(sorted(point.attributes.items())): point.value
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        }


@pytest.fixture
def counted() -> Counted:
    return Counted()


def test_a_request_is_counted_by_its_verdict_and_never_by_its_tenant(counted: Counted) -> None:
    counted.metrics.completed(RECORD)
    counted.metrics.completed(replace(RECORD, degraded=DegradedReason.DEADLINE))
    sums = counted.sums("marginal.requests")
    assert sorted(sums.values()) == [1, 1]
    assert not any(RECORD.tenant in str(labels) for labels in sums)


def test_every_attempt_is_counted_at_its_cost_by_tier_and_outcome(counted: Counted) -> None:
    counted.metrics.completed(RECORD)
    costs = counted.sums("marginal.cost")
    assert sum(costs.values()) == RECORD.total_nanos
    assert {dict(labels)["marginal.attempt.outcome"] for labels in costs} == {"aborted", "kept"}


def test_requests_sampled_otherwise_than_calibrated_are_counted_by_policy(counted: Counted) -> None:
    for other_sampling in (True, False, True):
        counted.metrics.completed(replace(RECORD, other_sampling=other_sampling))
    assert counted.sums("marginal.other_sampling") == {(("marginal.policy", "balanced"),): 2}


def test_comparisons_and_reloads_are_counted(counted: Counted) -> None:
    counted.metrics.completed(replace(RECORD, comparison=Comparison(agrees=True, scores={})))
    counted.metrics.reloaded(accepted=True)
    counted.metrics.reloaded(accepted=False)
    assert list(counted.sums("marginal.shadows").values()) == [1]
    reloads = counted.sums("marginal.policy.reloads")
    assert {dict(labels)["marginal.result"]: count for labels, count in reloads.items()} == {
        "accepted": 1,
        "refused": 1,
    }


def test_the_size_of_a_journal_is_what_it_was_last(counted: Counted) -> None:
    for size in (5_000, 2_000):
        counted.metrics.journal(size)
    assert counted.sums("marginal.journal.size") == {(): 2_000}


MANY = 10 * MOST_VALUES


def values(sums: Mapping[Any, int], label: str) -> set[str]:
    return {dict(labels)[label] for labels in sums}


def test_a32_many_policies_become_other_and_every_nano_unit_is_still_counted(counted: Counted) -> None:
    for number in range(MANY):
        counted.metrics.completed(replace(RECORD, policy=f"policy-{number}"))
    for name in ("marginal.requests", "marginal.cost"):
        told_apart = values(counted.sums(name), "marginal.policy")
        assert len(told_apart) == MOST_VALUES + 1
        assert {"policy-0", "other"} <= told_apart
    assert sum(counted.sums("marginal.cost").values()) == MANY * RECORD.total_nanos
    assert sum(counted.sums("marginal.requests").values()) == MANY


def test_a32_tenants_and_tasks_make_no_series(counted: Counted) -> None:
    for number in range(MANY):
        counted.metrics.completed(replace(RECORD, tenant=f"tenant-{number}", task=f"task-{number}"))
    assert list(counted.sums("marginal.requests").values()) == [MANY]


def test_a32_pods_that_come_and_go_become_other(counted: Counted) -> None:
    for number in range(MANY):
        counted.metrics.endpoint(Tier.SMALL, f"10.0.0.{number}:8000", "ejected")
    events = counted.sums("marginal.engine.events")
    assert len(values(events, "marginal.engine.endpoint")) == MOST_VALUES + 1
    assert sum(events.values()) == MANY
