from pathlib import Path

import pytest

from marginal.errors import ConfigurationError
from marginal.policy.thresholds import Budget, SpendRate, TargetRate
from marginal.routing.policies import CalibratedAt, ShadowRules
from marginal.routing.requests import Mode
from marginal.settings import parse_policies, read_policies

GOOD = """
default = "one"
currency = "EUR"

[prices.small]
input_per_million_tokens = 0.05
output_per_million_tokens = 0.2

[prices.large]
input_per_million_tokens = 1
output_per_million_tokens = 4
cached_input_per_million_tokens = 0.1
per_call = 0.000001

[bypass]
concurrency = 2

[policies.one]
version = "7"
score = "min_margin"
window = 4
threshold = { rule = "fixed", value = 0.25 }
on_missing_score = "keep"
degrade = { silence_seconds = 2.5 }

[policies.two]
version = "1"
score = "mean_margin"
threshold = { rule = "target_rate", rate = 0.3, start = 0.5 }
"""


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new, 1)


def test_a_policy_file_becomes_policies() -> None:
    policies = parse_policies(GOOD)
    one, two = policies.by_name["one"], policies.by_name["two"]
    assert policies.default == "one"
    assert (one.criterion.score, one.criterion.window) == ("min_margin", 4)
    assert (one.version, one.currency, one.defer_without_score) == ("7", "EUR", False)
    assert one.degrade.silence_seconds == 2.5
    assert policies.bypass.concurrency == 2
    assert one.criterion.rule.start().value == 0.25
    assert isinstance(two.criterion.rule.start(), TargetRate)
    assert two.criterion.rule.start().value == 0.5


def test_the_bundled_policies_are_good() -> None:
    assert "default" in read_policies().by_name


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (changed('default = "one"', 'default = "three"'), "default"),
        (changed('currency = "EUR"', 'currency = "euro"'), "currency"),
        (changed("value = 0.25", "value = 1.25"), "policies.one.threshold.value"),
        (changed("value = 0.25", "value = nan"), "policies.one.threshold.value"),
        (changed('rule = "fixed"', 'rule = "guess"'), "policies.one.threshold"),
        (changed("rate = 0.3", "rate = 0"), "policies.two.threshold.rate"),
        (changed('score = "min_margin"', 'score = "luck"'), "policies.one.score"),
        (changed("window = 4", "window = -1"), "policies.one.window"),
        (changed("window = 4", "window = true"), "policies.one.window"),
        (changed("value = 0.25", 'value = "0.25"'), "policies.one.threshold.value"),
        (changed("value = 0.25", "value = true"), "policies.one.threshold.value"),
        (changed("= 0.05", "= 1e30"), "prices.small.input_per_million_tokens"),
        (changed("= 0.05", "= 1e300"), "prices.small.input_per_million_tokens"),
        (changed("= 0.05", "= nan"), "prices.small.input_per_million_tokens"),
        (changed("= 0.05", "= 1e999999"), "prices.small.input_per_million_tokens"),
        (changed("concurrency = 2", "concurrency = -2"), "bypass.concurrency"),
        (changed('version = "7"', "version = 7"), "policies.one.version"),
        (changed("window = 4", "windw = 4"), "policies.one.windw"),
        (changed('"keep"', '"guess"'), "policies.one.on_missing_score"),
        (changed("= 0.05", "= -0.05"), "prices.small.input_per_million_tokens"),
        (changed("= 0.05", "= 0.0000000001"), "prices.small.input_per_million_tokens"),
        (changed("= 0.05", "= inf"), "prices.small.input_per_million_tokens"),
        (changed("[policies.two]", "[policies.Two]"), "policies.Two"),
        (changed("currency", "curency"), "currency"),
        (changed("start = 0.5", "start = 1.0"), "policies.two.threshold.start"),
        (changed('"mean_margin"', '"mean_logprob"'), "policies.two.threshold.start"),
        (changed('on_missing_score = "keep"', 'mode = "large"'), "policies.one.mode"),
        (changed('on_missing_score = "keep"', "shadow = { share = 2 }"), "policies.one.shadow.share"),
        (changed('on_missing_score = "keep"', "quantile = 1.0"), "policies.one.quantile"),
        (changed('on_missing_score = "keep"', "tasks = { Maths = {} }"), "policies.one.tasks.Maths"),
        (
            changed('{ rule = "fixed", value = 0.25 }', '{ rule = "calibrated", quality = 0.9 }'),
            "policies.one.threshold.rule",
        ),
        (
            changed(
                '{ rule = "fixed", value = 0.25 }',
                '{ rule = "budget", per_request = 1, small_cost = 2, large_cost = 3 }',
            ),
            "policies.one.threshold.per_request",
        ),
        (
            changed(
                '{ rule = "fixed", value = 0.25 }',
                '{ rule = "spend_rate", per_request = 1, kept_cost = 2, deferred_cost = 3 }',
            ),
            "policies.one.threshold.per_request",
        ),
    ],
    ids=lambda value: value if "\n" not in value else "",
)
def test_a_bad_field_is_named(text: str, field: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"(^|; ){field}\b"):
        parse_policies(text)


