"""Who reaches whom: policies, services and the route, for clusters that differ from the default."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from charts.rendering import EXAMPLES, Object, environment, example, of_kind, pods, rendered
from engines.valkey import ValkeyProcess
from marginal.ledger.valkey_link import open_client

ANYWHERE = None
ENGINES = (
    "tiers: {large: {engine: {kind: external, external: {endpoints: ['http://vllm.models/v1', 'https://vllm.models']"
)
PEER = "{namespaceSelector: {matchLabels: {team: models}}}"
TEAM = [{"namespaceSelector": {"matchLabels": {"team": "models"}}}]
OPEN = """
access: {keysSecret: {name: keys}}
networkPolicy: {callers: [{ipBlock: {cidr: 192.0.2.0/24}}]}
"""

Ways = list[tuple[Any, set[int]]]


def policy(values: str, component: str) -> Mapping[str, Any]:
    [found] = [
        one for one in of_kind(rendered(values), "NetworkPolicy") if one["metadata"]["name"] == f"marginal-{component}"
    ]
    spec: Mapping[str, Any] = found["spec"]
    return spec


def ways_out(values: str, component: str) -> Ways:
    """Peers and TCP ports of every way out; None are all peers, and no ports are all of them."""
    return [
        (rule.get("to"), {port["port"] for port in rule.get("ports", ()) if port["protocol"] == "TCP"})
        for rule in policy(values, component)["egress"]
    ]


def service(values: str, name: str) -> Object:
    [found] = [one for one in of_kind(rendered(values), "Service") if one["metadata"]["name"] == name]
    return found


@pytest.mark.parametrize(
    ("named", "way"),
    [
        ("", (ANYWHERE, {80, 443})),
        (f", peers: [{PEER}]", (TEAM, set())),
        (f", peers: [{PEER}], ports: [8000]", (TEAM, {8000})),
        (", ports: [8000]", (ANYWHERE, {8000})),
    ],
)
def test_engines_behind_a_service_are_reached_at_whatever_port_their_pods_have(
    named: str, way: tuple[Any, set[int]]
) -> None:
    assert ways_out(ENGINES + named + "}}}}", "large")[1:] == [way]


def test_a_store_and_a_collector_are_reached_the_same_way() -> None:
    values = "valkey: {kind: external, url: 'valkeys://store'%s}\ntelemetry: {collector: 'http://collector:4317'}"
    assert {(None, 6379), (None, 4317)} <= {
        (peers, port) for peers, ports in ways_out(values % "", "router") for port in ports if peers is None
    }
    named = values % f", peers: [{PEER}]" + f"\nnetworkPolicy: {{collector: {{peers: [{PEER}], ports: [14317]}}}}"
    assert (TEAM, set()) in ways_out(named, "router")
    assert (TEAM, {14317}) in ways_out(named, "router")
    assert (TEAM, {14317}) in ways_out(named, "small")


def test_dns_and_the_api_server_may_be_at_other_ports() -> None:
    values = (
        f"networkPolicy: {{dns: {{peers: [{PEER}], ports: [5353]}}, apiServer: {{peers: [{PEER}], ports: [16443]}}}}"
    )
    out = ways_out(values, "router")
    assert out[0] == (TEAM, {5353})
    assert out[-1] == (TEAM, {16443})
    [test] = [pod for pod in of_kind(rendered(values), "NetworkPolicy") if pod["metadata"]["name"] == "marginal-test"]
    assert {port["port"] for port in test["spec"]["egress"][0]["ports"]} == {5353}


def test_the_hub_may_be_elsewhere_or_nowhere() -> None:
    sidecar = "tiers: {large: {engine: {kind: sidecar, sidecar: {image: vllm}}}}\nnetworkPolicy: {hub: {%s}}"
    [_, (public, ports)] = ways_out(sidecar % "", "large")
    assert ("10.0.0.0/8" in json.dumps(public), ports) == (True, {443})
    assert ways_out(sidecar % f"peers: [{PEER}], ports: [8081]", "large")[1:] == [(TEAM, {8081})]
    assert ways_out(sidecar % "enabled: false", "large") == []


def test_every_component_may_have_rules_of_its_own() -> None:
    components = ("router", "small", "large", "valkey")
    rules = ", ".join(f"{name}: [{{%s: [{PEER}], ports: [{{port: 3128}}]}}]" for name in components)
    values = (
        "valkey: {kind: own, passwordSecret: {name: password}}\nnetworkPolicy: "
        f"{{extraIngress: {{{rules.replace('%s', 'from')}}}, extraEgress: {{{rules.replace('%s', 'to')}}}}}"
    )
    for name in components:
        spec = policy(values, name)
        assert spec["ingress"][-1] == {"from": TEAM, "ports": [{"port": 3128}]}
        assert spec["egress"][-1] == {"to": TEAM, "ports": [{"port": 3128}]}
        assert len(spec["ingress"]) == 2
    assert [port["port"] for port in policy(values, "small")["egress"][0]["ports"]] == [53, 53]


def test_prometheus_reaches_the_engine_by_whose_metric_an_hpa_scales() -> None:
    values = example("hpa")
    [engine] = pods(rendered(values))["marginal-large"]["spec"]["initContainers"]
    [port] = policy(values, "large")["ingress"][-1]["ports"]
    assert port["port"] == engine["ports"][0]["containerPort"]
    [scaler] = [
        one for one in of_kind(rendered(values), "HorizontalPodAutoscaler") if "large" in one["metadata"]["name"]
    ]
    [metric] = scaler["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"].startswith("vllm_")
    assert engine["image"].startswith("vllm/")


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_program_listens_to_both_families(name: str) -> None:
    for pod in pods(rendered(example(name))).values():
        listens = {key: value for key, value in environment(pod).items() if key.endswith("_LISTEN")}
        assert all(value.startswith("[::]:") for value in listens.values()), listens


def test_services_have_the_families_that_are_asked_for() -> None:
    keda = "tiers: {large: {autoscaling: {kind: keda}}}\nvalkey: {kind: own, passwordSecret: {name: password}}\n"
    families = "defaults: {service: {ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv6, IPv4]}}"
    services = list(of_kind(rendered(keda + families), "Service"))
    assert len(services) == 8
    assert {one["spec"]["ipFamilyPolicy"] for one in services} == {"RequireDualStack"}
    assert {tuple(one["spec"]["ipFamilies"]) for one in services} == {("IPv6", "IPv4")}
    alone = rendered("defaults: {service: {ipFamilies: [IPv6]}}")
    assert {tuple(one["spec"]["ipFamilies"]) for one in of_kind(alone, "Service")} == {("IPv6",)}
    assert not any("ipFamilies" in one["spec"] for one in of_kind(rendered(), "Service"))


def test_callers_from_outside_are_seen_by_their_own_address() -> None:
    balanced = (
        OPEN + "router: {service: {type: LoadBalancer, port: 443, labels: {pool: public}, annotations: {name: a}, "
    )
    values = balanced + "loadBalancerClass: internal, loadBalancerSourceRanges: [192.0.2.0/24]}}"
    router = service(values, "marginal-router")
    assert router["spec"]["externalTrafficPolicy"] == "Local"
    assert router["spec"]["loadBalancerClass"] == "internal"
    assert router["spec"]["loadBalancerSourceRanges"] == ["192.0.2.0/24"]
    assert [(port["port"], port["targetPort"]) for port in router["spec"]["ports"]] == [(443, "grpc")]
    assert router["metadata"]["labels"]["pool"] == "public"
    assert policy(values, "router")["ingress"][0]["ports"] == [{"protocol": "TCP", "port": 50051}]
    headless = service(values, "marginal-router-headless")
    assert (headless["spec"]["ports"][0]["port"], headless["metadata"].get("annotations")) == (50051, None)
    assert "externalTrafficPolicy" not in service("", "marginal-router")["spec"]
    node = service(OPEN + "router: {service: {type: NodePort, externalTrafficPolicy: Cluster}}", "marginal-router")
    assert node["spec"]["externalTrafficPolicy"] == "Cluster"


def test_the_test_and_the_route_call_the_port_of_the_service() -> None:
    values = OPEN + "route: {enabled: true, parentRefs: [{name: gateway}]}\nrouter: {service: {port: 80}}\n"
    values += "test: {apiKeySecret: {name: key}}"
    [route] = of_kind(rendered(values), "GRPCRoute")
    assert route["spec"]["rules"][0]["backendRefs"] == [{"name": "marginal-router", "port": 80}]
    assert pods(rendered(values))["marginal-test"]["spec"]["containers"][0]["args"][0] == "marginal-router:80"


def test_a_gateway_is_told_whom_to_trust_where_the_router_speaks_tls() -> None:
    route = OPEN + "route: {enabled: true, parentRefs: [{name: gateway}]%s}\n%s"
    assert list(of_kind(rendered(route % ("", "")), "BackendTLSPolicy")) == []
    told = rendered(route % (", caConfigMap: authority", "tls: {existingSecret: certificates}"))
    [trust] = of_kind(told, "BackendTLSPolicy")
    [target] = trust["spec"]["targetRefs"]
    [authority] = trust["spec"]["validation"]["caCertificateRefs"]
    assert (target["kind"], target["name"]) == ("Service", "marginal-router")
    assert (authority["kind"], authority["name"]) == ("ConfigMap", "authority")
    assert trust["spec"]["validation"]["hostname"] == "marginal-router.marginal.svc"


def test_a_name_that_looks_like_a_number_stays_a_name() -> None:
    values = "tls: {existingSecret: '2024'}\nrouter: {serviceAccount: {name: '7'}}"
    for pod in pods(rendered(values)).values():
        [secret] = [one["secret"]["secretName"] for one in pod["spec"]["volumes"] if one["name"] == "tls"]
        assert secret == "2024"  # noqa: S105 (a Secret's name)
    [binding] = of_kind(rendered(values), "RoleBinding")
    assert binding["subjects"][0]["name"] == "7"
    assert "7" in [one["metadata"]["name"] for one in of_kind(rendered(values), "ServiceAccount")]


async def test_a_router_logs_in_to_a_store_as_the_user_that_is_named(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("hunter2\n")
    with ValkeyProcess() as server:
        server.client().acl_setuser("us+er@team", enabled=True, passwords=["+hunter2"], commands=["+@all"], keys=["*"])
        values = (
            f"valkey: {{kind: external, url: '{server.url}', user: us+er@team, passwordSecret: {{name: password}}}}"
        )
        told = environment(pods(rendered(values))["marginal-router"])
        assert told["MARGINAL_STORE_PASSWORD_FILE"] == "/etc/marginal/valkey/password"  # noqa: S105 (a path)
        async with open_client(told["MARGINAL_STORE"], timeout_seconds=5.0, password_file=password) as client:
            assert await client.execute_command("ACL", "WHOAMI") == "us+er@team"
