"""What a tenants file may say, and what becomes of it."""

from pathlib import Path

import pytest

from marginal.errors import ConfigurationError, NotAllowed
from marginal.routing.holds import NO_BUDGET, Window
from marginal.routing.tenants import TenantRules
from marginal.settings.tenant_file import parse_tenants, tenants_file

GOOD = """
[others]
per_second = 2.5
concurrency = 4

[tenants.search]
budget = { per_hour = 2.0, per_day = 20.000000001, per_month = 300 }
per_second = 50.0
burst = 100
concurrency = 64
deferral_share = 0.5
policies = ["default", "careful"]

[tenants."team.a_1"]
"""


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new, 1)


def test_a_tenants_file_becomes_rules() -> None:
    rules = parse_tenants(GOOD).rules("search")
    assert rules.budget.limits == {
        Window.HOUR: 2_000_000_000,
        Window.DAY: 20_000_000_001,
        Window.MONTH: 300_000_000_000,
    }
    assert (rules.per_second, rules.burst, rules.concurrency, rules.deferral_share) == (50.0, 100, 64, 0.5)
    assert rules.policies == {"default", "careful"}


def test_whoever_has_no_table_of_its_own_is_one_of_the_others() -> None:
    tenants = parse_tenants(GOOD)
    assert tenants.rules("nobody") == TenantRules(per_second=2.5, burst=3, concurrency=4)
    assert tenants.rules("team.a_1") == TenantRules()


def test_a_rate_without_a_burst_allows_what_comes_in_a_second_at_once() -> None:
    assert parse_tenants("[others]\nper_second = 50.5").others.burst == 51


def test_an_empty_file_limits_nobody() -> None:
    assert parse_tenants("").rules("anybody") == TenantRules()
    assert parse_tenants("").others.budget == NO_BUDGET


def test_a_budget_of_nothing_is_a_limit() -> None:
    assert parse_tenants("[others]\nbudget = { per_day = 0 }").others.budget.limits == {Window.DAY: 0}


def test_policies_that_are_not_named_are_not_allowed() -> None:
    rules = parse_tenants(GOOD).rules("search")
    rules.permit("careful")
    with pytest.raises(NotAllowed, match="careful, default only"):
        rules.permit("first-token")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (changed("per_hour = 2.0", "per_hour = -1"), r"tenants\.search\.budget\.per_hour \(line 7\): .*greater"),
        (changed("per_hour = 2.0", "per_hour = nan"), r"tenants\.search\.budget\.per_hour \(line 7\): .*finite"),
        (changed("per_hour = 2.0", "per_hour = inf"), r"tenants\.search\.budget\.per_hour \(line 7\): .*finite"),
        (changed("per_hour = 2.0", 'per_hour = "2"'), r"per_hour \(line 7\): must be a number"),
        (changed("per_hour = 2.0", "per_hour = true"), r"per_hour \(line 7\): must be a number"),
        (changed("per_month = 300", "per_month = 9000001"), r"per_month \(line 7\): .*9000000"),
        (changed("20.000000001", "20.0000000001"), r"tenants\.search\.budget\.per_day \(line 7\): .*decimal places"),
        (changed("per_hour", "per_week"), r"tenants\.search\.budget\.per_week \(line 7\): extra"),
        (changed("per_second = 50.0", "per_second = 0"), r"tenants\.search\.per_second \(line 8\): .*greater"),
        (changed("per_second = 50.0", "per_second = nan"), r"tenants\.search\.per_second \(line 8\): .*finite"),
        (changed("burst = 100", "burst = 0"), r"burst \(line 9\)"),
        (changed("concurrency = 64", "concurrency = 1.5"), r"concurrency \(line 10\)"),
        (changed("deferral_share = 0.5", "deferral_share = 1.01"), r"deferral_share \(line 11\)"),
        (changed('["default", "careful"]', "[]"), r"policies \(line 12\)"),
        (changed("[tenants.search]", "[tenants.Search]"), r"tenants\.Search \(line 6\)"),
        (changed('"team.a_1"', '"a:b"'), r"tenants\.a:b \(line 14\)"),
        (changed("[others]", "[rest]"), r"rest \(line 2\): extra"),
        ("[others", "is not TOML"),
        ("[tenants.a]\n[tenants.a]", "is not TOML"),
    ],
)
def test_what_is_wrong_is_named_with_its_field_and_line(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        parse_tenants(text)


def test_a_file_is_named_in_what_is_wrong_with_it(tmp_path: Path) -> None:
    path = tmp_path / "tenants.toml"
    with pytest.raises(ConfigurationError, match=rf"tenants file {path}: cannot be read, no such file"):
        tenants_file(path).read()
    path.write_text("[others]\nburst = 0")
    with pytest.raises(ConfigurationError, match=rf"tenants file {path}: others\.burst \(line 2\)"):
        tenants_file(path).read()
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match="is not UTF-8 text"):
        tenants_file(path).read()
