"""Every example renders to what is committed, and to objects that Kubernetes takes."""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
from kubernetes_validate.utils import all_versions
from referencing import Registry, Resource

from charts.rendering import (
    CHART,
    CURRENT,
    EXAMPLES,
    GOLDEN,
    WITHOUT_SLEEP,
    Object,
    example,
    helm,
    manifest,
    of_kind,
    rendered,
)

VERSIONS = sorted({version for version in all_versions() if version >= "1.29"})
SCHEMAS = files(kubernetes_validate) / "kubernetes-json-schema"
CUSTOM = {path.name.removesuffix(".json"): path for path in sorted((GOLDEN.parent / "schemas").glob("*.json"))}
ROUTE = """
access: {keysSecret: {name: keys}}
tls: {existingSecret: certificates}
networkPolicy: {callers: [{namespaceSelector: {}}]}
route: {enabled: true, parentRefs: [{name: gateway}], hostnames: [marginal.example], caConfigMap: authority}
"""


def test_the_chart_has_no_lint() -> None:
    helm("lint", "--strict", str(CHART))


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_renders_to_its_golden_file(name: str) -> None:
    """`make chart-golden` renews them; the change is then part of the review."""
    assert manifest(example(name)) == (GOLDEN / f"{name}.yaml").read_text()


def test_every_golden_file_belongs_to_an_example() -> None:
    assert sorted(path.stem for path in GOLDEN.glob("*.yaml")) == EXAMPLES


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_of_every_supported_version_takes_every_example(version: str) -> None:
    kubernetes = WITHOUT_SLEEP if version.startswith("1.29.") else CURRENT
    objects = {
        json.dumps(one, sort_keys=True) for name in EXAMPLES for one in rendered(example(name), kubernetes=kubernetes)
    }
    faults = [fault for one in objects if not custom(json.loads(one)) for fault in faults_of(json.loads(one), version)]
    assert faults == []


def test_custom_resources_fit_what_their_projects_publish() -> None:
    objects = [one for name in EXAMPLES for one in rendered(example(name))] + [*rendered(ROUTE)]
    found = [one for one in objects if custom(one)]
    assert {one["kind"] for one in found} == {"ScaledObject", "GRPCRoute", "BackendTLSPolicy", "ServiceMonitor"}
    for one in found:
        schema = strict(json.loads(CUSTOM[custom_name(one)].read_text()))
        jsonschema.validate(one, schema)


def test_nothing_else_is_rendered_twice() -> None:
    for name in EXAMPLES:
        seen = [(one["kind"], one["metadata"]["name"]) for one in rendered(example(name))]
        assert len(seen) == len(set(seen))


def test_before_pods_could_sleep_their_programs_take_calls_for_as_long() -> None:
    for now, before in zip(
        of_kind(rendered(), "Deployment"), of_kind(rendered(kubernetes=WITHOUT_SLEEP), "Deployment"), strict=True
    ):
        assert stopping(now) == ({"preStop": {"sleep": {"seconds": 5}}}, "2")
        assert stopping(before) == ({}, "7")


def stopping(workload: Object) -> tuple[Object, str]:
    program = workload["spec"]["template"]["spec"]["containers"][0]
    [drain] = [variable["value"] for variable in program["env"] if variable["name"] == "MARGINAL_DRAIN_SECONDS"]
    return program.get("lifecycle", {}), drain


def custom(one: Object) -> bool:
    return custom_name(one) in CUSTOM


def custom_name(one: Object) -> str:
    return f"{one['apiVersion'].partition('/')[0]}.{one['kind'].lower()}"


def strict(schema: Any) -> Any:
    """A schema that takes no unknown fields, which an API server would drop without a word."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: strict(part) for name, part in schema.items()}
    if isinstance(closed.get("properties"), dict) and closed.get("type") == "object" and len(closed["properties"]):
        closed.setdefault("additionalProperties", False)
    return closed


@cache
def definitions(version: str) -> Registry[Any]:
    """The objects that one version knows; each knows its fields, and no others."""
    found = Resource.from_contents(json.loads((SCHEMAS / f"v{version}-local-strict" / "_definitions.json").read_text()))
    return found @ Registry()


def faults_of(one: Mapping[str, Any], version: str) -> list[str]:
    group, _, api = one["apiVersion"].rpartition("/")
    prefix = f"{group.partition('.')[0]}-" if group else ""
    schema = json.loads(
        (SCHEMAS / f"v{version}-local-strict" / f"{one['kind'].lower()}-{prefix}{api}.json").read_text()
    )
    registry = Resource.from_contents(schema) @ definitions(version)
    validator = jsonschema.Draft202012Validator(schema, registry=registry)
    return [f"{one['kind']} {one['metadata']['name']}: {error.message}" for error in validator.iter_errors(one)]
