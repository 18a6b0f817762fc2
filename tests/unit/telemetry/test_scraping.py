import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from marginal.telemetry.metrics import MOST_VALUES, Metrics
from marginal.telemetry.scraping import MOST_CLIENTS, Scraped
from marginal.telemetry.tracing import tracing_to
from marginal.tokens import Tier, Usage
from unit.telemetry.test_recorder import CANARY, RECORD

NAMES = {
    "target_info",
    "marginal_requests",
    "marginal_cost",
    "gen_ai_client_token_usage",
    "marginal_other_sampling",
    "marginal_engine_events",
    "marginal_policy_reloads",
    "marginal_file_rereads",
    "marginal_journal_size_bytes",
}
LABELS = {
    *("marginal_policy", "marginal_verdict", "marginal_reason", "marginal_degraded"),
    *("marginal_tier", "marginal_attempt_outcome", "marginal_cancelled", "marginal_result", "marginal_file"),
    *("marginal_engine_endpoint", "marginal_engine_event"),
    *("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_token_type", "le"),
}


def fetch(url: str, **headers: str) -> str:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5) as answer:  # noqa: S310
        return str(answer.read().decode())


def families(text: str) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def total(text: str, sample: str, **labels: str) -> float:
    """The sum over the series of that name whose labels say so."""
    return sum(
        one.value
        for family in families(text).values()
        for one in family.samples
        if one.name == sample and labels.items() <= one.labels.items()
    )


def is_hung_up_on(client: socket.socket) -> bool:
    """Whether nobody takes another byte, a moment later."""
    time.sleep(0.1)
    try:
        client.sendall(b"G")
    except OSError:
        return True
    return False


def port_of(page: Scraped) -> int:
    return int(page.url.removesuffix("/metrics").rpartition(":")[2])


class Counting:
    """A process that counts, and its page."""

    def __init__(self, page: Scraped, *more: InMemoryMetricReader, service: str = "test") -> None:
        self.page = page
        self.metrics: Metrics = tracing_to(
            None, service_name=service, version="1", readers=[page.reader, *more]
        ).metrics

    def text(self) -> str:
        return fetch(self.page.url)


@pytest.fixture
def counting() -> Iterator[Counting]:
    with closing(Scraped("127.0.0.1", 0)) as page:
        yield Counting(page)


def everything_counted(metrics: Metrics) -> None:
    metrics.completed(replace(RECORD, other_sampling=True))
    metrics.generated(Tier.SMALL, Usage(40, 3), cancelled=True)
    metrics.endpoint(Tier.SMALL, "10.0.0.1:8000", "retry")
    metrics.reloaded(accepted=True)
    metrics.reread("keys", accepted=False)
    metrics.journal(1_000)


def test_what_was_counted_can_be_fetched_and_goes_to_the_other_readers_too() -> None:
    other = InMemoryMetricReader()
    with closing(Scraped("127.0.0.1", 0)) as page:
        counting = Counting(page, other)
        counting.metrics.completed(RECORD)
        text = counting.text()
    assert total(text, "marginal_requests_total") == 1
    assert total(text, "marginal_cost_total") == RECORD.total_nanos
    data = other.get_metrics_data()
    assert data is not None
    assert "marginal.requests" in {metric.name for metric in data.resource_metrics[0].scope_metrics[0].metrics}


def test_tokens_are_a_histogram_by_tier_outcome_and_direction(counting: Counting) -> None:
    counting.metrics.completed(RECORD)
    text = counting.text()
    for attempt in RECORD.attempts:
        where = {"marginal_tier": attempt.tier.value, "marginal_attempt_outcome": attempt.outcome.value}
        for kind, tokens in (("input", attempt.usage.input_tokens), ("output", attempt.usage.output_tokens)):
            told = where | {"gen_ai_token_type": kind}
            assert total(text, "gen_ai_client_token_usage_sum", **told) == tokens
            assert total(text, "gen_ai_client_token_usage_count", **told) == 1
            assert total(text, "gen_ai_client_token_usage_bucket", le="1048576.0", **told) == 1


