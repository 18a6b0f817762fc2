"""What `marginal costs` shows people and programs."""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType
from typer.testing import CliRunner

from marginal.entrypoints.budgets_shown import budgets_as_rows, budgets_shown
from marginal.entrypoints.cost_sources import moment
from marginal.entrypoints.costs import app
from marginal.entrypoints.costs_shown import costs_shown
from marginal.entrypoints.record_shown import record_shown
from marginal.errors import ConfigurationError, InvalidRequest
from marginal.ledger.costs import summarised
from marginal.ledger.journal_lines import record_line
from marginal.policy.deferral import Decision, Reason, Verdict
from marginal.routing.holds import Window
from marginal.routing.record_lines import record_fields
from marginal.routing.records import Attempt, CostRecord, DegradedReason, Outcome
from marginal.routing.spending import BudgetState, BudgetStates, CostQuery, Grouping
from marginal.tokens import FinishReason, Tier, Usage

EVENING = 1_795_557_600.0
"""2026-11-24 22:00 UTC."""

DEFER = Decision(Verdict.DEFER, Reason.SCORE, "min_margin", 0.009, 0.25, 1, censored=True)
KEEP = Decision(Verdict.KEEP, Reason.SCORE, "min_margin", 0.971, 0.25, 4)
SMALL = Attempt(Tier.SMALL, "home-small", Outcome.KEPT, Usage(16, 6), 1_100, 0.0213)
STOPPED = Attempt(Tier.SMALL, "home-small", Outcome.ABORTED, Usage(16, 1, 4), 1_000, 0.008)
LARGE = Attempt(Tier.LARGE, "home-large", Outcome.KEPT, Usage(16, 6), 20_000, 0.0154)


def record(request_id: str, tenant: str, decision: Decision, *attempts: Attempt, **more: Any) -> Mapping[str, Any]:
    fields = {"tier": attempts[-1].tier, "finish": FinishReason.STOP, "admitted_at": EVENING, **more}
    trace_id = "790d90062da7effa17144924f88d45e2"
    made = CostRecord(request_id, trace_id, tenant, "default", "1", "USD", decision, attempts, 20_000, **fields)
    return record_line(made, record_fields)


LINES = (
    record("1", "search", DEFER, STOPPED, LARGE, task="maths"),
    *(record(f"k{number}", "search", KEEP, SMALL) for number in range(3)),
    record("5", "mail", KEEP, SMALL, admitted_at=EVENING - 86_400),
    record("6", "mail", DEFER, SMALL, degraded=DegradedReason.BUDGET),
)


DAYS = """\
                                      tokens tokens                              always-
day        requests deferred degraded     in    out        cost share              large      saved          wasted
2026-11-23        1     0.0%     0.0%     16      6 $0.00000110 ━───────   4% $0.0000200 $0.0000189 94% $0.00000000
2026-11-24        5    40.0%    20.0%     96     31 $0.00002540 ━━━━━━━━  96% $0.0001000 $0.0000746 75% $0.00000100
total             6    33.3%    16.7%    112     37 $0.00002650               $0.0001200 $0.0000935 78% $0.00000100

· saved is against always asking the large tier; deferred is of the requests that a score decided
· days are of UTC, by when a request was admitted"""


@pytest.fixture
def journal(tmp_path: Path) -> str:
    directory = tmp_path / "journal"
    directory.mkdir()
    text = "".join(f"{json.dumps(line, separators=(',', ':'))}\n" for line in LINES)
    (directory / "journal-00000001.jsonl").write_text(text)
    return str(directory)


def text(shown: RenderableType, *, width: int) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(shown)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments, catch_exceptions=False, env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.output
    return done.stdout


def test_sums_fit_eighty_columns_and_keep_the_digits_of_small_amounts() -> None:
    shown = text(costs_shown(summarised(LINES, CostQuery()), width=80), width=80)
    assert shown == (
        "tenant requests deferred degraded        cost share              saved\n"
        "search        4    25.0%     0.0% $0.00002430 ━━━━━━━─  92% $0.0000557 70%\n"
        "mail          2    50.0%    50.0% $0.00000220 ━───────   8% $0.0000378 94%\n"
        "total         6    33.3%    16.7% $0.00002650               $0.0000935 78%\n"
        "\n"
        "· saved is against always asking the large tier; deferred is of the requests\n"
        "  that a score decided"
    )


