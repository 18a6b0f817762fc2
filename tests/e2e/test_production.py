"""The release of examples/production.yaml: keys, TLS, a budget that two routers share, a large tier that sleeps."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.cluster import Namespace, ScriptPod, eventually
from e2e.command_line import marginal
from e2e.conftest import TIMED
from e2e.figures import Figures, calls, draw_timeline
from e2e.needs import needs_keda
from e2e.releases import CHART, SMALL_PODS, Release, merged
from e2e.test_large_tier_at_zero import Timeline, timeline
from integration.authorities import Authority

pytestmark = needs_keda
CALLERS = 8
TENANT = "search"
WAYS = ("ca=/secrets/caller/ca.crt", "key=/secrets/caller/api-key")
OWN: dict[str, Any] = {
    "telemetry": {"collector": ""},
    "metrics": {"serviceMonitor": {"enabled": False}},
    "router": {"autoscaling": {"kind": "none"}, "journal": {"kind": "emptyDir"}, "resources": SMALL_PODS},
    "tiers": {
        "small": {"engine": {"embedded": {"model": TIMED["small"]}}, "autoscaling": {"maxReplicas": 2}},
        "large": {
            "engine": {"embedded": {"model": "scripted:tokens=40,delay_ms=50"}},
            "autoscaling": {
                "maxReplicas": 2,
                "cooldownSeconds": 40,
                "pollingSeconds": 5,
                "scaleDownStabilizationSeconds": 15,
                "scaleDownPercentPerMinute": 100,
            },
        },
    },
    "valkey": {"own": {"storage": {"kind": "emptyDir"}, "resources": SMALL_PODS}},
}
"""Where it differs from the example: it needs no volumes, no Prometheus and no big node, and scales within minutes."""


@dataclass
class Production:
    """The release, and a namespace whose pods may call it."""

    release: Release
    callers: Namespace
    ca: Path
    ready_seconds: float
    charged_nanos: int = 0
    """What the tenant's calls have cost so far, as their callers were told."""

    @property
    def router(self) -> str:
        return f"marginal-router.{self.release.namespace.name}.svc:50051"

    def run(self, name: str, mode: str, altogether: int = 0) -> ScriptPod:
        """Calls of the tenant: with its key, over TLS."""
        arguments = (self.router, str(CALLERS), mode, "120", str(altogether), *WAYS)
        return self.callers.run(name, "calls.py", *arguments, secrets=["caller"])

    def charged(self, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The same calls, once they are counted."""
        self.charged_nanos += sum(line.get("nanos", 0) for line in lines)
        return lines

    def status(self) -> Any:
        where = ("--kubeconfig", self.callers.cluster.kubeconfig, "--namespace", self.release.namespace.name)
        return json.loads(marginal("--tls-ca", str(self.ca), "status", *where, "--json"))

    def budget(self, window: str = "month") -> Any:
        """The tenant's row in the store that the routers share."""
        rows = self.status()["budgets"]
        return next(one for one in rows if (one["tenant"], one["window"]) == (TENANT, window))

    def records(self) -> dict[str, Any]:
        """What each router's cost records add up to, by tenant."""
        where, told = self.release.namespace, {}
        for router in where.ready("router"):
            with where.running(router, "costs.py") as script:
                told[router] = json.loads(script.communicate()[0])
        return told

    def settled(self) -> Any:
        """The same, once nothing is held any more."""
        eventually(lambda: self.budget()["held_nanos"] == 0, seconds=30, what="settled budgets")
        return self.budget()


def secrets(release: Release, callers: Namespace, folder: Path) -> Path:
    """Makes the Secrets that the example names, as its comments say; where the authority's certificate is."""
    where = release.namespace
    services = [f"marginal-{kind}{tail}" for kind in ("router", "small", "large") for tail in ("", "-headless")]
    identity = Authority().write(folder, *services, *(f"{one}.{where.name}.svc" for one in services))
    tls = {path.name: path.read_text() for path in (identity.cert, identity.key, identity.ca)}
    keys = folder / "keys.jsonl"
    mine, tests = (marginal("keys", "create", name, "--keys-file", str(keys)) for name in (TENANT, "helm-test"))
    where.secret("marginal-tls", tls)
    where.secret("marginal-keys", {"keys.jsonl": keys.read_text()})
    where.secret("marginal-test-key", {"api-key": tests})
    where.secret("marginal-valkey", {"password": os.urandom(32).hex()})
    for namespace in (where, callers):
        namespace.secret("caller", {"api-key": mine, "ca.crt": tls["ca.crt"]})
    return identity.ca


@pytest.fixture(scope="module")
def production(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    cluster, name = release.namespace.cluster, f"{release.namespace.name}-callers"
    with cluster.namespace(name) as callers:
        ca = secrets(release, callers, tmp_path_factory.mktemp("secrets"))
        example = yaml.safe_load((CHART / "examples" / "production.yaml").read_text())
        peers = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}]
        began = time.monotonic()
        release.put(merged(merged(example, OWN), {"networkPolicy": {"callers": peers}}))
        yield Production(release, callers, ca, time.monotonic() - began)


