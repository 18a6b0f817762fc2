import json
import random
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from marginal.entrypoints.calibrate import app
from marginal.errors import ConfigurationError
from marginal.evaluation.calibrating import Outcome, Ways, Wish, calibrate
from marginal.evaluation.policy_sections import put_into, section
from marginal.evaluation.replay import ScoreChoice
from marginal.evaluation.results import Header, Row, Run, TierResult
from marginal.evaluation.run_lines import header_to_line, row_to_line
from marginal.settings import parse_policies
from marginal.tokens import Alternative, Sampling, Token, Usage

HEADER = Header("home-small", "home-large", "USD", "exact", "expected", Sampling(), 20, "2026-11-24T18:00:00Z")
SURE, NOISE = ScoreChoice("min_margin"), ScoreChoice("mean_margin")
WAYS = Ways((SURE,))

FILE = """# kept: the head
default = "mine"
currency = "USD"
prices.small = { input_per_million_tokens = 0.05, output_per_million_tokens = 0.2 }
prices.large = { input_per_million_tokens = 0.5, output_per_million_tokens = 2.0 }

# kept: about mine
[policies.mine]
version = "1" # gone
score = "min_margin"
threshold = { rule = "fixed", value = 0.5 }

[policies.mine.tasks.sums]
threshold = { rule = "fixed", value = 0.1 }

# kept: about the other
[policies.mine-too]
version = "3"
score = "mean_margin"
threshold = { rule = "fixed", value = 0.25 }
"""


def recorded(number: int, *, seed: int = 1) -> Run:
    """The small model is right as often as `min_margin` says, the large one in 9 of 10; the other score is noise."""
    draw = random.Random(seed)  # noqa: S311 (repeatable rows)
    rows = []
    for index in range(number):
        sure = draw.random()
        small = TierResult(draw.random() < sure, Usage(10, 4), 130, 0.1)
        large = TierResult(draw.random() < 0.9, Usage(10, 4), 1_300, 0.2)
        rows.append(Row(str(index), "", small, large, scores={"min_margin": sure, "mean_margin": draw.random()}))
    return Run(HEADER, tuple(rows), "made")


@pytest.fixture(scope="module")
def run() -> Run:
    return recorded(2000)


def policy(outcome: Outcome, run: Run) -> dict[str, object]:
    """The section that is written, read again by itself."""
    read = tomllib.loads(section(outcome, run.header, run.name, "made"))
    mine: dict[str, object] = read["policies"]["made"]
    return mine


def test_a_quality_is_fitted_on_one_part_and_measured_on_the_other(run: Run) -> None:
    outcome = calibrate(run, Wish("quality", 0.9), WAYS)
    assert outcome.expected.quality == pytest.approx(0.9)
    assert outcome.calibration.labels == outcome.measured.rows == 1000
    quality = outcome.measured.quality
    assert quality.interval.low < quality.value < quality.interval.high
    assert quality.value == pytest.approx(0.9, abs=0.05)
    assert outcome.measured.cost.value == pytest.approx(0.1 + outcome.measured.share.value, abs=0.02)
    assert calibrate(run, Wish("quality", 0.9), WAYS) == outcome
    assert calibrate(run, Wish("quality", 0.9), replace(WAYS, seed=1)) != outcome


@pytest.mark.parametrize("aim", ["cost", "share"])
def test_a_cost_or_a_share_is_kept_to(run: Run, aim: str) -> None:
    outcome = calibrate(run, Wish(aim, 0.4), WAYS)
    assert getattr(outcome.expected, aim) == pytest.approx(0.4)
    assert getattr(outcome.measured, aim).value == pytest.approx(0.4, abs=0.05)


def test_the_section_is_a_policy_that_means_what_was_found(run: Run) -> None:
    outcome = calibrate(run, Wish("cost", 0.5), WAYS)
    written = section(outcome, run.header, run.name, "made")
    assert policy(outcome, run)["threshold"] == {"rule": "calibrated", "cost": 0.5}
    assert policy(outcome, run)["calibrated_at"] == {"temperature": 0.0, "top_p": 1.0}
    threshold = parse_policies(put_into(FILE, "made", written)).by_name["made"].criterion.rule.start().value
    assert threshold == pytest.approx(outcome.threshold, abs=1e-6)
    assert (
        "# Written by `marginal calibrate` from the run made: home-small and home-large, recorded 2026-11-24" in written
    )
    assert "# Fitted on 1000 labels. On 1000 other rows, with 95 % intervals: quality" in written


