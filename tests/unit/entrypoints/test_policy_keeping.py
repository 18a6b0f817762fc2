"""A policy file is followed, a bad one is refused, and what rules learn outlives the router."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from marginal.entrypoints.following import LOOK_SECONDS
from marginal.entrypoints.policy_keeping import PolicyKeeper
from marginal.policy.deferral import Decision, Reason, Verdict
from marginal.routing.book import Learner
from unit.telemetry.spans import MemoryLog
from unit.telemetry.test_metrics import Counted

FILE = """
default = "one"
currency = "USD"

[prices]
small = { input_per_million_tokens = 1, output_per_million_tokens = 1 }
large = { input_per_million_tokens = 10, output_per_million_tokens = 10 }

[policies.one]
version = "1"
score = "min_margin"
threshold = { rule = "target_rate", rate = 0.3, start = 0.5 }
"""
KEPT = Decision(Verdict.KEEP, Reason.SCORE, score=0.9)


TWO = (
    FILE
    + """
[policies.two]
version = "1"
score = "min_margin"
threshold = { rule = "target_rate", rate = 0.3, start = 0.6 }
"""
)


def saved(keeper: PolicyKeeper) -> str:
    """A state in which the first learner is good and the second is not."""
    [good] = keeper.book.snapshot()
    bad = good | {"tenant": "other", "state": {"place": 10**400, "owed": 0.0}}
    return json.dumps({"version": 1, "learners": [good, bad]})


class Kept:
    """A keeper over files of a directory, with everything it told."""

    def __init__(self, directory: Path) -> None:
        self.policy_file, self.state_file = directory / "policies.toml", directory / "state" / "thresholds.json"
        self.policy_file.write_text(FILE)
        self.log, self.counted = MemoryLog(), Counted()

    def keeper(self) -> PolicyKeeper:
        return PolicyKeeper(self.policy_file, self.state_file, log=self.log.logs.log, metrics=self.counted.metrics)

    def events(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.log.events() if event["event"] == name]


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


def acme(keeper: PolicyKeeper) -> Learner:
    return keeper.book.learner(keeper.book.policy(""), task="", tenant="acme")


async def until(told: Callable[[], Any]) -> None:
    for _ in range(250):
        if told():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not happen within 5 s")


async def test_a_changed_file_is_in_force_without_a_restart(kept: Kept) -> None:
    keeper = kept.keeper()
    async with keeper.running():
        kept.policy_file.write_text(FILE.replace('version = "1"', 'version = "2"'))
        await until(lambda: keeper.book.policy("").version == "2")
    [event] = kept.events("policies_reloaded")
    assert event["versions"] == {"one": "2"}
    assert keeper.source.refused == ""


async def test_a_bad_file_is_refused_once_and_the_old_one_stays(kept: Kept) -> None:
    keeper = kept.keeper()
    async with keeper.running():
        kept.policy_file.write_text(FILE.replace("rate = 0.3", "rate = 3"))
        await until(lambda: keeper.source.refused)
        await asyncio.sleep(2.5 * LOOK_SECONDS)
        assert keeper.book.policy("").criterion.rule.says == "holds a deferral share of 30.0%"
        assert "policies.one.threshold.rate (line 12)" in keeper.source.refused
        kept.policy_file.write_text(FILE)
        await until(lambda: not keeper.source.refused)
    assert len(kept.events("policies_refused")) == 1
    results = {dict(labels)["marginal.result"]: n for labels, n in kept.counted.sums("marginal.policy.reloads").items()}
    assert results == {"refused": 1, "accepted": 1}


async def test_another_currency_is_refused_by_the_file_that_names_it(kept: Kept) -> None:
    keeper = kept.keeper()
    async with keeper.running():
        kept.policy_file.write_text(FILE.replace("USD", "EUR"))
        await until(lambda: keeper.source.refused)
    assert keeper.source.refused.startswith(f"policy file {kept.policy_file}: currency: is EUR, but")
    assert keeper.book.policies.currency == "USD"


async def test_a_file_that_vanishes_changes_nothing_until_it_is_back(kept: Kept) -> None:
    keeper = kept.keeper()
    async with keeper.running():
        kept.policy_file.unlink()
        await until(lambda: keeper.source.refused)
        assert keeper.book.policy("").version == "1"
        kept.policy_file.write_text(FILE)
        await until(lambda: not keeper.source.refused)


async def test_what_was_learnt_is_there_after_a_restart(kept: Kept) -> None:
    keeper = kept.keeper()
    async with keeper.running():
        for _ in range(10):
            acme(keeper).judged(KEPT, deferrable=True)
    restarted = kept.keeper()
    assert acme(restarted).threshold.value == pytest.approx(acme(keeper).threshold.value)
    assert acme(restarted).threshold.value != 0.5


async def test_a_state_file_is_never_seen_half_written(kept: Kept) -> None:
    keeper = kept.keeper()
    acme(keeper).judged(KEPT, deferrable=True)
    await keeper.save()
    assert [path.name for path in kept.state_file.parent.iterdir()] == ["thresholds.json"]
    assert json.loads(kept.state_file.read_text())["version"] == 1


async def test_a_file_that_is_still_being_written_is_not_taken(kept: Kept) -> None:
    kept.policy_file.write_text(TWO)
    keeper = kept.keeper()
    other = keeper.book.learner(keeper.book.policy("two"), task="", tenant="acme")
    other.judged(KEPT, deferrable=True)
    async with keeper.running():
        kept.policy_file.write_text(FILE)  # a prefix of it that is a policy file too
        await asyncio.sleep(1.2 * LOOK_SECONDS)
        kept.policy_file.write_text(TWO.replace('version = "1"', 'version = "9"'))
        await until(lambda: keeper.book.policy("").version == "9")
    assert (
        keeper.book.learner(keeper.book.policy("two"), task="", tenant="acme").threshold.value == other.threshold.value
    )
    assert len(kept.events("policies_reloaded")) == 1


@pytest.mark.parametrize("value", ["1e99999999999999999999", "9" * 5000, "[" * 100_000])
async def test_a_number_that_no_parser_takes_does_not_stop_the_following(kept: Kept, value: str) -> None:
    keeper = kept.keeper()
    async with keeper.running():
        kept.policy_file.write_text(FILE.replace("start = 0.5", f"start = {value}"))
        await until(lambda: keeper.source.refused)
        kept.policy_file.write_text(FILE.replace('version = "1"', 'version = "2"'))
        await until(lambda: keeper.book.policy("").version == "2")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"version": 2, "learners": []}',
        '{"version": 1, "learners": [{"policy": "one"}]}',
        "\x00",
        "null",
        "[" * 200_000,
    ],
)
async def test_a_state_file_that_cannot_be_read_is_set_aside(kept: Kept, text: str) -> None:
    kept.state_file.parent.mkdir()
    kept.state_file.write_text(text)
    keeper = kept.keeper()
    assert acme(keeper).threshold.value == 0.5
    assert not kept.state_file.exists()
    assert len(kept.events("thresholds start anew")) == 1


async def test_a_state_is_restored_whole_or_not_at_all(kept: Kept) -> None:
    keeper = kept.keeper()
    acme(keeper).judged(KEPT, deferrable=True)
    kept.state_file.parent.mkdir()
    kept.state_file.write_text(saved(keeper))
    assert acme(kept.keeper()).threshold.value == 0.5
    assert kept.state_file.with_suffix(".unreadable").exists()


async def test_nothing_is_written_when_nothing_was_learnt(kept: Kept) -> None:
    keeper = kept.keeper()
    await keeper.save()
    assert not kept.state_file.exists()


async def test_a_state_that_cannot_be_saved_is_told_and_harms_nobody(kept: Kept) -> None:
    kept.state_file.parent.write_text("a file where a directory should be")
    keeper = kept.keeper()
    acme(keeper).judged(KEPT, deferrable=True)
    await keeper.save()
    assert len(kept.events("thresholds were not saved")) == 1
