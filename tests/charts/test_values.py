"""What values come to: whose word counts, and whether the programs understand what they are told."""

import json
import re
import shutil
import tomllib
from pathlib import Path

import click
import pytest
import typer
import yaml

from charts.rendering import (
    BUNDLED,
    CHART,
    EXAMPLES,
    Object,
    Refused,
    environment,
    example,
    manifest,
    of_kind,
    pods,
    rendered,
)
from marginal.entrypoints import model, router
from marginal.settings.policy_file import parse_policies
from marginal.settings.tenant_file import tenants_file
from marginal.tokens import Tier

PROGRAMS = {"router": router.app, "small": model.program(Tier.SMALL), "large": model.program(Tier.LARGE)}
DEFAULTS = """
defaults:
  replicas: 3
  tolerations: [{key: gpu}]
  runtimeClassName: nvidia
  rollout: {maxSurge: 2}
  shutdown: {preStopSeconds: 9}
  serviceAccount: {create: true}
tiers:
  large:
    replicas: 0
    tolerations: []
    runtimeClassName: ""
    rollout: {maxSurge: 0, maxUnavailable: 1}
    shutdown: {preStopSeconds: 0}
    serviceAccount: {create: false}
"""
SETTINGS = """
policies: |
  default = "default"
  currency = "EUR"
  prices = { small = { per_call = 0.001 }, large = { per_call = 0.01 } }
  [policies.default]
  version = "2"
  score = "min_margin"
  threshold = { rule = "fixed", value = 0.5 }
tenants: |
  [tenants.search]
  per_second = 5
"""


def workload(values: str, component: str) -> Object:
    return next(
        one
        for one in of_kind(rendered(values), "Deployment", "StatefulSet")
        if one["metadata"]["labels"]["app.kubernetes.io/component"] == component
    )


