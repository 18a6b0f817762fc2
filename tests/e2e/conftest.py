"""What `make e2e` is told by the environment.

| variable | meaning | default |
|---|---|---|
| KUBECONFIG | the cluster; namespaces that begin with marginal-e2e- are made and deleted there | |
| E2E_ROUTER_IMAGE, E2E_MODEL_IMAGE, E2E_CLI_IMAGE | NAME:TAG | marginal/...:dev |
| E2E_VALKEY_IMAGE | the same of Valkey | the chart's, pulled |
| E2E_LOAD_IMAGE | a command that brings the image tar named after it into the cluster | nothing is brought |
| E2E_TARS | where the tars are: router.tar, model.tar, cli.tar, and valkey.tar if it is there | .tools/images |
| E2E_HELM | another helm | the pinned one |
| E2E_KUBECTL | another kubectl | the one on the PATH |
| E2E_WITHOUT | `keda`, `metrics`: the cluster has no KEDA, no metrics of CPU, and what needs them is skipped | |
| E2E_OUTPUT | where figures and pictures go | .marginal/e2e |
"""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster import COMPONENT, Cluster, Namespace, eventually
from e2e.figures import Figures
from e2e.releases import SMALL_PODS, Release

ROOT = Path(__file__).resolve().parents[2]
IMAGES = {
    name: os.environ.get(f"E2E_{name.upper()}_IMAGE", f"marginal/{name}:dev") for name in ("router", "model", "cli")
}
HELM = os.environ.get("E2E_HELM", str(Path(sys.executable).with_name("helm")))
TIMED = {
    "small": "scripted:tokens=10,delay_ms=20,unsure=0.3",
    "large": "scripted:tokens=10,delay_ms=20",
}
"""Tiers that take the same time wherever the cluster is; three in ten questions are deferred."""


def image(named: str) -> dict[str, str]:
    repository, _, tag = named.rpartition(":")
    return {"repository": repository, "tag": tag}


BASE: dict[str, Any] = {
    "defaults": {"image": image(IMAGES["model"]), "resources": SMALL_PODS},
    "router": {"image": image(IMAGES["router"]), "resources": SMALL_PODS},
    "test": {"image": image(IMAGES["cli"])},
    "valkey": {"own": {"image": image(os.environ["E2E_VALKEY_IMAGE"])} if "E2E_VALKEY_IMAGE" in os.environ else {}},
    "longestStreamSeconds": 120,
}


@pytest.fixture(scope="session")
def figures() -> Figures:
    return Figures(Path(os.environ.get("E2E_OUTPUT", str(ROOT / ".marginal" / "e2e"))))


@pytest.fixture(scope="session")
def cluster(figures: Figures) -> Cluster:
    if not os.environ.get("KUBECONFIG"):
        pytest.fail("KUBECONFIG is not set: these tests need a cluster that they may use")
    if load := os.environ.get("E2E_LOAD_IMAGE"):
        tars = Path(os.environ.get("E2E_TARS", str(ROOT / ".tools" / "images")))
        own = [tars / f"{name}.tar" for name in IMAGES]
        for tar in (*own, *tars.glob("valkey.tar")):
            subprocess.run([*shlex.split(load), str(tar)], check=True)  # noqa: S603
    cluster = Cluster(os.environ.get("E2E_KUBECTL", "kubectl"), os.environ["KUBECONFIG"], IMAGES["router"])
    figures.tell("versions", kubernetes=cluster.version, images=IMAGES)
    return cluster


@pytest.fixture(scope="module")
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Namespace]:
    """One for each module."""
    with cluster.namespace("marginal-e2e-" + request.path.stem.removeprefix("test_").replace("_", "-")) as made:
        yield made


@pytest.fixture(scope="module")
def release(namespace: Namespace) -> Iterator[Release]:
    """One that is not installed yet; with pods that may take their time to end, a namespace would end slowly."""
    release = Release(HELM, namespace, BASE)
    yield release
    release.uninstall()
    release_pods = ("pods", "--selector", f"{COMPONENT} in (router, small, large)")
    eventually(lambda: not namespace.get(*release_pods)["items"], seconds=200, what="end of all pods")


@pytest.fixture(scope="module")
def pair(release: Release) -> Release:
    """Two of each kind, with models that take a known time."""
    tiers = {name: {"engine": {"embedded": {"model": model}}} for name, model in TIMED.items()}
    release.put({"defaults": {"replicas": 2}, "tiers": tiers})
    return release
