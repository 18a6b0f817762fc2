"""Policies over real processes: reloaded, switched, learnt from and shown; shadows asked after the caller is served."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from integration.processes import Deployment, deployed
from marginal.entrypoints.services import LARGE, ROUTER, SMALL
from marginal.routing.requests import Mode
from marginal.tokens import Tier
from marginal.transport.admin import list_policies

MARGINAL = (sys.executable, "-m", "marginal.entrypoints.cli")
UNSURE, SURE_SMALL, SURE_LARGE = "scripted:margin=0.1,tokens=4", "scripted:margin=0.9,tokens=4", "scripted:tokens=4"
FILE = """
default = "one"
currency = "USD"

[prices]
small = { input_per_million_tokens = 1, output_per_million_tokens = 1 }
large = { input_per_million_tokens = 10, output_per_million_tokens = 10 }

[policies.one]
version = "1"
score = "min_margin"
mode = "auto"
threshold = { rule = "target_rate", rate = 0.3, start = 0.5 }

[policies.one.tasks.easy]
threshold = { rule = "fixed", value = 0.05 }
"""


def marginal(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 (our own program)
        (*MARGINAL, *arguments), capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def policy_file(tmp_path: Path) -> Path:
    path = tmp_path / "policies.toml"
    path.write_text(FILE)
    return path


def rewrite(path: Path, text: str) -> None:
    """As an editor or a ConfigMap does."""
    path.write_text(text)


async def test_a_policy_changes_without_a_restart_and_a_bad_one_is_refused(tmp_path: Path, policy_file: Path) -> None:
    async with deployed(tmp_path, small=UNSURE, large=SURE_LARGE, policy_file=policy_file) as running:
        _, before = await running.ask("who?")
        assert (before.tier, before.policy_version) == (Tier.LARGE, "1")

        rewrite(policy_file, FILE.replace('version = "1"', 'version = "2"').replace('"auto"', '"small_only"'))
        await running.until_logged(ROUTER, "policies_reloaded")
        _, switched = await running.ask("who?", mode=Mode.LARGE_ONLY)
        assert (switched.tier, switched.policy_version) == (Tier.SMALL, "2")

        rewrite(policy_file, FILE.replace("rate = 0.3", "rate = 30"))
        [refused] = await running.until_logged(ROUTER, "policies_refused")
        assert "policies.one.threshold.rate (line 13)" in refused["because"]
        _, after = await running.ask("who?")
        assert after.policy_version == "2"

        shown = await asyncio.to_thread(marginal, "policy", "show", "--admin", running.admin, "--json")
        assert json.loads(shown.stdout)["refused"] == refused["because"]
        assert json.loads(shown.stdout)["policies"][0]["mode"] == "small_only"


async def test_a_task_is_judged_by_its_own_threshold(tmp_path: Path, policy_file: Path) -> None:
    async with deployed(tmp_path, small=UNSURE, large=SURE_LARGE, policy_file=policy_file) as running:
        assert (await running.ask("who?", task="easy"))[1].tier is Tier.SMALL
        assert (await running.ask("who?", task="hard"))[1].tier is Tier.LARGE
        seen = await list_policies(running.admin)
    own, easy = seen.policies[0].criteria
    assert [(one.task, one.rule, [tenant.requests for tenant in one.tenants]) for one in (own, easy)] == [
        ("", "target_rate", [1]),
        ("easy", "fixed", [1]),
    ]


async def test_a_threshold_that_moved_is_where_it_was_after_a_restart(tmp_path: Path, policy_file: Path) -> None:
    async def threshold(running: Deployment) -> float:
        [tenant] = (await list_policies(running.admin)).policies[0].criteria[0].tenants
        return tenant.threshold

    async with deployed(tmp_path, small=UNSURE, large=SURE_LARGE, policy_file=policy_file) as running:
        for _ in range(5):
            await running.ask("who?")
        moved = await threshold(running)
    assert moved < 0.5
    async with deployed(tmp_path, small=UNSURE, large=SURE_LARGE, policy_file=policy_file) as running:
        assert await threshold(running) == pytest.approx(moved)


async def test_a_shadow_is_asked_after_the_answer_and_both_accounts_agree(tmp_path: Path, policy_file: Path) -> None:
    async with deployed(tmp_path, small=SURE_SMALL, large=SURE_LARGE, policy_file=policy_file) as running:
        _, answer = await running.ask("who?", mode=Mode.SHADOW)
        [record] = await running.until_logged(ROUTER, "cost_record")
        [asked] = await running.until_logged(LARGE, "generation", count=1)
    assert [attempt.outcome.value for attempt in answer.attempts] == ["kept"]
    assert [attempt["outcome"] for attempt in record["attempts"]] == ["kept", "shadow"]
    assert record["attempts"][1]["output_tokens"] == asked["output_tokens"]
    assert record["shadow"]["scores"]["min_margin"] == pytest.approx(0.9, abs=0.01)
    assert not {"small_text", "large_text"} & set(record["shadow"])
    assert "who?" not in running.running[ROUTER].program.log_path.read_text()


async def test_the_papers_rule_waits_for_exact_scores(tmp_path: Path, policy_file: Path) -> None:
    rewrite(
        policy_file,
        FILE.replace(
            '{ rule = "target_rate", rate = 0.3, start = 0.5 }',
            '{ rule = "budget", per_request = 3, small_cost = 1, large_cost = 10 }',
        ).replace('"min_margin"', '"min_margin"\nwindow = 3'),
    )
    async with deployed(tmp_path, small=UNSURE, large=SURE_LARGE, policy_file=policy_file) as running:
        for _ in range(21):
            _, answer = await running.ask("who?")
        generations = running.logged(SMALL, "generation")
    assert not answer.decision.censored
    assert answer.decision.tokens_seen == 3
    assert len(generations) == 21


def test_policy_check_names_what_a_router_would_refuse(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text(FILE)
    bad.write_text(FILE.replace('"min_margin"', '"luck"'))
    assert marginal("policy", "check", str(good)).returncode == 0
    refused = marginal("policy", "check", str(good), str(bad))
    assert refused.returncode == 1
    assert "policies.one.score (line 11): must be one of first_token_margin" in refused.stdout
    as_json = json.loads(marginal("policy", "check", str(good), str(bad), "--json").stdout)
    assert [one["good"] for one in as_json["files"]] == [True, False]


def test_policy_show_says_how_to_get_a_router(tmp_path: Path) -> None:
    shown = marginal("policy", "show", "--admin", "127.0.0.1:1", "--state-dir", str(tmp_path))
    assert shown.returncode == 1
    assert "no router answers operators at 127.0.0.1:1" in shown.stderr
