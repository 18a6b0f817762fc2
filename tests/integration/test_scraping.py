"""Prometheus' view of real processes: counted by calls over gRPC, fetched over HTTP, with no collector anywhere."""

import asyncio
import signal
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from integration.processes import Deployment, deployed
from marginal.entrypoints import model, router
from marginal.entrypoints.services import LARGE, ROUTER, SMALL
from marginal.entrypoints.serving import TraceOptions, telemetry
from marginal.errors import ConfigurationError
from marginal.telemetry.tracing import Exporter
from marginal.tokens import Tier
from unit.telemetry.test_scraping import fetch, total

CANARY = "CANARY-7d1c what is it"
SCRAPED = ("--metrics-listen", "127.0.0.1:0")


def address(services: Deployment, service: str) -> str:
    lines = services.running[service].program.log_path.read_text().splitlines()
    [told] = [line for line in lines if "metrics at " in line]
    return told.partition("metrics at ")[2].partition('"')[0]


async def page(services: Deployment, service: str) -> str:
    return await asyncio.to_thread(fetch, address(services, service))


async def test_every_service_tells_prometheus_what_its_calls_came_to(tmp_path: Path) -> None:
    unsure, sure = "scripted:tokens=8,unsure=1", "scripted:tokens=8"
    async with deployed(tmp_path, small=unsure, large=sure, each=SCRAPED) as services:
        answers = [(await services.ask(f"{CANARY} {number}"))[1] for number in range(3)]
        pages = {service: await page(services, service) for service in (ROUTER, SMALL, LARGE)}
    assert {answer.tier for answer in answers} == {Tier.LARGE}
    assert total(pages[ROUTER], "marginal_requests_total", marginal_verdict="defer") == len(answers)
    assert total(pages[ROUTER], "marginal_cost_total") == sum(answer.total_nanos for answer in answers)
    for service, tier in ((SMALL, Tier.SMALL), (LARGE, Tier.LARGE)):
        attempts = [attempt for answer in answers for attempt in answer.attempts if attempt.tier is tier]
        for kind, tokens in (
            ("input", sum(attempt.usage.input_tokens for attempt in attempts)),
            ("output", sum(attempt.usage.output_tokens for attempt in attempts)),
        ):
            told = {"marginal_tier": tier.value, "gen_ai_token_type": kind}
            assert total(pages[ROUTER], "gen_ai_client_token_usage_sum", **told) == tokens > 0
            assert total(pages[service], "gen_ai_client_token_usage_sum", **told) == tokens
    together = "".join(pages.values())
    assert CANARY.partition(" ")[0] not in together
    assert not any(answer.request_id in together or answer.trace_id in together for answer in answers)


async def test_the_port_is_closed_once_a_service_has_drained(tmp_path: Path) -> None:
    slow = "scripted:tokens=40,delay_ms=25"
    async with deployed(tmp_path, small=slow, large=slow, each=SCRAPED) as services:
        url = address(services, ROUTER)
        await services.ask("a question")
        asking = asyncio.create_task(services.ask("a question"))
        await asyncio.sleep(0.5)
        services.signal(ROUTER, signal.SIGTERM)
        assert "target_info" in await asyncio.to_thread(fetch, url), "still there while streams end"
        await asking
        assert await services.ended(ROUTER) == 0
        with pytest.raises(OSError, match="refused"):
            await asyncio.to_thread(fetch, url)


@pytest.mark.parametrize("app", [router.app, model.program(Tier.SMALL), model.program(Tier.LARGE)])
def test_an_address_that_cannot_be_had_ends_a_program_with_one_sentence(app: object) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wanted = f"127.0.0.1:{taken.getsockname()[1]}"
        done = CliRunner().invoke(app, ["--listen", "127.0.0.1:0", "--metrics-listen", wanted])
    assert done.exit_code == 2
    said = f"error: --metrics-listen {wanted}: cannot be listened on (address already in use), choose another"
    assert done.stderr.splitlines() == [said]


@pytest.mark.parametrize("wanted", ["9464", "127.0.0.1", "127.0.0.1:99999", "nowhere.invalid:9464"])
def test_what_is_no_address_is_refused_by_the_option(wanted: str) -> None:
    options = TraceOptions(Exporter.NONE, None, "", wanted)
    with pytest.raises(ConfigurationError, match=f"^--metrics-listen {wanted}: "), telemetry("test", options):
        pass


def test_the_port_is_given_back_when_something_else_is_wrong() -> None:
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        wanted = f"127.0.0.1:{chosen.getsockname()[1]}"
    for _ in range(2):
        with (
            pytest.raises(ConfigurationError, match=r"^otlp_endpoint: missing"),
            telemetry("test", TraceOptions(Exporter.OTLP, None, "", wanted)),
        ):
            pass
