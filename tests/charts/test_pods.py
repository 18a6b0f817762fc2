"""What values make of pods, and of what keeps, spreads and replaces them."""

import pytest

from charts.rendering import WORKLOADS, Object, containers, of_kind, pods, rendered

MODELS = {"name": "models", "persistentVolumeClaim": {"claimName": "7"}}
OPENSHIFT = "defaults: {podSecurityContext: {runAsUser: null, runAsGroup: null, fsGroup: null}}"
SIDECAR = "tiers: {large: {engine: {kind: sidecar, sidecar: {image: vllm%s}}%s}}"


def of(values: str, component: str) -> Object:
    """The pod of a component."""
    return pods(rendered(values))[f"marginal-{component}"]


def volume(pod: Object, name: str) -> object:
    return next((one for one in pod["spec"]["volumes"] if one["name"] == name), None)


def mounted(container: Object) -> dict[str, str]:
    return {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}


@pytest.mark.parametrize("model", ["/models/small.gguf", "qwen2.5-0.5b", ""])
def test_a_claim_of_models_is_mounted_wherever_the_model_comes_from(model: str) -> None:
    cache = "modelCache: {kind: claim, claimName: '7'}"
    pod = of(f"tiers: {{small: {{{cache}, engine: {{embedded: {{model: '{model}'}}}}}}}}", "small")
    assert volume(pod, "models") == MODELS
    assert mounted(pod["spec"]["containers"][0])["models"] == "/models"


def test_a_model_of_the_image_and_an_engine_elsewhere_need_no_place_for_models() -> None:
    assert volume(of("", "small"), "models") is None
    elsewhere = "engine: {kind: external, external: {endpoints: ['http://a:8000']}}"
    claim = "modelCache: {kind: claim, claimName: models}"
    assert volume(of(f"tiers: {{large: {{{claim}, {elsewhere}}}}}", "large"), "models") is None


def test_what_is_downloaded_is_limited_only_where_the_values_say_so() -> None:
    assert volume(of(SIDECAR % ("", ""), "large"), "models") == {"name": "models", "emptyDir": {}}
    limited = of(SIDECAR % ("", ", modelCache: {sizeLimit: 60Gi}"), "large")
    assert volume(limited, "models") == {"name": "models", "emptyDir": {"sizeLimit": "60Gi"}}


def test_null_takes_a_key_out_of_a_security_context_for_all_or_for_one() -> None:
    for pod in pods(rendered(OPENSHIFT)).values():
        assert pod["spec"]["securityContext"].keys() == {"runAsNonRoot", "fsGroupChangePolicy", "seccompProfile"}
    values = "tiers: {small: {podSecurityContext: {runAsUser: 1000680000, fsGroup: null}}}"
    changed, other = of(values, "small"), of(values, "large")
    assert changed["spec"]["securityContext"]["runAsUser"] == 1000680000
    assert changed["spec"]["securityContext"]["runAsGroup"] == 65532
    assert "fsGroup" not in changed["spec"]["securityContext"]
    assert other["spec"]["securityContext"]["fsGroup"] == 65532


def test_an_engine_has_a_security_context_of_its_own_on_top_of_its_workload() -> None:
    pod = of(SIDECAR % (", securityContext: {runAsUser: 1000, readOnlyRootFilesystem: false}", ""), "large")
    [engine], [program] = pod["spec"]["initContainers"], pod["spec"]["containers"]
    assert engine["securityContext"] == program["securityContext"] | {
        "runAsUser": 1000,
        "readOnlyRootFilesystem": False,
    }
    assert program["securityContext"]["readOnlyRootFilesystem"] is True