def test_a_share_becomes_a_rule_that_holds_it_from_the_fitted_threshold_on(run: Run) -> None:
    outcome = calibrate(run, Wish("share", 0.3), WAYS)
    mine = policy(outcome, run)
    assert mine["threshold"] == {"rule": "target_rate", "rate": 0.3, "start": outcome.threshold}
    assert "calibration" not in mine
    assert outcome.threshold == pytest.approx(0.3, abs=0.05)


def test_a_promise_is_written_with_what_it_rests_on(run: Run) -> None:
    outcome = calibrate(run, Wish("quality", 0.9, confidence=0.9), WAYS)
    epsilon = round(0.1 * outcome.measured.large_accuracy, 9)
    assert outcome.certificate is not None
    assert policy(outcome, run)["threshold"] == {
        "rule": "guaranteed", "value": outcome.threshold, "epsilon": epsilon, "delta": 0.1, "labels": 1000,
    }  # fmt: skip
    assert outcome.threshold > calibrate(run, Wish("quality", 0.9), WAYS).threshold
    parse_policies(put_into(FILE, "made", section(outcome, run.header, run.name, "made")))


def test_the_score_is_chosen_where_it_is_fitted(run: Run) -> None:
    outcome = calibrate(run, Wish("cost", 0.4), Ways((NOISE, SURE)))
    assert outcome.choice == SURE
    assert [choice for choice, expected in outcome.tried if expected] == [NOISE, SURE]
    promised = calibrate(run, Wish("quality", 0.9, confidence=0.9), Ways((NOISE, SURE)))
    assert promised.certificate is not None
    assert promised.certificate.labels == 500  # the rest of that part has chosen the score


def test_what_is_out_of_reach_is_said_in_a_sentence(run: Run) -> None:
    with pytest.raises(ConfigurationError, match=r"min_margin: no threshold is expected to reach quality 1\.9"):
        calibrate(run, Wish("quality", 1.9), WAYS)
    with pytest.raises(ConfigurationError, match=r"cannot be promised from 100 labels: it takes about \d+ like these"):
        calibrate(recorded(200), Wish("quality", 0.999, confidence=0.9), WAYS)
    with pytest.raises(ConfigurationError, match="are too few"):
        calibrate(recorded(30), Wish("quality", 0.9), WAYS)


def test_answers_given_up_are_always_deferred(run: Run) -> None:
    rows = tuple(
        replace(row, small=replace(row.small, correct=None)) if row.scores["min_margin"] < 0.2 else row
        for row in run.rows
    )
    outcome = calibrate(replace(run, rows=rows), Wish("share", 0.05), WAYS)
    assert outcome.threshold == outcome.calibration.least_threshold == pytest.approx(0.2, abs=0.01)
    assert outcome.measured.share.value == pytest.approx(0.2, abs=0.04)


def test_answers_that_nobody_can_judge_are_left_out(run: Run) -> None:
    unjudged = tuple(replace(row, large=replace(row.large, correct=None)) for row in run.rows[:100])
    outcome = calibrate(replace(run, rows=(*unjudged, *run.rows[100:])), Wish("share", 0.3), WAYS)
    assert outcome.left_out == 100
    with pytest.raises(ConfigurationError, match="nothing to fit on"):
        calibrate(replace(run, rows=unjudged), Wish("share", 0.3), WAYS)


def test_an_aborted_attempt_costs_what_was_seen_of_it() -> None:
    """Half of the answers are unsure at their first of four tokens, where the attempt ends."""
    unsure = Token("a", -0.7, (Alternative("a", -0.7), Alternative("b", -0.7)))
    sure = Token("a", -0.01, (Alternative("a", -0.01), Alternative("b", -6.0)))
    rows = []
    for index in range(200):
        tokens = (unsure if index % 2 else sure, sure, sure, sure)
        small = TierResult(index % 2 == 0, Usage(10, 4), 0, 0.1)
        rows.append(Row(str(index), "", small, TierResult(True, Usage(10, 4), 0, 0.2), tokens=tokens))
    run = Run(HEADER, tuple(rows), "made")
    ways = replace(WAYS, cost_ratio=10.0)
    early, full = (
        calibrate(run, Wish("quality", 1.0), replace(ways, early_abort=abort)).measured for abort in (True, False)
    )
    assert early.share == full.share
    assert full.cost.value - early.cost.value == pytest.approx(0.1 * 0.75 * early.share.value)