def test_names_and_labels_are_these_and_no_others(counting: Counting) -> None:
    everything_counted(counting.metrics)
    told = families(counting.text())
    assert set(told) == NAMES
    [target] = told.pop("target_info").samples
    assert {label for family in told.values() for one in family.samples for label in one.labels} == LABELS
    assert set(target.labels) == {
        *("service_name", "service_version", "service_instance_id"),
        *("telemetry_sdk_language", "telemetry_sdk_name", "telemetry_sdk_version"),
    }


def test_nothing_that_callers_choose_makes_a_series_and_policies_only_so_many(counting: Counting) -> None:
    for number in range(4 * MOST_VALUES):
        own = f"{CANARY}{number}"
        counting.metrics.completed(
            replace(RECORD, request_id=own, trace_id=own, tenant=own, task=own, policy=f"policy-{number}")
        )
    text = counting.text()
    assert CANARY not in text
    assert len(families(text)["marginal_requests"].samples) == MOST_VALUES + 1
    tokens = families(text)["gen_ai_client_token_usage"].samples
    assert len({tuple(sorted(one.labels.items())) for one in tokens if one.name.endswith("_count")}) == 4
    assert total(text, "marginal_requests_total") == 4 * MOST_VALUES


def test_two_services_in_one_process_tell_their_own_numbers(counting: Counting) -> None:
    with closing(Scraped("127.0.0.1", 0)) as page:
        other = Counting(page)
        counting.metrics.completed(RECORD)
        other.metrics.reloaded(accepted=True)
        assert total(counting.text(), "marginal_requests_total") == 1
        assert set(families(other.text())) == {"target_info", "marginal_policy_reloads"}


class SlowlyTold(str):
    """A name that takes its time: the exporter tells it between collecting what was counted and writing that down."""

    __slots__ = ()

    def __str__(self) -> str:
        time.sleep(0.05)
        return str.__str__(self)


def test_scrapes_at_the_same_time_each_see_everything_once() -> None:
    with closing(Scraped("127.0.0.1", 0)) as page, ThreadPoolExecutor(4) as pool:
        counting = Counting(page, service=SlowlyTold("router"))
        everything_counted(counting.metrics)
        together = list(pool.map(lambda _: counting.text(), range(4)))
    assert set(together) == {together[0]}
    assert total(together[0], "marginal_requests_total") == 1


def test_openmetrics_is_told_to_those_who_ask_for_it(counting: Counting) -> None:
    counting.metrics.completed(RECORD)
    assert fetch(counting.page.url, Accept="application/openmetrics-text; version=1.0.0").endswith("# EOF\n")


@pytest.mark.parametrize("path", ["/", "/metrics/", "/metricsx", "/favicon.ico"])
def test_there_is_nothing_else_to_fetch_and_no_word_of_what_serves_it(counting: Counting, path: str) -> None:
    url = counting.page.url.removesuffix("/metrics") + path
    with pytest.raises(urllib.error.HTTPError) as refused:
        fetch(url)
    with refused.value as answer:
        assert answer.code == 404
        assert answer.headers["Server"].strip() == "marginal"


def test_silent_clients_hold_up_nobody_until_they_are_too_many(counting: Counting) -> None:
    port = port_of(counting.page)
    silent = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(MOST_CLIENTS - 1)]
    counting.metrics.completed(RECORD)
    assert total(counting.text(), "marginal_requests_total") == 1
    with socket.create_connection(("127.0.0.1", port), timeout=5) as last:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as sent_away:
            assert sent_away.recv(1) == b""
        last.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert last.recv(12) == b"HTTP/1.0 200"
    for client in silent:
        client.close()


def test_a_client_that_dawdles_is_hung_up_on() -> None:
    page = Scraped("127.0.0.1", 0, patience_seconds=0.3)
    with closing(page), socket.create_connection(("127.0.0.1", port_of(page)), timeout=5) as client:
        assert any(is_hung_up_on(client) for _ in range(50))


def test_the_port_is_given_back_at_the_end() -> None:
    page = Scraped("127.0.0.1", 0)
    counting = Counting(page)
    counting.metrics.completed(RECORD)
    counting.text()
    page.close()
    port = port_of(page)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    with closing(Scraped("127.0.0.1", port)) as next_page:
        assert next_page.url == page.url


def test_an_address_that_is_taken_is_an_error_of_the_system(counting: Counting) -> None:
    with pytest.raises(OSError, match="in use"):
        Scraped("127.0.0.1", port_of(counting.page))
