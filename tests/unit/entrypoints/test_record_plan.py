"""What a recording finds out before it asks: its questions, its tiers, its prices; and what it says when it cannot."""

import json
from pathlib import Path

import pytest

from marginal.entrypoints.record_plan import prices, questions, target
from marginal.errors import ConfigurationError
from marginal.tokens import Tier, Usage


def asked(source: str, *tasks: str, answers: bool = True, offset: int = 0, limit: int | None = None) -> list[str]:
    chosen = questions(source, answers=answers, tasks=tasks, offset=offset, limit=limit)
    return [question.task for question in chosen]


def written(path: Path, *ids: str) -> str:
    path.write_text("".join(json.dumps({"id": id_, "task": "timer", "request": "x"}) + "\n" for id_ in ids))
    return str(path)


def test_a_pairs_name_stands_for_its_bundled_questions() -> None:
    assert len(asked("home")) == 1000
    assert set(asked("home", "alarm", limit=10)) == {"alarm"}


def test_a_file_needs_no_answers_when_the_large_model_gives_them(tmp_path: Path) -> None:
    source = written(tmp_path / "mine.jsonl", "1", "2")
    assert asked(source, answers=False) == ["timer", "timer"]
    with pytest.raises(ConfigurationError, match=r"mine\.jsonl:1: answer is missing"):
        asked(source)


def test_what_cannot_be_asked_is_said_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="homy is no file of questions, nor a pair"):
        asked("homy")
    with pytest.raises(ConfigurationError, match="--task nap: home has add, alarm"):
        asked("home", "nap")
    with pytest.raises(ConfigurationError, match="--offset 1000 leaves none of the 1000 questions of home"):
        asked("home", offset=1000)
    with pytest.raises(ConfigurationError, match="id 7 is there 2 times"):
        asked(written(tmp_path / "mine.jsonl", "7", "8", "7"), answers=False)


def test_a_tier_is_where_it_is_named_or_where_up_has_written_it_down(tmp_path: Path) -> None:
    services = [{"service": "small-model", "address": "127.0.0.1:7"}]
    (tmp_path / "services.json").write_text(json.dumps({"services": services}))
    assert target("there:1", tmp_path, "small-model", option="--small") == "there:1"
    assert target(None, tmp_path, "small-model", option="--small") == "127.0.0.1:7"
    with pytest.raises(ConfigurationError, match=r"services\.json does not say where large-model is: name it with --l"):
        target(None, tmp_path, "large-model", option="--large")
    with pytest.raises(ConfigurationError, match="start them with `marginal up`"):
        target(None, tmp_path / "elsewhere", "small-model", option="--small")


def test_prices_are_those_that_up_ran_with(tmp_path: Path) -> None:
    bundled = prices(None, tmp_path)
    text = Path(__file__).parents[3].joinpath("services", "marginal", "policies.toml").read_text()
    (tmp_path / "policies.toml").write_text(text.replace('currency = "USD"', 'currency = "EUR"'))
    assert (bundled.currency, prices(None, tmp_path).currency) == ("USD", "EUR")
    assert bundled.prices[Tier.SMALL].cost(Usage(1, 1)) > 0