def test_a_wide_terminal_sees_tokens_and_what_was_wasted_too() -> None:
    shown = text(costs_shown(summarised(LINES, CostQuery(Grouping.DAY)), width=120), width=120)
    assert shown == DAYS


def test_money_of_two_currencies_has_two_totals() -> None:
    lines = [*LINES, {**LINES[0], "request_id": "9", "currency": "EUR"}]
    shown = text(costs_shown(summarised(lines, CostQuery()), width=80), width=80)
    assert "total EUR        1   100.0%     0.0%  €0.0000210" in shown
    assert "total USD        6    33.3%    16.7% $0.00002650" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_programs_get_every_figure_in_nano_units(journal: str) -> None:
    found = json.loads(run("--journal", journal, "--by", "task", "--json"))
    assert [(row["task"], row["total_nanos"]) for row in found["rows"]] == [("maths", 21_000), (None, 5_500)]
    assert found["totals"][0]["saved_nanos"] == 6 * 20_000 - 26_500
    assert (found["by"], found["damaged"], found["left_out"]) == ("task", 0, 0)


def test_a_spreadsheet_gets_a_header_and_a_line_for_each(journal: str) -> None:
    rows = list(csv.DictReader(io.StringIO(run("--journal", journal, "--csv"))))
    assert [(row["tenant"], row["currency"], row["requests"], row["total_nanos"]) for row in rows] == [
        ("search", "USD", "4", "24300"),
        ("mail", "USD", "2", "2200"),
    ]


def test_only_the_days_and_tenants_asked_for_count(journal: str) -> None:
    found = json.loads(run("--journal", journal, "--since", "2026-11-23", "--until", "2026-11-24", "--json"))
    assert found["totals"][0]["requests"] == 1
    assert json.loads(run("--journal", journal, "--tenant", "search", "--json"))["totals"][0]["requests"] == 4


def test_nothing_found_says_what_to_do(journal: str, tmp_path: Path) -> None:
    said = run("--journal", journal, "--tenant", "nobody", "--since", "2026-11-01")
    assert said == (
        "There is no cost record since 2026-11-01 00:00:00 UTC of tenant nobody: ask for more, or see `marginal costs`"
        " for all there are.\n"
    )
    (tmp_path / "empty").mkdir()
    assert run("--journal", str(tmp_path / "empty")) == (
        "There is no cost record yet: ask something with `marginal ask`.\n"
    )


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--csv", "--json"), "--csv and --json: give one of the two"),
        (("--since", "yesterday"), "--since yesterday: must be a date"),
        (("--journal", "/nowhere"), "no journal in /nowhere: name the directory"),
        (("--journal", "/nowhere", "--router", "127.0.0.1:1"), "--journal and --router: give one of the two"),
        (("--by", "day", "show", "1"), "--by: give it after `show`"),
    ],
)
def test_what_cannot_be_is_refused_by_name(arguments: tuple[str, ...], problem: str) -> None:
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, ConfigurationError)
    assert str(done.exception).startswith(problem)


@pytest.mark.parametrize(
    ("said", "at"),
    [
        ("", None),
        ("24h", EVENING - 86_400),
        ("7d", EVENING - 7 * 86_400),
        ("2026-11-24", EVENING - 22 * 3_600),
        ("2026-11", EVENING - 22 * 3_600 - 23 * 86_400),
        ("2026-11-24T23:00+01:00", EVENING),
        ("2026-11-24T22:00", EVENING),
    ],
)
def test_moments_are_dates_of_utc_or_how_long_ago(said: str, at: float | None) -> None:
    assert moment(said, EVENING, option="--since") == at


