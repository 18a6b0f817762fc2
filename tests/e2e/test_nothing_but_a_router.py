"""Both tiers are at zero when nobody asks: the router alone is kept, and wakes what a call, or its own start, needs."""

import os
from typing import Any

import pytest

from e2e.cluster import eventually
from e2e.figures import Figures, calls
from e2e.needs import needs_keda
from e2e.releases import SMALL_PODS, Release
from e2e.test_large_tier_at_zero import POLICY

SLEEPER = {
    "kind": "keda",
    "minReplicas": 0,
    "maxReplicas": 2,
    "cooldownSeconds": 15,
    "pollingSeconds": 5,
    "scaleDownStabilizationSeconds": 5,
}
VALUES: dict[str, Any] = {
    "policies": POLICY,
    "valkey": {
        "kind": "own",
        "passwordSecret": {"name": "store"},
        "own": {"storage": {"kind": "emptyDir"}, "resources": SMALL_PODS},
    },
    "tiers": {
        "small": {
            "engine": {"embedded": {"model": "scripted:tokens=8,delay_ms=5,unsure=1"}},
            "autoscaling": SLEEPER,
        },
        "large": {"engine": {"embedded": {"model": "scripted:tokens=8,delay_ms=5"}}, "autoscaling": SLEEPER},
    },
}

pytestmark = needs_keda


@pytest.fixture(scope="module")
def asleep(release: Release) -> Release:
    """Both tiers have gone to zero, the router is ready."""
    release.namespace.secret("store", {"password": os.urandom(16).hex()})
    release.put(VALUES)
    until_asleep(release)
    return release


def until_asleep(release: Release) -> None:
    def replicas() -> list[tuple[int, int]]:
        return [release.namespace.replicas(f"marginal-{tier}") for tier in ("small", "large")]

    eventually(lambda: replicas() == [(0, 0), (0, 0)], seconds=180, what="two tiers at zero")


def test_a_call_wakes_the_small_tier_and_its_deferral_the_large_one(asleep: Release, figures: Figures) -> None:
    [line] = asleep.namespace.run("first", "calls.py", asleep.router, "1", "auto", "120", "1").ended()
    figures.tell("both-at-zero", first_waited_seconds=line["first_seconds"], **calls([line]))
    assert not line["failed"]
    assert not line["degraded"]
    assert line["tiers_asked"] == ["TIER_SMALL", "TIER_LARGE"]


def test_a_router_that_starts_wakes_the_small_tier_to_be_ready(asleep: Release) -> None:
    until_asleep(asleep)
    asleep.namespace.restart("router")
    assert len(asleep.namespace.ready("router")) == 1
    assert asleep.namespace.replicas("marginal-large") == (0, 0)
