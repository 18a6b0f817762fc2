"""What `marginal policy show` tells people and programs."""

import json

import pytest
from rich.console import Console

from marginal.entrypoints.policy import overview_as_json, overview_shown
from marginal.routing.book import Tally
from marginal.routing.overview import (
    CriterionOverview,
    Overview,
    PolicyOverview,
    ShadowOverview,
    Source,
    TenantOverview,
    overview,
)
from marginal.routing.policies import CalibratedAt
from marginal.routing.requests import Mode
from marginal.transport.admin_messages import overview_from_proto, overview_to_proto
from unit.routing.cascade import UNSURE, Cascade, script

TALLY = Tally(
    deferral_share=0.303, degraded_share=0.01, spend_nanos=5_400, always_large_nanos=18_500, other_sampling_share=0.12
)
ACME = TenantOverview("acme", 0.31, requests=1_200, lessons=1_180, tally=TALLY)
OTHER = TenantOverview("other", 0.9, requests=3, lessons=0, tally=Tally())
OWN = CriterionOverview(
    "", "min_margin", 8, "target_rate", "holds a deferral share of 30.0%", 0.3, (ACME, OTHER), CalibratedAt(0.0)
)
TASK = CriterionOverview("maths", "mean_logprob", 0, "fixed", "defers below -0.5", -0.5, (), CalibratedAt(0.7, 0.9))
SEEN = Overview(
    Source("policies.toml", 1_795_547_000.0),
    "default",
    "USD",
    (PolicyOverview("default", "3", Mode.SHADOW, (OWN, TASK), ShadowOverview(0.05, 40, 38, 2)),),
)


def text(seen: Overview, *, width: int = 100) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(overview_shown(seen))
    return capture.get()


def test_a_line_per_tenant_and_task_fits_a_terminal() -> None:
    shown = text(SEEN, width=80)
    assert "…" not in shown
    for words in ("acme", "0.31", "1,200", "30.3%", "$0.00540", "71%", "0.9", "task maths", "-0.5"):
        assert words in shown


def test_every_rule_is_said_in_words_with_its_mode_and_its_shadows() -> None:
    shown = " ".join(text(SEEN).split())
    assert "default 3, the default: target_rate, holds a deferral share of 30.0% (mode shadow)" in shown
    assert "default 3, task maths: fixed, defers below -0.5" in shown
    assert "5.0% of kept answers shadowed; 38 of 40 agreed, 2 left out" in shown


def test_a_sampling_that_a_threshold_was_not_calibrated_at_is_flagged() -> None:
    shown = " ".join(text(SEEN).split())
    assert "default: calibrated at temperature 0; 60 of the latest requests had another sampling" in shown
    assert "default, task maths: calibrated at temperature 0.7, top_p 0.9" in shown
    assert shown.count("had another sampling") == 1


def test_a_refused_file_stands_out() -> None:
    refused = Overview(Source("policies.toml", 0.0, refused="default: is none"), "default", "USD", SEEN.policies)
    assert "REFUSED, the policies before are still in force: default: is none" in text(refused)


def test_programs_get_numbers() -> None:
    seen = json.loads(json.dumps(overview_as_json(SEEN)))
    tenant = seen["policies"][0]["criteria"][0]["tenants"][0]
    assert (tenant["threshold"], tenant["spend_nanos_per_request"]) == (0.31, 5_400)
    assert seen["refused"] is None
    assert tenant["other_sampling_share"] == 0.12
    assert seen["policies"][0]["criteria"][1]["calibrated_at"] == {"temperature": 0.7, "top_p": 0.9}


@pytest.mark.parametrize("only", ["", "default"])
def test_what_travels_to_the_operator_is_what_is_there(only: str) -> None:
    assert overview_from_proto(overview_to_proto(SEEN, only=only)) == SEEN


def test_another_policy_is_left_out() -> None:
    assert overview_from_proto(overview_to_proto(SEEN, only="careful")).policies == ()


async def test_an_overview_shows_what_was_learnt_and_changes_nothing() -> None:
    cascade = Cascade(small=script(UNSURE))
    await cascade.ask(tenant="acme")
    before = cascade.book.snapshot()
    seen = overview(cascade.book, cascade.shadows, Source("test", 0.0))
    [tenant] = seen.policies[0].criteria[0].tenants
    assert (tenant.tenant, tenant.requests, tenant.tally.deferral_share) == ("acme", 1, 1.0)
    assert cascade.book.snapshot() == before
