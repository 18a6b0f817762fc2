"""A stranger's mistakes: each is refused before anything changes, with one sentence that names the value."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from charts.rendering import CHART, Refused, manifest

MISTAKES = {
    "a key misspelt": ("tiers: {small: {replica: 2}}", "tiers.small: Additional property replica is not allowed"),
    "a tier that there is not": ("tiers: {medium: {replicas: 1}}", "tiers: Additional property medium is not allowed"),
    "a number as text": ('router: {replicas: "2"}', "router.replicas: Invalid type. Expected: integer, given: string"),
    "fewer than no replicas": (
        "tiers: {large: {replicas: -1}}",
        "tiers.large.replicas: Must be greater than or equal to 0",
    ),
    "an autoscaler in capitals": (
        "tiers: {large: {autoscaling: {kind: HPA}}}",
        "tiers.large.autoscaling.kind: tiers.large.autoscaling.kind must be one of the following:",
    ),
    "a password in the values": (
        "valkey: {kind: own, password: secret}",
        "valkey: Additional property password is not allowed",
    ),
    "no time for any stream": ("longestStreamSeconds: 0", "longestStreamSeconds: Must be greater than or equal to 1"),
    "the router woken by itself": (
        "router: {autoscaling: {kind: keda}}",
        "router.autoscaling.kind: keda asks the router",
    ),
    "an hpa from zero": (
        "tiers: {large: {autoscaling: {kind: hpa, minReplicas: 0}}}",
        "tiers.large.autoscaling.minReplicas: an hpa cannot wake a tier from 0",
    ),
    "more at least than at most": (
        "tiers: {large: {autoscaling: {kind: keda, minReplicas: 9}}}",
        "tiers.large.autoscaling: minReplicas 9 is more than maxReplicas 4",
    ),
    "an hpa that looks at nothing": (
        "router: {autoscaling: {kind: hpa, cpuPercent: null}}",
        "router.autoscaling: an hpa needs cpuPercent or metrics",
    ),
    "a small tier that sleeps": (
        "tiers: {small: {replicas: 0}}",
        "tiers.small.replicas: every request begins there and nothing would wake it from 0",
    ),
    "a small tier that sleeps unheard": (
        "tiers: {small: {autoscaling: {kind: keda, minReplicas: 0}}}",
        "tiers.small.autoscaling.minReplicas: from 0 it is woken for a new router",
    ),
    "no router": ("router: {replicas: 0}", "router: keep one replica at least"),
    "a rollout that cannot move": (
        "tiers: {large: {rollout: {maxSurge: 0}}}",
        "tiers.large.rollout: maxSurge and maxUnavailable cannot both be 0",
    ),
    "an external engine that is nowhere": (
        "tiers: {large: {engine: {kind: external}}}",
        "tiers.large.engine.external.endpoints: missing",
    ),
    "endpoints of an engine in the image": (
        "tiers: {large: {engine: {external: {endpoints: ['http://a:8000']}}}}",
        "tiers.large.engine.external.endpoints: have no effect with kind embedded",
    ),
    "an endpoint that holds its key": (
        "tiers: {large: {engine: {kind: external, external: {endpoints: ['https://me:sk-1@models.example']}}}}",
        "tiers.large.engine.external.endpoints: each is http://HOST:PORT or https://HOST:PORT without user, key",
    ),
    "a sidecar without an image": (
        "tiers: {small: {engine: {kind: sidecar}}}",
        "tiers.small.engine.sidecar.image: missing",
    ),
    "the embedded model of another engine": (
        "tiers: {small: {engine: {kind: sidecar, embedded: {model: home-small}, sidecar: {image: vllm}}}}",
        "tiers.small.engine.embedded: has no effect with kind sidecar",
    ),
    "a route of the other engine": (
        "tiers: {small: {engine: {kind: sidecar, route: native, sidecar: {image: vllm}}}}",
        "tiers.small.engine.route: openai has chat and completions",
    ),
    "a model cache that is nowhere": (
        "tiers: {small: {modelCache: {kind: claim}}}",
        "tiers.small.modelCache.claimName",
    ),
    "a digest that is a tag": ("router: {image: {digest: v1}}", "router.image.digest: write it as sha256:"),
    "an open port without keys": (
        "router: {service: {type: LoadBalancer}}",
        "router.service.type: without keys others than the cluster's pods could spend",
    ),
    "an open port that a policy closes": (
        "{router: {service: {type: LoadBalancer}}, access: {keysSecret: {name: keys}}}",
        "networkPolicy.callers: missing",
    ),
    "no fence and no keys": ("networkPolicy: {enabled: false}", "networkPolicy.enabled: without it and without keys"),
    "a gateway without keys": (
        "route: {enabled: true, parentRefs: [{name: gateway}]}",
        "route.enabled: a gateway without keys lets anybody spend",
    ),
    "keys demanded and not named": ("access: {withoutKeys: refuse}", "access.keysSecret.name: missing"),
    "keys and a header that names the tenant": (
        "access: {trustTenantHeader: true, keysSecret: {name: keys}}",
        "access.trustTenantHeader: has no effect with keys",
    ),
    "certificates of callers without TLS": (
        "tls: {callersShowCertificates: true}",
        "tls.callersShowCertificates: needs tls.existingSecret",
    ),
    "a gateway that trusts nobody": (
        "{tls: {existingSecret: c}, access: {keysSecret: {name: k}}, networkPolicy: {callers: [{podSelector: {}}]}, "
        "route: {enabled: true, parentRefs: [{name: gateway}]}}",
        "route.caConfigMap: missing, the gateway is to trust the router's certificate",
    ),
    "trust in plain text": ("route: {caConfigMap: authority}", "route.caConfigMap: has no effect without tls"),
    "a balancer's class of no balancer": (
        "router: {service: {loadBalancerClass: internal}}",
        "router.service.loadBalancerClass: has no effect with type ClusterIP",
    ),
    "a label by which the chart finds its own": (
        "tiers: {small: {service: {labels: {app.kubernetes.io/component: mine}}}}",
        "tiers.small.service.labels: app.kubernetes.io/component is the chart's own",
    ),
    "a family that there is not": (
        "defaults: {service: {ipFamilies: [ipv6]}}",
        "defaults.service.ipFamilies.0: defaults.service.ipFamilies.0 must be one of the following:",
    ),
    "DNS without a port": (
        "networkPolicy: {dns: {ports: []}}",
        "networkPolicy.dns.ports: Array must have at least 1 items",
    ),
    "rules of a component that there is not": (
        "networkPolicy: {extraEgress: {tiers: []}}",
        "networkPolicy.extraEgress: Additional property tiers is not allowed",
    ),
    "a collector without a port": (
        "telemetry: {collector: 'http://collector'}",
        "telemetry.collector: write it as http://HOST:4317",
    ),
    "a collector without a scheme": (
        "telemetry: {collector: 'collector:4317'}",
        "telemetry.collector: write it as http://HOST:4317",
    ),
    "a monitor of nothing": (
        "metrics: {serviceMonitor: {enabled: true}}",
        "metrics.serviceMonitor.enabled: there is nothing to scrape",
    ),
    "an interval of what": (
        "metrics: {enabled: true, serviceMonitor: {enabled: true, interval: '30'}}",
        "metrics.serviceMonitor.interval: write it as 30s or 1m",
    ),
    "policies that are no TOML": ("policies: this is = = not toml", "policies: no TOML, toml: line 1"),
    "policies without prices": (
        'policies: \'default = "a"\n\ncurrency = "USD"\n\n[policies.a]\'',
        "policies: prices is missing; `marginal policy check FILE` tells everything",
    ),
    "policies whose default is another": (
        'policies: \'default = "a"\n\ncurrency = "USD"\n\n[prices]\n\n[policies.b]\'',
        'policies: default is "a", and there is no [policies.a]',
    ),
    "policies that are a number": (
        "policies: 'default = 1\n\ncurrency = \"USD\"\n\nprices = 2\n\npolicies = 3'",
        'policies: default is "1", and there is no [policies.1]',
    ),
    "tenants that are no TOML": ("tenants: per day 20", "tenants: no TOML, toml: line 1"),
    "a tenant beside the tenants": (
        "tenants: '[search]'",
        "tenants: nothing is called search there; a tenant is [tenants.search]",
    ),
    "one account made for all": (
        "defaults: {serviceAccount: {name: models}}",
        "tiers.small.serviceAccount.name: models is made for router already",
    ),
    "the account of everybody else": (
        "router: {serviceAccount: {create: false}}",
        "router.serviceAccount.name: missing, the namespace's default account would be let watch",
    ),
    "a digest of the test that is a tag": (
        "test: {image: {digest: v1}}",
        "test.image.digest: write it as sha256:",
    ),
    "a digest of Valkey that is a tag": (
        "valkey: {own: {image: {digest: v1}}}",
        "valkey.own.image.digest: write it as sha256:",
    ),
    "a pod that services would not find": (
        "tiers: {large: {podLabels: {app.kubernetes.io/component: big}}}",
        "tiers.large.podLabels: app.kubernetes.io/component is the chart's own",
    ),
    "a variable that the chart sets": (
        "router: {env: [{name: MARGINAL_LISTEN, value: ':1'}]}",
        "router.env: MARGINAL_LISTEN is set by the chart, or twice here",
    ),
    "a variable twice": (
        "router: {env: [{name: A, value: b}, {name: A, value: c}]}",
        "router.env: A is set by the chart, or twice here",
    ),
    "a home of the engine": (
        "tiers: {large: {engine: {kind: sidecar, sidecar: {image: vllm, env: [{name: HOME, value: /}]}}}}",
        "tiers.large.engine.sidecar.env: HOME is set by the chart, or twice here",
    ),
    "a variable without a name": ("defaults: {env: [{value: b}]}", "defaults.env.0: name is required"),
    "a node that is never drained": (
        "defaults: {disruption: {maxUnavailable: 0%}}",
        "router.disruption.maxUnavailable: with 0 no node could ever be drained",
    ),
    "a rollout of a StatefulSet": (
        "router: {journal: {kind: claim}, rollout: {maxSurge: 2}}",
        "router.rollout: has no effect with router.journal.kind claim",
    ),
    "the router in the models' image": ("router: {image: null}", "router: image is required"),
    "no tiers": ("tiers: null", "(root): tiers is required"),
    "no engine anywhere": ("defaults: {engine: null}", "defaults: engine is required"),
    "a Valkey without a password": ("valkey: {kind: own}", "valkey.passwordSecret.name: missing"),
    "a Valkey's password in its URL": (
        "valkey: {kind: external, url: 'valkey://:hunter2@valkey:6379'}",
        "valkey.url: write valkey://HOST:6379/0",
    ),
    "a user of a Valkey that is the chart's own": (
        "valkey: {kind: own, user: me, passwordSecret: {name: password}}",
        "valkey.user: has no effect with kind own; set valkey.kind to external",
    ),
    "a user without a password": (
        "valkey: {kind: external, url: 'valkey://valkey:6379', user: me}",
        "valkey.passwordSecret.name: missing, valkey.user has a password",
    ),
    "a user in the URL": (
        "valkey: {kind: external, url: 'valkey://me@valkey:6379'}",
        "valkey.url: write valkey://HOST:6379/0",
    ),
    "several routers asked of one's demand": (
        "{router: {replicas: 2}, tiers: {large: {autoscaling: {kind: keda}}}}",
        "valkey.kind: none leaves each router with its own demand",
    ),
    "a Valkey that is not asked": (
        "valkey: {url: 'valkey://valkey:6379/0'}",
        "valkey.url: has no effect with kind none",
    ),
}


SECTIONS = {"image", "access", "tls", "telemetry", "metrics", "valkey", "networkPolicy", "route", "test"}


def paths(values: Mapping[str, Any], *above: str) -> Iterator[tuple[str, ...]]:
    """Where there is something by default, but for the kinds of resources."""
    for name, value in values.items():
        if value is not None and (above or name in SECTIONS):
            yield (*above, name)
            if isinstance(value, dict) and name != "resources":
                yield from paths(value, *above, name)


DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_refused_in_one_sentence(mistake: str) -> None:
    values, sentence = MISTAKES[mistake]
    with pytest.raises(Refused) as refused:
        manifest(values)
    [said] = complaints(str(refused.value))
    assert said.startswith(sentence)
    assert "hunter2" not in str(refused.value)
    assert "sk-1" not in str(refused.value)


@pytest.mark.parametrize("path", [*paths(DEFAULTS)], ids=".".join)
def test_a_value_that_is_taken_away_is_missed_by_its_name(path: tuple[str, ...]) -> None:
    """Helm takes a default away where a value is null."""
    with pytest.raises(Refused) as refused:
        manifest("".join(f"{{{name}: " for name in path) + "null" + "}" * len(path))
    *above, name = path
    assert complaints(str(refused.value)) == [f"{'.'.join(above) or '(root)'}: {name} is required"]


def complaints(text: str) -> list[str]:
    """The sentences of a refusal: those of the schema, or of a template."""
    of_schema = re.findall(r"^- (.+)$", text, re.MULTILINE)
    of_templates = re.findall(r"execution error at \(\S+\): (.+)$", text, re.MULTILINE)
    return [*of_schema, *of_templates]