def test_hard_spreading_is_over_nodes_and_counts_those_alone_that_a_pod_tolerates() -> None:
    hosts, zones = of("tiers: {large: {spread: hard}}", "large")["spec"]["topologySpreadConstraints"]
    assert (hosts["topologyKey"], hosts["whenUnsatisfiable"]) == ("kubernetes.io/hostname", "DoNotSchedule")
    assert (zones["topologyKey"], zones["whenUnsatisfiable"]) == ("topology.kubernetes.io/zone", "ScheduleAnyway")
    for one in (hosts, zones):
        assert one["nodeTaintsPolicy"] == "Honor"
        assert one["matchLabelKeys"] == ["pod-template-hash"]
    router = of("router: {spread: hard, journal: {kind: claim}}", "router")
    assert not any("matchLabelKeys" in one for one in router["spec"]["topologySpreadConstraints"])
    assert "topologySpreadConstraints" not in of("router: {spread: none}", "router")["spec"]


@pytest.mark.parametrize(
    ("of_tier", "bounded"),
    [("autoscaling: {kind: hpa, maxReplicas: 10}", True), ("autoscaling: {kind: keda, maxReplicas: 1}", False)],
)
def test_a_drain_takes_one_of_as_many_as_a_scaler_may_have_made(of_tier: str, bounded: bool) -> None:
    budgets = of_kind(rendered(f"tiers: {{large: {{{of_tier}}}}}"), "PodDisruptionBudget")
    assert [one["spec"]["maxUnavailable"] for one in budgets] == [1] * bounded


def test_more_of_a_workload_is_said_in_the_words_of_kubernetes() -> None:
    values = """
tiers:
  large:
    annotations: {reloader.stakater.com/auto: "true"}
    minReadySeconds: 30
    envFrom: [{secretRef: {name: proxy}}]
    extraInitContainers: [{name: fetch, image: fetch, securityContext: {runAsUser: 1000680000}}]
    extraContainers: [{name: proxy, image: proxy}]
    extraVolumes: [{name: certificates, configMap: {name: certificates}}]
    engine:
      kind: sidecar
      sidecar:
        image: vllm
        pullPolicy: Always
        extraVolumeMounts: [{name: certificates, mountPath: /etc/ssl/certs}]
"""
    [large] = [one for one in of_kind(rendered(values), *WORKLOADS) if one["metadata"]["name"] == "marginal-large"]
    pod = large["spec"]["template"]
    assert large["metadata"]["annotations"] == {"reloader.stakater.com/auto": "true"}
    assert large["spec"]["minReadySeconds"] == 30
    assert [one["name"] for one in containers(pod)] == ["fetch", "engine", "large", "proxy"]
    fetch, engine, program, _ = containers(pod)
    assert fetch["securityContext"] == {"runAsUser": 1000680000}
    assert engine["imagePullPolicy"] == "Always"
    assert mounted(engine)["certificates"] == "/etc/ssl/certs"
    assert program["envFrom"] == [{"secretRef": {"name": "proxy"}}]
    assert volume(pod, "certificates") == {"name": "certificates", "configMap": {"name": "certificates"}}


def test_the_pod_of_the_test_may_be_placed() -> None:
    values = "test: {nodeSelector: {pool: cpu}, tolerations: [{key: cpu, operator: Exists}]}"
    pod = of(values, "test")["spec"]
    assert (pod["nodeSelector"], pod["tolerations"]) == ({"pool": "cpu"}, [{"key": "cpu", "operator": "Exists"}])


def test_a_release_and_a_namespace_may_be_called_by_numbers() -> None:
    values = "{nameOverride: '7', fullnameOverride: m, defaults: {priorityClassName: '8', runtimeClassName: '9'}}"
    for one in of_kind(rendered(values, release="123"), *WORKLOADS):
        labels = one["spec"]["template"]["metadata"]["labels"]
        assert (labels["app.kubernetes.io/name"], labels["app.kubernetes.io/instance"]) == ("7", "123")
        assert one["spec"]["selector"]["matchLabels"] == labels
        pod = one["spec"]["template"]["spec"]
        assert (pod["priorityClassName"], pod["runtimeClassName"]) == ("8", "9")
