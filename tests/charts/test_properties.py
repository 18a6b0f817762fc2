"""What holds for every pod of every example, whatever its values say."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from charts.rendering import (
    CURRENT,
    EXAMPLES,
    WITHOUT_SLEEP,
    WORKLOADS,
    Object,
    containers,
    environment,
    example,
    of_kind,
    pods,
    rendered,
    selects,
)
from marginal.transport.health import LIVENESS

SECRET_NAMES = re.compile(r"KEY|TOKEN|PASSWORD|SECRET")
RESTRICTED = {"allowPrivilegeEscalation": False, "runAsNonRoot": True, "capabilities": {"drop": ["ALL"]}}
VOLUMES = {"configMap", "emptyDir", "persistentVolumeClaim", "secret"}
SETTLING_SECONDS = 20

Objects = tuple[Object, ...]


@pytest.fixture(params=EXAMPLES)
def objects(request: pytest.FixtureRequest) -> Objects:
    return rendered(example(request.param))


def test_every_pod_is_fenced_in_and_out_by_one_policy(objects: Objects) -> None:
    for name, pod in pods(objects).items():
        [policy] = policies_of(pod, objects)
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"], name
        assert all(rule.get("from") for rule in policy["spec"]["ingress"]), name


def test_what_a_policy_lets_out_to_a_pod_that_pod_lets_in(objects: Objects) -> None:
    for policy in of_kind(objects, "NetworkPolicy"):
        for rule, there in within_the_release(policy, objects):
            [other] = policies_of(there, objects)
            ours = policy["spec"]["podSelector"]["matchLabels"]
            let_in = {
                port["port"]
                for entry in other["spec"]["ingress"]
                if any(
                    ours.items() >= peer.get("podSelector", {}).get("matchLabels", {}).items() for peer in entry["from"]
                )
                for port in entry["ports"]
            }
            assert {port["port"] for port in rule["ports"]} <= let_in


def test_a_port_has_one_name_in_service_policy_and_probe(objects: Objects) -> None:
    for service in of_kind(objects, "Service"):
        [pod] = [pod for pod in pods(objects).values() if selects(service["spec"]["selector"], pod)]
        own = ports(pod)
        [policy] = policies_of(pod, objects)
        let_in = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
        for port in service["spec"]["ports"]:
            assert port["name"] == port["targetPort"]
            assert own[port["name"]] == port["port"]
            assert port["port"] in let_in
            assert port["appProtocol"]
    for pod in pods(objects).values():
        own = ports(pod)
        for probe in probes(pod):
            if "grpc" in probe:
                assert probe["grpc"]["port"] == own.get("health", own["grpc"])
            elif "httpGet" in probe:
                assert probe["httpGet"]["port"] in own


def test_a_policy_lets_in_to_nothing_but_the_ports_of_its_pods(
    objects: Objects, request: pytest.FixtureRequest
) -> None:
    """An engine's port only where the values open it."""
    values = yaml.safe_load(example(request.node.callspec.params["objects"])) or {}
    opened = values.get("networkPolicy", {}).get("extraIngress", {})
    for policy in of_kind(objects, "NetworkPolicy"):
        [pod] = [pod for pod in pods(objects).values() if selects(policy["spec"]["podSelector"]["matchLabels"], pod)]
        let_in = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
        more = opened.get(policy["metadata"]["labels"]["app.kubernetes.io/component"], ())
        own = {number for name, number in ports(pod).items() if name not in {"engine", "health"}}
        assert let_in == own | {port["port"] for rule in more for port in rule["ports"]}
        assert let_in <= set(ports(pod).values())


def test_nothing_secret_is_written_anywhere(objects: Objects) -> None:
    assert list(of_kind(objects, "Secret")) == []
    for pod in pods(objects).values():
        for container in containers(pod):
            for variable in container.get("env", ()):
                if SECRET_NAMES.search(variable["name"]):
                    assert "secretKeyRef" in variable.get("valueFrom", {}) or variable["value"].startswith(
                        "/etc/marginal/"
                    )


def test_selectors_of_two_releases_never_overlap(objects: Objects, request: pytest.FixtureRequest) -> None:
    others = pods(rendered(example(request.node.callspec.params["objects"]), release="other")).values()
    selectors = list(all_selectors(objects))
    assert selectors
    assert [selector for selector in selectors for pod in others if selects(selector, pod)] == []


def test_each_selector_finds_pods_of_its_own_release(objects: Objects) -> None:
    found = pods(objects).values()
    assert [selector for selector in all_selectors(objects) if not any(selects(selector, pod) for pod in found)] == []


def test_replicas_are_said_exactly_where_nothing_else_owns_them(objects: Objects) -> None:
    owned = {
        one["spec"]["scaleTargetRef"]["name"] for one in of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject")
    }
    for workload in of_kind(objects, *WORKLOADS):
        assert ("replicas" in workload["spec"]) == (workload["metadata"]["name"] not in owned)


