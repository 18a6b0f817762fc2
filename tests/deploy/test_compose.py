"""compose.yaml, the collector's configuration and the cluster in Docker: valid, hardened, and said in our own words."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from images import SERVICES

DEPLOY = Path(__file__).parents[2] / "deploy"
PACKAGE = DEPLOY.parent / "services" / "marginal"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
BIN = Path(sys.executable).parent
OURS = {name: service for name, service in COMPOSE["services"].items() if service["image"].startswith("marginal/")}


def test_compose_knows_every_word() -> None:
    command = [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_a_container_can_do_no_more_than_it_must(name: str) -> None:
    service: dict[str, Any] = COMPOSE["services"][name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert int(str(service["user"]).partition(":")[0]) > 0
    assert not {"privileged", "cap_add", "network_mode", "pid"} & service.keys()


def test_only_the_router_is_reached_from_outside_and_only_from_this_machine() -> None:
    ports = {name: service["ports"] for name, service in COMPOSE["services"].items() if "ports" in service}
    assert ports == {"router": ["127.0.0.1:50051:50051"]}
    outside = {name for name, network in COMPOSE["networks"].items() if not network.get("internal")}
    assert {name for name, service in COMPOSE["services"].items() if outside & {*service["networks"]}} == {"router"}


@pytest.mark.parametrize("name", OURS)
def test_every_variable_is_an_option_of_a_program(name: str) -> None:
    known = {found for path in PACKAGE.rglob("*.py") for found in re.findall(r'envvar="(\w+)"', path.read_text())}
    assert {*OURS[name]["environment"]} <= known


@pytest.mark.parametrize("name", OURS)
def test_health_is_what_the_program_says_of_the_service_that_callers_use(name: str) -> None:
    service = OURS[name]
    _, program, address, asked = service["healthcheck"]["test"]
    port = service["environment"]["MARGINAL_LISTEN"].rpartition(":")[2]
    assert (DEPLOY / "docker" / program).exists()
    assert address == f"127.0.0.1:{port}"
    assert asked == ("marginal.v1.RouterService" if name == "router" else "marginal.v1.ModelService")


def test_images_and_programs_are_those_that_are_built() -> None:
    for service in OURS.values():
        image = SERVICES[service["image"].removeprefix("marginal/").removesuffix(":dev")]
        assert service.get("entrypoint", [image.programs[0]])[0] in image.programs
        assert service["build"]["target"] == service["image"].removeprefix("marginal/").removesuffix(":dev")


def test_money_is_never_evicted_and_survives_a_restart() -> None:
    words = COMPOSE["services"]["valkey"]["command"]
    options = dict(zip(words[1::2], words[2::2], strict=True))
    assert (options["--maxmemory-policy"], options["--appendonly"]) == ("noeviction", "yes")
    assert COMPOSE["services"]["valkey"]["volumes"] == [f"budgets:{options['--dir']}"]


def test_a_container_is_ended_only_after_its_streams() -> None:
    for service in OURS.values():
        told = service["environment"]
        needs = float(told["MARGINAL_GRACE_SECONDS"]) + float(told["MARGINAL_DRAIN_SECONDS"])
        assert float(service["stop_grace_period"].removesuffix("s")) > needs


def test_the_collector_has_everything_that_its_pipelines_name() -> None:
    config = yaml.safe_load((DEPLOY / "otel-collector" / "config.yaml").read_text())
    for pipeline in config["service"]["pipelines"].values():
        for kind, names in pipeline.items():
            assert set(names) <= config[kind].keys()
    assert set(config["service"]["extensions"]) <= config["extensions"].keys()


def test_the_chart_takes_what_a_cluster_in_docker_is_given() -> None:
    chart, values = DEPLOY.parent / "charts" / "marginal", DEPLOY / "kind" / "values.yaml"
    rendered = subprocess.run(  # noqa: S603
        [BIN / "helm", "template", "marginal", chart, "--values", values], capture_output=True, text=True, check=False
    )
    assert rendered.returncode == 0, rendered.stderr
    pulled = [one.get("imagePullPolicy") for one in containers(rendered.stdout)]
    assert pulled
    assert set(pulled) == {"Never"}


def containers(rendered: str) -> list[dict[str, Any]]:
    specs = [
        one["spec"].get("template", one)["spec"]
        for one in yaml.safe_load_all(rendered)
        if one and one["kind"] in {"Deployment", "StatefulSet", "Pod"}
    ]
    return [container for spec in specs for container in spec["containers"]]