def test_the_line_of_a_bad_field_is_named() -> None:
    text = changed("value = 0.25", "value = 1.25")
    line = 1 + text[: text.index("value = 1.25")].count("\n")
    with pytest.raises(ConfigurationError, match=rf"policies\.one\.threshold\.value \(line {line}\)"):
        parse_policies(text)


def test_a_missing_field_is_looked_for_in_its_table() -> None:
    text = changed('version = "7"\n', "")
    line = 1 + text[: text.index("[policies.one]")].count("\n")
    with pytest.raises(ConfigurationError, match=rf"policies\.one\.version \(line {line}\)"):
        parse_policies(text)


MORE = (
    GOOD
    + """
[policies.one.tasks.arithmetic]
window = 4
score = "mean_logprob"
threshold = { rule = "fixed", value = -0.5 }

[policies.three]
version = "1"
score = "quantile_margin"
quantile = 0.25
mode = "shadow"
shadow = { share = 0.2, concurrency = 3, per_hour = 0.5, texts = true }
threshold = { rule = "spend_rate", per_request = 0.002, kept_cost = 0.001, deferred_cost = 0.011 }

[policies.four]
version = "1"
score = "first_token_margin"
threshold = { rule = "budget", per_request = 3, small_cost = 1, large_cost = 10 }

[policies.five]
version = "1"
score = "min_margin"
threshold = { rule = "calibrated", quality = 0.9 }

[policies.five.calibration]
score = [0.0, 0.5]
share = [0.5, 0.5]
small_correct = [0.5, 1.0]
large_correct = [1.0, 1.0]
kept_cost = [0.1, 0.1]
deferred_cost = [1.1, 1.1]
labels = 200

[policies.six]
version = "1"
score = "min_margin"
threshold = { rule = "guaranteed", value = 0.4, epsilon = 0.05, delta = 0.1, labels = 1000 }
"""
)


def test_a_task_has_of_its_own_what_it_says_and_the_rest_of_its_policy() -> None:
    one = parse_policies(MORE).by_name["one"]
    own = one.criterion_for("arithmetic")
    assert (own.score, own.window, own.rule.start().value) == ("mean_logprob", 4, -0.5)
    assert one.criterion_for("weather") is one.criterion


def test_a_task_with_another_score_needs_a_threshold_of_its_own() -> None:
    own = 'score = "mean_logprob"\nthreshold = { rule = "fixed", value = -0.5 }'
    with pytest.raises(
        ConfigurationError, match=r"policies\.one\.tasks\.arithmetic \(line \d+\): .*threshold of its own"
    ):
        parse_policies(MORE.replace(own, 'score = "max_probability"'))


def test_lines_are_found_under_quoted_names_and_never_inside_a_text() -> None:
    odd = (
        GOOD
        + """
[policies.one.tasks."a.b"]
window = -1
threshold = { rule = "fixed", value = 0.1 }
"""
    )
    line = odd[: odd.index("window = -1")].count("\n") + 1
    with pytest.raises(ConfigurationError, match=rf"a\.b\.window \(line {line}\)"):
        parse_policies(odd)
    text = changed('version = "7"', 'version = """\n[policies.one]\nwindow = 9\n"""').replace(
        "window = 4", "window = -4"
    )
    line = text[: text.index("window = -4")].count("\n") + 1
    with pytest.raises(ConfigurationError, match=rf"policies\.one\.window \(line {line}\)"):
        parse_policies(text)


