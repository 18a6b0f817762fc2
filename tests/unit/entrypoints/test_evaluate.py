"""`marginal evaluate` from run files to a report, figures and words."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from marginal.entrypoints.evaluate import app
from marginal.errors import ConfigurationError
from marginal.evaluation.run_lines import header_to_line, row_to_line
from unit.evaluation.made_runs import made_run

QUICK = ("--budgets", "5", "--orders", "1", "--scores", "first_token_margin", "--scores", "entropy", "--rules", "fixed")


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    run = made_run(120)
    path = tmp_path / "made.jsonl"
    path.write_text("\n".join([header_to_line(run.header), *map(row_to_line, run.rows)]) + "\n", "utf-8")
    return path


def told(*arguments: str | Path) -> str:
    """What the command prints on standard output."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_report_with_its_figures_is_written_and_the_conclusion_is_told(recorded: Path, tmp_path: Path) -> None:
    page = tmp_path / "reports" / "page.html"
    text = told(recorded, "-o", page, *QUICK)
    assert "small → large  120 rows" in text
    assert "fixed 1:5" in text
    assert max(map(len, text.splitlines()[:-1])) <= 100
    assert page.read_text("utf-8").startswith("<!doctype html>")
    assert sorted(path.name for path in (tmp_path / "reports" / "page-figures").iterdir()) == [
        "made-calibration.png",
        "made-deferral.png",
        "made-fixed-1-5-cost.png",
        "made-histogram.png",
        "made-time-cost.png",
        "made-tokens-cost.png",
    ]


def test_json_is_one_object_with_the_conclusion_and_every_cell(recorded: Path, tmp_path: Path) -> None:
    [line] = told(recorded, "-o", tmp_path / "page.html", *QUICK, "--json").splitlines()
    [run] = json.loads(line)["runs"]
    assert run["conclusion"]["verdict"] in ("pays", "open", "does_not_pay")
    assert run["settings"][0]["model"]["unit"] == "tokens"
    assert {cell["score"] for cell in run["settings"][0]["cells"]} == {"first_token_margin", "entropy"}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--scores", "guess"), "--scores: guess is no score"),
        (("--rules", "guess"), "--rules: guess is no rule that can be swept"),
        (("--cost-ratio", "0.5"), "--cost-ratio: 0.5 is not above 1"),
        (("--holdout", "100"), "hold out less with --holdout"),
        (("--format", "guess"), "format: guess is none of"),
    ],
)
def test_a_wrong_option_is_refused_in_a_sentence(
    recorded: Path, tmp_path: Path, options: tuple[str, str], problem: str
) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        told(recorded, "-o", tmp_path / "page.html", *options)


def test_a_run_is_never_overwritten_by_its_report(recorded: Path) -> None:
    with pytest.raises(ConfigurationError, match="is one of the runs"):
        told(recorded, "-o", recorded)


def test_a_page_that_cannot_be_written_is_told_in_a_sentence(recorded: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be written"):
        told(recorded, "-o", recorded / "page.html", *QUICK)


def test_help_states_the_cost_models_and_has_examples() -> None:
    text = told("--help")
    assert "aborted at the deciding" in text
    assert "marginal evaluate home.jsonl.gz" in text