@pytest.mark.parametrize("kubernetes", [WITHOUT_SLEEP, CURRENT])
@pytest.mark.parametrize("name", EXAMPLES)
def test_no_pod_is_ended_before_its_longest_stream(name: str, kubernetes: str) -> None:
    for pod in pods(rendered(example(name), kubernetes=kubernetes)).values():
        told = environment(pod)
        if "MARGINAL_GRACE_SECONDS" not in told:
            continue
        sleep = pod["spec"]["containers"][0].get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        drain, stream = (int(told[f"MARGINAL_{name}_SECONDS"]) for name in ("DRAIN", "GRACE"))
        assert sleep + drain >= 5
        assert pod["spec"]["terminationGracePeriodSeconds"] == sleep + drain + stream + SETTLING_SECONDS
        assert int(told.get("MARGINAL_MAXIMUM_DEADLINE_SECONDS", stream)) <= stream


def test_pods_keep_to_the_restricted_standard_and_write_to_volumes_only(objects: Objects) -> None:
    for pod in pods(objects).values():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["runAsUser"] > 10_000
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert {next(kind for kind in volume if kind != "name") for volume in spec["volumes"]} <= VOLUMES
        assert all("subPath" not in mount for one in containers(pod) for mount in one["volumeMounts"])
        for container in containers(pod):
            assert container["securityContext"].items() >= (RESTRICTED | {"readOnlyRootFilesystem": True}).items()
            assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]
            assert "cpu" in container["resources"]["requests"]


def test_only_a_router_that_watches_endpoints_has_a_token_and_may_nothing_else(objects: Objects) -> None:
    with_token = [pod for pod in pods(objects).values() if pod["spec"]["automountServiceAccountToken"]]
    roles = list(of_kind(objects, "Role", "ClusterRole"))
    assert len(with_token) == len(roles) <= 1
    for pod, role in zip(with_token, roles, strict=True):
        assert environment(pod)["MARGINAL_LARGE"] == "kubernetes:///marginal/marginal-large:grpc"
        [rule] = role["rules"]
        assert (rule["resources"], sorted(rule["verbs"])) == (["endpointslices"], ["get", "list", "watch"])


def test_each_workload_has_an_account_of_its_own(objects: Objects) -> None:
    accounts = [workload["spec"]["template"]["spec"]["serviceAccountName"] for workload in of_kind(objects, *WORKLOADS)]
    assert sorted(accounts) == sorted(one["metadata"]["name"] for one in of_kind(objects, "ServiceAccount"))
    assert all(one["automountServiceAccountToken"] is False for one in of_kind(objects, "ServiceAccount"))


def test_disruptions_are_bounded_where_there_may_be_several_replicas_and_nowhere_else(objects: Objects) -> None:
    most = {one["metadata"]["name"]: one["spec"].get("replicas", 0) for one in of_kind(objects, *WORKLOADS)}
    for scaler in of_kind(objects, "HorizontalPodAutoscaler"):
        most[scaler["metadata"]["name"]] = scaler["spec"]["maxReplicas"]
    for scaler in of_kind(objects, "ScaledObject"):
        most[scaler["metadata"]["name"]] = scaler["spec"]["maxReplicaCount"]
    bounded = {one["metadata"]["name"] for one in of_kind(objects, "PodDisruptionBudget")}
    assert bounded == {name for name, replicas in most.items() if replicas > 1}