def test_it_comes_up_and_is_tested_with_a_key(production: Production, figures: Figures) -> None:
    told, where = production.release.test(), production.release.namespace
    eventually(lambda: len(where.ready("small")) == 2, seconds=120, what="a second small model, by KEDA")
    eventually(lambda: production.status()["wrong"] == "nothing", seconds=60, what="nothing that is wrong")
    figures.tell("production", ready_seconds=production.ready_seconds, test=told, status=production.status())
    assert "Phase:          Succeeded" in told
    assert "by small" in told
    assert len(where.ready("router")) == 2


def test_only_named_callers_get_through_and_only_with_a_key_over_tls(production: Production, figures: Figures) -> None:
    where, inside = production.callers, production.release.namespace
    one, ca, key = (production.router, "1", "small", "10", "1"), WAYS[0], WAYS[1]
    asked = {
        "without-a-key": where.run("without-a-key", "calls.py", *one, ca, secrets=["caller"]),
        "without-tls": where.run("without-tls", "calls.py", *one, key, secrets=["caller"]),
        "not-named": inside.run("not-named", "calls.py", *one, ca, key, secrets=["caller"]),
    }
    refused = {name: pod.ended()[0]["failed"] for name, pod in asked.items()}
    figures.tell("production-refused", **refused)
    assert refused["without-a-key"].startswith("UNAUTHENTICATED")
    assert refused["without-tls"].startswith("UNAVAILABLE")
    assert refused["not-named"].startswith(("UNAVAILABLE", "DEADLINE_EXCEEDED"))


def test_two_routers_wake_the_large_tier_together_and_let_it_go(production: Production, figures: Figures) -> None:
    where = production.release.namespace
    eventually(lambda: where.replicas("marginal-large") == (0, 0), seconds=180, what="a large tier at zero")
    routers = where.ready("router")
    with ExitStack() as stack:
        seen = [stack.enter_context(timeline(production.release, router)) for router in routers]
        eventually(lambda: all(one.points for one in seen), seconds=60, what="demand from both routers")
        load = production.run("crowd", "large").started()
        eventually(lambda: len(where.ready("large")) == 2, seconds=180, what="two large models")
        busy = time.time()
        time.sleep(5)
        lines = production.charged(load.end())
        eventually(lambda: where.replicas("marginal-large") == (0, 0), seconds=300, what="the large tier at zero")
        time.sleep(3)
    told = [steady(one, busy, busy + 5) for one in seen]
    waits = [(line["began"] - seen[0].began, line["first_seconds"]) for line in lines if line["first_seconds"]]
    (figures.folder / "production-wakes-calls.json").write_text(json.dumps({"points": seen[0].points, "calls": lines}))
    draw_timeline(figures.folder / "production.png", seen[0].points, waits)
    figures.tell("production-wakes", steps=seen[0].steps(), demand_told=told, **calls(lines))
    assert not [line for line in lines if line["failed"] or line["degraded"]]
    assert seen[0].steps() == [0, 1, 2, 1, 0]
    assert min(told) > CALLERS / 2  # of its own callers alone, one of the two has half of them at most


def test_the_cost_records_of_both_routers_are_what_the_shared_budget_has(
    production: Production, figures: Figures
) -> None:
    lines = production.charged(production.run("buyers", "auto", altogether=200).ended())
    budget, records = production.settled(), production.records()
    each = [one.get(TENANT, {"requests": 0, "nanos": 0}) for one in records.values()]
    figures.tell("production-budget", budget=budget, told_callers=production.charged_nanos, records=records)
    assert not [line for line in lines if line["failed"]]
    assert [bool(one["requests"]) for one in each] == [True, True]
    assert sum(one["nanos"] for one in each) == budget["spent_nanos"] == production.charged_nanos
    assert production.budget("day")["limit_nanos"] == 20_000_000_000


def test_new_routers_fail_no_call_and_know_the_budget(production: Production, figures: Figures) -> None:
    load = production.run("callers", "auto").started()
    eventually(lambda: len(load.lines()) > 50, seconds=120, what="calls")
    began = time.monotonic()
    production.release.namespace.restart("router")
    took = time.monotonic() - began
    time.sleep(5)
    lines = production.charged(load.end())
    budget = production.settled()
    figures.tell("production-restart", restart_seconds=took, budget=budget, **calls(lines))
    assert not [line["failed"] for line in lines if line["failed"]]
    assert budget["spent_nanos"] == production.charged_nanos


def steady(seen: Timeline, begins: float, ends: float) -> float:
    """The mean of the demand that a router told meanwhile, in Unix time."""
    told = [point["demand"] for point in seen.points if begins <= seen.began + point["at"] <= ends]
    return round(sum(told) / len(told), 2)