def test_one_request_is_shown_with_every_attempt_and_its_reason() -> None:
    line = {**LINES[0], "request_id": "b39d47efcde44adc9f5b8bb59b955834", "price_version": "8297627c7837"}
    line |= {"price_sources": {"small": "policy file", "large": "policy file"}}
    assert text(record_shown(line), width=80) == (
        "request b39d47efcde44adc9f5b8bb59b955834\n"
        "tenant search · policy default 1 · task maths · 2026-11-24 22:00:00 UTC\n"
        "                                tokens of them tokens counted\n"
        "tier         model      outcome     in  cached    out by            cost seconds\n"
        "small        home-small aborted     16       4      1 engine   $0.000001   0.008\n"
        "large        home-large kept        16       0      6 engine   $0.000020   0.015\n"
        "total                                                          $0.000021\n"
        "always-large                                                   $0.000020\n"
        "wasted                                                         $0.000001\n"
        "saved                                                         -$0.000001\n"
        "\n"
        "· min_margin ≤ 0.009 < threshold 0.250: deferred after 1 token\n"
        "· counted to the end\n"
        "· price list 8297627c7837; small by the policy file; large by the policy file\n"
        "· `marginal trace 790d90062da7effa17144924f88d45e2` shows what happened when"
    )


def test_a_request_that_died_with_its_router_is_shown_as_reckoned() -> None:
    gone = {"decision": None, "attempts": [], "error": "RouterLost", "settlement": "expired", "trace_id": ""}
    shown = text(record_shown({**LINES[0], **gone}), width=80)
    assert "· ended with RouterLost" in shown
    assert "reckoned: nobody heard of its router for a lease" in shown
    assert "marginal trace" not in shown


def test_programs_get_the_record_and_spreadsheets_an_attempt_a_line(journal: str) -> None:
    found = json.loads(run("show", "1", "--journal", journal, "--json"))
    assert (found["request_id"], found["total_nanos"], len(found["attempts"])) == ("1", 21_000, 2)
    rows = list(csv.DictReader(io.StringIO(run("show", "1", "--journal", journal, "--csv"))))
    assert [(row["tier"], row["outcome"], row["cost_nanos"]) for row in rows] == [
        ("small", "aborted", "1000"),
        ("large", "kept", "20000"),
    ]


def test_an_unknown_request_is_an_error(journal: str) -> None:
    done = CliRunner().invoke(app, ["show", "7", "--journal", journal])
    assert isinstance(done.exception, InvalidRequest)
    assert str(done.exception).startswith("request_id: there is no record of '7' in ")


BUDGETS = BudgetStates(
    "USD",
    (
        BudgetState("search", Window.DAY, "2026-11-24", 24_300, 1_000, 30_000, 7_200.0),
        BudgetState("search", Window.MONTH, "2026-11", 24_300, 1_000, 1_000_000, 6 * 86_400 + 7_200.0),
        BudgetState("mail", Window.HOUR, "2026-11-24T22", 2_200, 0, 2_000, 540.0),
        BudgetState("old", Window.MONTH, "2026-11", 5, 0, None, 540.0),
    ),
)


def test_budgets_show_what_is_left_and_when_they_begin_anew() -> None:
    assert text(budgets_shown(BUDGETS), width=80) == (
        "tenant window        spent         held       limit used           resets in\n"
        "search day     $0.00002430  $0.00000100 $0.00003000 ━━━━━━━─  84% 2 h 00 min\n"
        "       month   $0.00002430  $0.00000100 $0.00100000 ━───────   3%    6 d 2 h\n"
        "mail   hour    $0.00000220  $0.00000000 $0.00000200 ━━━━━━━━ 110%      9 min\n"
        "old    month  $0.000000005 $0.000000000        none                    9 min"
    )


def test_programs_get_budgets_in_nano_units() -> None:
    rows = budgets_as_rows(BUDGETS)
    assert rows[0] == {
        "tenant": "search",
        "window": "day",
        "period": "2026-11-24",
        "currency": "USD",
        "spent_nanos": 24_300,
        "held_nanos": 1_000,
        "limit_nanos": 30_000,
        "used_share": pytest.approx(0.8433, abs=1e-4),
        "resets_seconds": 7_200.0,
    }
    assert rows[3]["used_share"] is None