def test_a_rollout_is_given_as_long_as_an_old_pod_may_stay_and_a_new_one_take_to_start(objects: Objects) -> None:
    for workload in of_kind(objects, "Deployment"):
        starting = sum(
            probe["periodSeconds"] * probe["failureThreshold"]
            for container in containers(workload["spec"]["template"])
            for probe in [container["startupProbe"]]
        )
        assert starting >= 600
        ending = workload["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        assert workload["spec"]["progressDeadlineSeconds"] > ending + starting


def test_life_and_readiness_ask_for_different_things(objects: Objects) -> None:
    for workload in of_kind(objects, *WORKLOADS):
        program = workload["spec"]["template"]["spec"]["containers"][0]
        ready, alive = program["readinessProbe"], program["livenessProbe"]
        if "grpc" in ready:
            assert ready["grpc"]["service"].startswith("marginal.v1.")
            assert alive["grpc"]["service"] == LIVENESS
        assert alive["periodSeconds"] * alive["failureThreshold"] >= 60


METRICS = "metrics: {enabled: true, serviceMonitor: {enabled: true}}"


@pytest.mark.parametrize("values", [METRICS, example("production")], ids=["few values", "production"])
def test_a_monitor_finds_each_program_once_where_it_tells_metrics_and_may_be_asked(values: str) -> None:
    objects = rendered(values)
    [monitor] = of_kind(objects, "ServiceMonitor")
    wanted, [endpoint] = monitor["spec"]["selector"]["matchLabels"], monitor["spec"]["endpoints"]
    scraped = []
    for service in of_kind(objects, "Service"):
        if not wanted.items() <= service["metadata"]["labels"].items():
            continue
        for port in service["spec"]["ports"]:
            if port["name"] == endpoint["port"]:
                [(name, pod)] = [one for one in pods(objects).items() if selects(service["spec"]["selector"], one[1])]
                scraped.append(name)
                assert port["port"] == ports(pod)[port["targetPort"]] == told_port(pod, "MARGINAL_METRICS_LISTEN")
                assert let_in_at(pod, objects, port["port"]) == [
                    {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
                ]
    assert sorted(scraped) == ["marginal-large", "marginal-router", "marginal-small"]


def test_a_monitor_finds_nothing_of_another_release() -> None:
    [monitor] = of_kind(rendered(METRICS, release="other"), "ServiceMonitor")
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    assert not any(wanted <= one["metadata"]["labels"].items() for one in of_kind(rendered(METRICS), "Service"))


def test_without_metrics_no_program_tells_any_and_no_port_is_open_for_them() -> None:
    objects = rendered()
    assert list(of_kind(objects, "ServiceMonitor")) == []
    for pod in pods(objects).values():
        assert "metrics" not in ports(pod)
        assert "MARGINAL_METRICS_LISTEN" not in environment(pod)
        assert let_in_at(pod, objects, 9464) == []


def test_metrics_without_an_operator_are_told_all_the_same() -> None:
    objects = rendered("{metrics: {enabled: true}, networkPolicy: {scrapers: [{podSelector: {}}]}}")
    assert list(of_kind(objects, "ServiceMonitor")) == []
    for name in ("marginal-router", "marginal-small", "marginal-large"):
        pod = pods(objects)[name]
        assert let_in_at(pod, objects, told_port(pod, "MARGINAL_METRICS_LISTEN")) == [{"podSelector": {}}]


def test_probes_ask_a_port_without_tls() -> None:
    for workload in of_kind(rendered("tls: {existingSecret: certificates}"), *WORKLOADS):
        pod = workload["spec"]["template"]
        assert {probe["grpc"]["port"] for probe in probes(pod)} == {told_port(pod, "MARGINAL_HEALTH_LISTEN")}


def test_a_router_that_waits_for_its_small_tier_is_asked_how_much_of_it_is_wanted() -> None:
    values = (
        "tiers: {small: {autoscaling: {kind: keda, minReplicas: 0}}}\nvalkey: {kind: external, url: 'valkey://store'}"
    )
    objects = rendered(values)
    [scaled] = of_kind(objects, "ScaledObject")
    name = scaled["spec"]["triggers"][0]["metadata"]["scalerAddress"].partition(".")[0]
    [service] = [one for one in of_kind(objects, "Service") if one["metadata"]["name"] == name]
    assert scaled["spec"]["minReplicaCount"] == 0
    assert service["spec"]["publishNotReadyAddresses"] is True


def told_port(pod: Object, variable: str) -> int:
    """The port of the address that a program is told by a variable."""
    return int(environment(pod)[variable].rpartition(":")[2])


def let_in_at(pod: Object, objects: Objects, port: int) -> list[Any]:
    """Who may come in at a port of a pod."""
    rules = [rule for policy in policies_of(pod, objects) for rule in policy["spec"]["ingress"]]
    return [peer for rule in rules if port in [one["port"] for one in rule["ports"]] for peer in rule["from"]]


def policies_of(pod: Object, objects: Objects) -> list[Object]:
    return [one for one in of_kind(objects, "NetworkPolicy") if selects(one["spec"]["podSelector"]["matchLabels"], pod)]


def within_the_release(policy: Object, objects: Objects) -> Iterator[tuple[Mapping[str, Any], Object]]:
    """Every way out of a policy's pods to another pod of the release."""
    for rule in policy["spec"]["egress"]:
        for peer in rule.get("to", ()):
            if "podSelector" in peer:
                [there] = [pod for pod in pods(objects).values() if selects(peer["podSelector"]["matchLabels"], pod)]
                yield rule, there


def all_selectors(objects: Objects) -> Iterator[Mapping[str, str]]:
    for one in objects:
        spec = one.get("spec", {})
        if one["kind"] == "Service":
            yield spec["selector"]
        if one["kind"] in (*WORKLOADS, "PodDisruptionBudget"):
            yield spec["selector"]["matchLabels"]
        if one["kind"] == "NetworkPolicy":
            yield spec["podSelector"]["matchLabels"]
        pod = spec.get("template", {}).get("spec", {})
        for constraint in pod.get("topologySpreadConstraints", ()):
            yield constraint["labelSelector"]["matchLabels"]


def ports(pod: Object) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for one in containers(pod) for port in one.get("ports", ())}


def probes(pod: Object) -> Iterator[Mapping[str, Any]]:
    for container in containers(pod):
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            if kind in container:
                yield container[kind]