def test_only_the_policy_of_that_name_is_replaced(run: Run) -> None:
    written = section(calibrate(run, Wish("cost", 0.5), WAYS), run.header, run.name, "mine")
    placed = put_into(FILE, "mine", written)
    assert [line for line in placed.splitlines() if "kept:" in line] == [
        line for line in FILE.splitlines() if "kept:" in line
    ]
    assert "gone" not in placed
    before, after = tomllib.loads(FILE), tomllib.loads(placed)
    assert after["policies"].pop("mine") == tomllib.loads(written)["policies"]["mine"]
    del before["policies"]["mine"]
    assert after == before
    assert put_into(placed, "mine", written) == placed
    assert list(parse_policies(placed).by_name) == ["mine", "mine-too"]


def test_a_policy_in_another_form_is_not_touched() -> None:
    new = '[policies.mine]\nversion = "2"\n'
    with pytest.raises(ConfigurationError, match="policy mine is there in a form that cannot be replaced"):
        put_into('policies.mine = { version = "1" }\n', "mine", new)
    with pytest.raises(ConfigurationError, match="is not TOML"):
        put_into("[policies", "mine", new)


@pytest.fixture
def marginal(run: Run, tmp_path: Path) -> Callable[..., str]:
    """Calls the command on a recorded run; errors of ours come out."""
    path = tmp_path / "run.jsonl"
    path.write_text("\n".join([header_to_line(run.header), *map(row_to_line, run.rows[:600])]) + "\n")

    def call(*arguments: str) -> str:
        result = CliRunner().invoke(app, [str(path), *arguments], env={"COLUMNS": "100"})
        if result.exception:
            raise result.exception
        return result.stdout

    return call


def test_the_command_writes_a_file_and_says_so(marginal: Callable[..., str], tmp_path: Path) -> None:
    said = marginal("--quality", "0.9", "-o", str(tmp_path / "policy.toml"))
    assert "held out" in said
    assert "policy calibrated is in" in said
    assert tomllib.loads((tmp_path / "policy.toml").read_text())["policies"]["calibrated"]["score"] == "min_margin"
    with pytest.raises(ConfigurationError, match="is there already"):
        marginal("--quality", "0.9", "-o", str(tmp_path / "policy.toml"))


def test_the_command_puts_a_section_into_a_policy_file(marginal: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "policies.toml"
    path.write_text(FILE)
    marginal("--share", "0.3", "--name", "mine", "--into", str(path))
    assert parse_policies(path.read_text()).by_name["mine"].criterion.rule.name == "target_rate"


def test_the_command_answers_programs(marginal: Callable[..., str]) -> None:
    said = json.loads(marginal("--quality", "0.8", "--guarantee", "0.9", "--score", "min_margin", "--json"))
    assert said["guarantee"]["labels"] == said["labels"] == said["held_out"]["rows"] == 300
    assert said["held_out"]["quality"]["low"] < said["held_out"]["quality"]["value"]
    assert tomllib.loads(said["section"])["policies"]["calibrated"]["threshold"]["rule"] == "guaranteed"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "give one of --quality, --cost and --share"),
        (("--quality", "0.9", "--cost", "0.5"), "give one of"),
        (("--share", "1.0"), "--share: must be above 0 and below 1"),
        (("--cost", "0.5", "--guarantee", "0.9"), "--guarantee: goes with a --quality"),
        (("--cost", "0.5", "--name", "Mine"), "--name: 'Mine' is not"),
        (("--cost", "0.5", "--score", "nonsense"), "nonsense is no score"),
        (("--cost", "0.5", "--into", "nowhere.toml"), "--into nowhere.toml: cannot be read"),
    ],
)
def test_the_command_says_what_is_wrong(
    marginal: Callable[..., str], arguments: tuple[str, ...], complaint: str
) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        marginal(*arguments)
