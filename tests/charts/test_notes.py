"""What Helm says after an install or an upgrade."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from charts.rendering import CHART, Object, example, helm, of_kind, rendered

ONE_WITHOUT_ANOTHER = "tiers: {small: {rollout: {maxSurge: 0, maxUnavailable: 1}}}"
OUTAGE = "! Small: with one replica and maxSurge 0 each new version is an outage for as long as it takes to start"
SCALED = "tiers: {small: {autoscaling: {kind: hpa, minReplicas: 2}}}"
DEPLOYMENTS = "/apis/apps/v1/namespaces/marginal/deployments"
SCALERS = "/apis/autoscaling/v2/namespaces/marginal/horizontalpodautoscalers"


class Notes:
    """Renders the notes, which `helm template` leaves out."""

    def __init__(self, chart: Path) -> None:
        """Makes a chart of the notes alone."""
        self._chart = chart
        shutil.copytree(CHART, chart)
        templates = chart / "templates"
        text = (templates / "NOTES.txt").read_text()
        for path in templates.rglob("*.yaml"):
            path.unlink()
        shown = 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: n}\ndata: {text: {{ include "shown" . | toJson }}}\n'
        (templates / "shown.yaml").write_text('{{- define "shown" }}' + text + "{{ end -}}\n" + shown)

    def __call__(self, values: str, *flags: str) -> str:
        """The notes of values; with `flags` of Helm, those of an upgrade."""
        arguments = ("template", "marginal", str(self._chart), "--namespace", "marginal", "--values", "-")
        if not flags:
            flags = ("--kube-version", "1.35.0")
        return str(yaml.safe_load(helm(*arguments, *flags, given=values or "{}"))["data"]["text"])


class Cluster(BaseHTTPRequestHandler):
    """An API server that has the objects of a release, by path, and knows the kinds that the notes ask for."""

    objects: Mapping[str, Object]

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        body = self.known().get(path) or self.objects.get(path)
        self.send_response(200 if body else 404)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
        self.wfile.write(json.dumps(body or missing).encode())

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    @staticmethod
    def known() -> dict[str, Any]:
        kinds = {
            "/api/v1": {"configmaps": "ConfigMap"},
            "/apis/apps/v1": {"deployments": "Deployment", "statefulsets": "StatefulSet"},
            "/apis/autoscaling/v2": {"horizontalpodautoscalers": "HorizontalPodAutoscaler"},
        }
        versions = [
            {"groupVersion": path.removeprefix("/apis/"), "version": path.rpartition("/")[2]}
            for path in kinds
            if path.startswith("/apis/")
        ]
        groups = [{"name": one["groupVersion"].partition("/")[0], "versions": [one]} for one in versions]
        lists = {
            path: {
                "kind": "APIResourceList",
                "groupVersion": path.removeprefix("/apis/").removeprefix("/api/"),
                "resources": [
                    {"name": name, "kind": kind, "namespaced": True, "verbs": ["get"]} for name, kind in named.items()
                ],
            }
            for path, named in kinds.items()
        }
        return lists | {
            "/version": {"major": "1", "minor": "35", "gitVersion": "v1.35.0"},
            "/api": {"kind": "APIVersions", "versions": ["v1"]},
            "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups},
        }


@contextmanager
def cluster(objects: Mapping[str, Object], directory: Path) -> Iterator[tuple[str, ...]]:
    """Flags by which Helm renders an upgrade of a release that is in a cluster."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Here", (Cluster,), {"objects": objects}))
    thread = Thread(target=server.serve_forever)
    thread.start()
    kubeconfig = directory / "kubeconfig"
    here = {"name": "here", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
    context = {"name": "here", "context": {"cluster": "here", "user": ""}}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [here],
        "contexts": [context],
    }
    kubeconfig.write_text(json.dumps(config))  # JSON is YAML
    try:
        yield ("--is-upgrade", "--dry-run=server", "--kubeconfig", str(kubeconfig))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="session")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Notes:
    return Notes(tmp_path_factory.mktemp("charts") / "marginal")


def test_without_keys_the_fence_is_the_namespace_and_the_notes_say_so(notes: Notes) -> None:
    [policy] = [one for one in of_kind(rendered(), "NetworkPolicy") if one["metadata"]["name"] == "marginal-router"]
    assert policy["spec"]["ingress"][0]["from"] == [{"podSelector": {}}]
    assert "No API keys: every pod of namespace marginal can call" in notes("")


def test_the_notes_begin_with_a_call_that_can_be_typed(notes: Notes) -> None:
    assert "port-forward service/marginal-router 50051 &\n  marginal ask " in notes("")
    secured = "--api-key-file api-key --tls-ca ca.crt --tls-name marginal-router.marginal.svc ask "
    assert secured in notes(example("production"))
    assert "No API keys" not in notes(example("production"))


def test_the_notes_say_who_may_fetch_metrics(notes: Notes) -> None:
    told = "metrics: port 9464 of every pod, /metrics, for "
    assert told + "networkPolicy.scrapers; ServiceMonitor marginal\n" in notes(example("production"))
    assert told + "everybody\n" in notes("{metrics: {enabled: true}, networkPolicy: {scrapers: []}}")
    assert "metrics: " not in notes("")


def test_the_notes_say_when_a_new_version_is_an_outage(notes: Notes) -> None:
    assert OUTAGE in notes(ONE_WITHOUT_ANOTHER)
    assert "! Large: with one replica" in notes(example("sidecar-vllm"))
    assert "an outage" not in notes("{defaults: {replicas: 2, rollout: {maxSurge: 0, maxUnavailable: 1}}}")
    assert "an outage" not in notes("")


def test_an_upgrade_says_when_a_scaler_takes_over_from_a_number(notes: Notes, tmp_path: Path) -> None:
    of_three = {
        f"{DEPLOYMENTS}/marginal-small": {"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 3}}
    }
    scaler = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "marginal-small"}}
    with cluster(of_three, tmp_path) as flags:
        assert "! Small: hpa is new here." in notes(SCALED, *flags)
        assert "made one of its 3 replicas" in notes(SCALED, *flags)
        assert "is new here" not in notes("", *flags)
    with cluster(of_three | {f"{SCALERS}/marginal-small": scaler}, tmp_path) as flags:
        assert "is new here" not in notes(SCALED, *flags)
    assert "is new here" not in notes(SCALED)