def test_many_mistakes_are_ten_complaints_and_a_count() -> None:
    policies = "".join(f'[policies.p{index}]\nversion = "1"\n' for index in range(40))
    with pytest.raises(ConfigurationError, match=r"; and \d+ more$") as raised:
        parse_policies(GOOD + policies)
    assert str(raised.value).count("field required") == 10


@pytest.mark.parametrize("value", ["1e99999999999999999999", "9" * 5_000])
def test_a_number_beyond_all_bounds_is_said_in_a_sentence(value: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_policies(changed("value = 0.25", f"value = {value}"))


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "policies.toml"
    path.write_text(GOOD, "utf-8-sig")
    assert read_policies(path).default == "one"


def test_every_rule_is_built_and_says_what_it_does() -> None:
    by_name = parse_policies(MORE).by_name
    rules = {name: policy.criterion.rule for name, policy in by_name.items()}
    assert isinstance(rules["three"].start(), SpendRate)
    assert isinstance(rules["four"].start(), Budget)
    assert [rule.name for rule in rules.values()] == [
        "fixed", "target_rate", "spend_rate", "budget", "calibrated", "guaranteed",
    ]  # fmt: skip
    assert rules["four"].exact
    assert rules["six"].start().value == 0.4
    assert "at most 5 points worse than always-large with probability 90%" in rules["six"].says
    assert all(rule.says for rule in rules.values())


def test_a_calibrated_threshold_is_where_its_table_meets_the_aim() -> None:
    rule = parse_policies(MORE).by_name["five"].criterion.rule
    assert rule.start().value == pytest.approx(0.3, abs=1e-6)
    assert "expected quality 90.0%" in rule.says


def test_an_aim_that_the_calibration_cannot_reach_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"policies\.five\.threshold\.quality .*the best is"):
        parse_policies(MORE.replace("quality = 0.9 }", "quality = 1.2 }"))


def test_a_bad_calibration_is_refused_by_its_column() -> None:
    with pytest.raises(ConfigurationError, match=r"policies\.five\.calibration\.share"):
        parse_policies(MORE.replace("share = [0.5, 0.5]", "share = [0.5, 0.7]"))


def test_shadow_limits_and_modes_are_read() -> None:
    three = parse_policies(MORE).by_name["three"]
    assert three.mode is Mode.SHADOW
    assert three.shadow == ShadowRules(0.2, 3, 500_000_000, 30.0, texts=True)


def test_a_fingerprint_changes_with_the_criterion_and_with_nothing_else() -> None:
    def print_of(text: str) -> str:
        return parse_policies(text).by_name["two"].criterion.fingerprint

    assert print_of(GOOD) == print_of(changed('version = "1"', 'version = "2"'))
    assert print_of(GOOD) != print_of(changed("rate = 0.3", "rate = 0.4"))
    assert print_of(GOOD) != print_of(changed('"mean_margin"', '"min_margin"'))


def test_what_is_not_toml_says_where() -> None:
    with pytest.raises(ConfigurationError, match="line 2"):
        parse_policies("default = 'a'\noops\n")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.toml"):
        read_policies(tmp_path / "none.toml")


def test_a_criterion_says_at_which_sampling_it_was_calibrated() -> None:
    at = "calibrated_at = { temperature = 0.7, top_p = 0.9 }\n"
    text = (
        GOOD.replace('version = "7"\n', f'version = "7"\n{at}')
        + """
[policies.one.tasks.arithmetic]
threshold = { rule = "fixed", value = 0.5 }

[policies.one.tasks.weather]
threshold = { rule = "fixed", value = 0.5 }
calibrated_at = { temperature = 0 }
"""
    )
    one = parse_policies(text).by_name["one"]
    assert one.criterion.calibrated_at == CalibratedAt(0.7, 0.9)
    assert one.criterion_for("weather").calibrated_at == CalibratedAt(0.0)
    assert one.criterion_for("arithmetic").calibrated_at is None, "it has a threshold of its own"
    assert one.criterion.fingerprint == parse_policies(GOOD).by_name["one"].criterion.fingerprint


@pytest.mark.parametrize("at", ["{ temperature = 3 }", "{ temperature = 0, top_p = 0 }", "{ top_p = 1 }"])
def test_a_sampling_that_cannot_be_is_refused(at: str) -> None:
    with pytest.raises(ConfigurationError, match="calibrated_at"):
        parse_policies(GOOD.replace('version = "7"\n', f'version = "7"\ncalibrated_at = {at}\n'))