def test_zero_false_and_nothing_of_a_tier_count_against_the_defaults() -> None:
    large, small = workload(DEFAULTS, "large")["spec"], workload(DEFAULTS, "small")["spec"]
    assert (small["replicas"], large["replicas"]) == (3, 0)
    assert large["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    pod = large["template"]["spec"]
    assert not {"tolerations", "runtimeClassName"} & pod.keys()
    assert pod["serviceAccountName"] == "default"
    assert "lifecycle" not in pod["containers"][0]
    assert small["template"]["spec"]["runtimeClassName"] == "nvidia"


def test_a_change_of_policies_or_tenants_changes_no_pod() -> None:
    before, after = rendered(), rendered(SETTINGS)
    assert pods(before) == pods(after)
    assert list(of_kind(before, "ConfigMap")) != list(of_kind(after, "ConfigMap"))


def test_a_new_chart_alone_changes_no_pod() -> None:
    for pod in pods(rendered()).values():
        if pod.get("kind") != "Pod":
            assert not {"helm.sh/chart", "app.kubernetes.io/version"} & pod["metadata"]["labels"].keys()


def test_the_chart_brings_along_the_policies_that_the_program_has() -> None:
    """`make chart-golden` copies them."""
    brought = CHART / "files" / "policies.toml"
    assert not brought.is_symlink()
    assert brought.read_bytes() == BUNDLED.read_bytes()
    assert tomllib.loads(settings(rendered())["policies.toml"]) == tomllib.loads(BUNDLED.read_text())


def test_a_copy_of_the_chart_without_its_policies_installs_only_with_some(tmp_path: Path) -> None:
    chart = shutil.copytree(CHART, tmp_path / "marginal")
    (chart / "files" / "policies.toml").unlink()
    with pytest.raises(
        Refused, match=r"policies: missing, and this copy of the chart has lost its files/policies.toml"
    ):
        manifest(chart=chart)
    assert "kind: Deployment" in manifest(example("external-openai"), chart=chart)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_settings_of_an_example_are_ones_that_a_router_takes(name: str, tmp_path: Path) -> None:
    found = settings(rendered(example(name)))
    parse_policies(found["policies.toml"])
    tenants_file(tmp_path / "tenants.toml").parse(found["tenants.toml"])


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_program_has_an_option_for_every_variable_that_it_is_given(name: str) -> None:
    for component, app in PROGRAMS.items():
        given = environment(workload(example(name), component)["spec"]["template"])
        known = {name for parameter in typer.main.get_command(app).params for name in variables(parameter)}
        assert {name for name in given if name.startswith("MARGINAL_")} <= known


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_program_can_read_every_variable_that_it_is_given(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for component, app in PROGRAMS.items():
        with monkeypatch.context() as variables:
            for key, value in environment(workload(example(name), component)["spec"]["template"]).items():
                variables.setenv(key, value)
            typer.main.get_command(app).make_context(component, [])


def test_the_large_tier_alone_may_sleep_and_its_demand_is_asked_of_the_router() -> None:
    objects = rendered(example("sidecar-vllm"))
    [scaled] = of_kind(objects, "ScaledObject")
    [service] = [one for one in of_kind(objects, "Service") if one["metadata"]["name"].endswith("-scaler")]
    [trigger] = scaled["spec"]["triggers"]
    assert scaled["spec"]["minReplicaCount"] == 0
    assert trigger["type"] == "external-push"
    assert trigger["metadata"] == {"scalerAddress": f"{service['metadata']['name']}.marginal:50055", "tier": "large"}


def test_a_sidecar_starts_before_its_program_and_ends_after_it() -> None:
    pod = workload(example("sidecar-tgi"), "small")["spec"]["template"]
    [engine] = pod["spec"]["initContainers"]
    assert engine["restartPolicy"] == "Always"
    assert environment(pod)["MARGINAL_ENDPOINT"] == f"http://127.0.0.1:{engine['ports'][0]['containerPort']}"
    assert engine["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert {"medium": "Memory", "sizeLimit": "1Gi"} in [volume.get("emptyDir") for volume in pod["spec"]["volumes"]]


def test_a_pod_of_a_tier_outlasts_what_others_remember_of_its_address() -> None:
    by_dns = rendered("router: {discovery: dns}")
    seconds = {
        name: pod["spec"]["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        for name, pod in pods(by_dns).items()
        if name != "marginal-test"
    }
    assert seconds == {"marginal-router": 5, "marginal-small": 35, "marginal-large": 35}
    assert environment(pods(by_dns)["marginal-router"])["MARGINAL_LARGE"] == "dns:///marginal-large-headless:50053"
    assert not any(pod["spec"]["automountServiceAccountToken"] for pod in pods(by_dns).values())


def test_a_tier_that_has_all_in_its_image_may_talk_to_nobody() -> None:
    for policy in of_kind(rendered(), "NetworkPolicy"):
        if policy["metadata"]["name"] in ("marginal-small", "marginal-large"):
            assert policy["spec"]["egress"] == []


@pytest.mark.parametrize(
    ("size", "most"), [("2Gi", 1_717_986_918), ("10Gi", 8_589_934_592), ("500M", 400_000_000), ("1000", 800)]
)
def test_a_journal_leaves_a_fifth_of_its_volume(size: str, most: int) -> None:
    told = environment(pods(rendered(f"router: {{journal: {{size: '{size}', days: 7}}}}"))["marginal-router"])
    assert (told["MARGINAL_JOURNAL_BYTES"], told["MARGINAL_JOURNAL_DAYS"]) == (str(most), "7")


def test_an_image_is_named_by_its_digest_where_one_is_given() -> None:
    digest = "sha256:" + 64 * "0"
    values = f"image: {{registry: registry.example/team}}\nrouter: {{image: {{digest: '{digest}'}}}}"
    router, small = (
        workload(values, name)["spec"]["template"]["spec"]["containers"][0] for name in ("router", "small")
    )
    assert router["image"] == f"registry.example/team/marginal/router@{digest}"
    assert small["image"] == "registry.example/team/marginal/model:0.1.0"


def test_extra_objects_are_templates() -> None:
    values = "extraObjects: [{apiVersion: v1, kind: ConfigMap, metadata: {name: '{{ .Release.Name }}-more'}}]"
    assert "marginal-more" in [one["metadata"]["name"] for one in rendered(values)]


def test_every_value_is_known_to_the_schema_and_has_a_word_on_it() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    text = (CHART / "values.yaml").read_text()
    top = re.findall(r"^(\w+):", text, re.MULTILINE)
    assert set(top) == schema["properties"].keys() - {"global"}
    assert len(re.findall("#", text)) > 2 * len(top)


def test_no_default_can_be_taken_away_unseen() -> None:
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())["defaults"]
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert schema["definitions"]["whole"]["required"] == list(defaults)


def settings(objects: tuple[Object, ...]) -> dict[str, str]:
    [found] = [one for one in of_kind(objects, "ConfigMap") if one["metadata"]["name"].endswith("-router-settings")]
    return dict(found["data"])


def variables(parameter: click.Parameter) -> list[str]:
    named = parameter.envvar or []
    return [named] if isinstance(named, str) else list(named)
