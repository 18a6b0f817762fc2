"""What `marginal probe` says of findings, and how it takes what cannot be probed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from marginal.backends.engine_facts import Dialect, Recognised
from marginal.backends.engine_habits import Counting, Stop, Usage
from marginal.entrypoints.probe import app
from marginal.entrypoints.probe_advice import ANYWHERE, FLAGS, Shortfall
from marginal.entrypoints.probe_report import Report, as_json, shown
from marginal.routing.evidence import Lack
from marginal.routing.probing import Findings
from marginal.tokens import Evidence, ModelDescription, Tier

NOBODY = "127.0.0.1:9"
PROVEN = Evidence(None, 4, 10, before_sampling=True)
FOUND = Findings(
    ModelDescription("llama", 4096, 20),
    PROVEN,
    alternatives=20,
    largest_chunk=1,
    mean_chunk=1.0,
    first_token_ms=12.5,
    tokens_per_second=90.0,
)
GOOD = Report(
    "engine:8000",
    "openai",
    "chat",
    FOUND,
    Recognised(Dialect.VLLM, "owned_by: vllm in /v1/models", "0.33.0"),
    Usage(Counting.EVERY_CHUNK, cached=True),
    Stop(3.2, "vllm:num_requests_running"),
)
BLIND = replace(FOUND, evidence=Evidence("token 0 of the probe came without", 4), lack=Lack.MISSING)


def text(report: Report, *, width: int = 80) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(shown(report))
    return capture.get()


def probed(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_an_engine_that_has_everything_is_fit_as_both_tiers_and_lacks_nothing() -> None:
    assert (GOOD.unfit(Tier.SMALL), GOOD.unfit(Tier.LARGE), GOOD.remedies) == (None, None, ())
    seen = text(GOOD)
    assert "fit as the small tier\nfit as the large tier" in seen
    for words in ("vLLM 0.33.0", "20 of 20", "before sampling", "in every chunk", "idle 3.2 ms after it", "12.5 ms"):
        assert words in seen
    assert "✗" not in seen


def test_an_engine_without_log_probabilities_is_fit_as_the_large_tier_only() -> None:
    report = replace(GOOD, findings=BLIND)
    seen = text(report)
    assert "not fit as the small tier: token 0 of the probe came without" in seen
    assert "\nfit as the large tier" in seen
    assert "--max-logprobs 20" in seen


@pytest.mark.parametrize(
    ("report", "lacking", "flag"),
    [
        (replace(GOOD, findings=replace(FOUND, lack=Lack.FEW, alternatives=1)), Shortfall.FEW, "--max-logprobs 20"),
        (replace(GOOD, findings=replace(FOUND, alternatives=5)), Shortfall.FEWER, "--max-logprobs 20"),
        (
            replace(GOOD, findings=replace(FOUND, lack=Lack.ABOVE_ZERO)),
            Shortfall.IMPROPER,
            "--logprobs-mode raw_logprobs",
        ),
        (
            replace(GOOD, findings=replace(FOUND, evidence=replace(PROVEN, before_sampling=False))),
            Shortfall.AFTER_SAMPLING,
            "--logprobs-mode raw_logprobs",
        ),
        (replace(GOOD, usage=Usage(Counting.NEVER, cached=True)), Shortfall.UNCOUNTED, "costs are near, not exact"),
        (replace(GOOD, usage=Usage(Counting.AT_THE_END)), Shortfall.UNCACHED, "--enable-prompt-tokens-details"),
        (replace(GOOD, stop=Stop(unseen="the engine shows no counter")), Shortfall.UNSEEN, "--disable-log-stats"),
        (replace(GOOD, stop=Stop(source="a gauge", still_running=True)), Shortfall.DEAF, "goes on costs"),
    ],
)
def test_each_shortfall_is_named_with_what_fixes_it(report: Report, lacking: Shortfall, flag: str) -> None:
    [(found, how)] = report.remedies
    assert found is lacking
    assert how is not None
    assert flag in how
    assert flag in text(report, width=200)


@pytest.mark.parametrize("stop", [Stop(2_400.0, "a gauge"), Stop(source="a gauge", still_running=True)])
def test_an_engine_that_goes_on_after_a_cancel_is_no_small_tier(stop: Stop) -> None:
    report = replace(GOOD, stop=stop)
    assert (report.unfit(Tier.SMALL), report.unfit(Tier.LARGE)) == ("a cancel does not stop the engine", None)


def test_an_engine_that_groups_tokens_is_told_by_its_events_not_by_how_they_arrive() -> None:
    arrived_together = replace(GOOD, findings=replace(FOUND, largest_chunk=3, mean_chunk=3.0))
    assert replace(arrived_together, usage=Usage(Counting.EVERY_CHUNK, events=(1, 1, 2))).together == (2, 4 / 3)
    assert arrived_together.together == (3, 3.0)
    assert "–" in next(line for line in text(arrived_together).splitlines() if "together" in line)  # noqa: RUF001


def test_a_cancel_that_cannot_be_seen_is_held_against_nobody() -> None:
    report = replace(GOOD, stop=Stop(source="a gauge", unseen="the engine has other requests"))
    assert (report.unfit(Tier.SMALL), report.remedies) == (None, ())


def test_programs_get_plain_values_in_snake_case() -> None:
    seen = json.loads(json.dumps(as_json(replace(GOOD, findings=BLIND))))
    assert seen["tiers"]["small"] == {"fit": False, "why_not": "token 0 of the probe came without"}
    assert seen["tiers"]["large"] == {"fit": True, "why_not": None}
    assert seen["remedies"] == [{"shortfall": "no_logprobs", "remedy": "start vLLM with --max-logprobs 20"}]
    assert (seen["dialect"], seen["usage_counted"], seen["cancel"]["stopped_after_ms"]) == ("vLLM", "every_chunk", 3.2)
    assert all(name == name.lower() for name in seen)


def test_a_models_name_cannot_command_the_terminal() -> None:
    evil = replace(FOUND, description=ModelDescription("\x1b[2Jevil", 1, 1))
    assert "\x1b[2J" not in text(replace(GOOD, findings=evil))


def test_every_remedy_is_for_a_shortfall_of_a_known_dialect() -> None:
    assert {dialect for _, dialect in FLAGS} == set(Dialect) - {Dialect.UNKNOWN}
    lacking = {shortfall for shortfall, _ in FLAGS} | set(ANYWHERE)
    assert lacking == set(Shortfall)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("ftp://engine",), "URL"),
        (("http://user:secret@engine:8000",), "without user, password"),
        (("http://engine:8000/?key=secret",), "without user, password"),
        (("http://engine:8000", "--kind", "grpc"), "HOST:PORT"),
        (("engine",), "HOST:PORT"),
        (("engine:8000", "--model", "secret"), "only for an engine"),
        (("http://engine:8000", "--kind", "openai", "--route", "native"), "chat or completions"),
        (("http://engine:8000", "--ca-file", "nowhere.pem"), "https"),
        (("https://engine:8000", "--api-key-file", "/nowhere/key"), "key"),
    ],
)
def test_wrong_usage_ends_with_2_and_shows_no_secret(arguments: tuple[str, ...], words: str) -> None:
    done = probed(*arguments)
    assert done.exit_code == 2
    assert words in " ".join(done.output.replace("│", " ").split())
    assert "secret" not in done.output


@pytest.mark.parametrize("url", [f"http://{NOBODY}", NOBODY])
def test_where_nothing_answers_neither_tier_is_fit(url: str) -> None:
    done = probed(url, "--json")
    assert done.exit_code == 1
    seen = json.loads(done.stdout)
    assert [seen["tiers"][tier]["fit"] for tier in ("small", "large")] == [False, False]
    assert seen["remedies"][0]["shortfall"] == "unreachable"


def test_a_model_service_that_does_not_answer_may_be_an_engine() -> None:
    assert "begin its URL with http://" in " ".join(probed(NOBODY).stdout.split())


def test_a_key_is_never_shown(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("sk-very-secret\n")
    assert "sk-very-secret" not in probed(f"http://{NOBODY}", "--api-key-file", str(key)).output


def test_help_says_what_the_exit_codes_mean() -> None:
    assert "Exit code 0: fit as the small tier" in " ".join(probed("--help").output.split())
