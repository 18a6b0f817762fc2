"""The large tier is at zero until a small model is unsure, and goes back when nobody wants it any more."""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from e2e.cluster import PYTHON, SCRIPTS, eventually
from e2e.figures import Figures, calls, draw_timeline
from e2e.releases import Release
from e2e.test_policies import POLICIES

CALLERS = 8
POLICY = POLICIES.format(version="1", threshold=0.5) + "degrade = { wake_seconds = 60.0 }\n"
VALUES: dict[str, Any] = {
    "policies": POLICY,
    "tiers": {
        "small": {"engine": {"embedded": {"model": "scripted:tokens=8,delay_ms=5,unsure=1"}}},
        "large": {
            "engine": {"embedded": {"model": "scripted:tokens=40,delay_ms=50"}},
            "autoscaling": {
                "kind": "keda",
                "maxReplicas": 2,
                "target": 4,
                "cooldownSeconds": 20,
                "pollingSeconds": 5,
                "scaleDownStabilizationSeconds": 15,
                "scaleDownPercentPerMinute": 100,
            },
        },
    },
}


class Timeline:
    """Demand as the router tells it, replicas as Kubernetes counts them."""

    def __init__(self, release: Release) -> None:
        self._namespace = release.namespace
        script = (SCRIPTS / "demand.py").read_text()
        self._told = self._namespace.execute(self._namespace.ready("router")[0], PYTHON, "-c", script)
        self.began = time.time()
        self.points: list[dict[str, float]] = []

    def follow(self, until: threading.Event) -> None:
        while not until.is_set():
            line = self._told.readline_stdout(timeout=5)
            if not line:
                continue
            told = json.loads(line)
            status = self._namespace.replicas("marginal-large")
            point = {"demand": told["demand"], "replicas": status.replicas or 0, "ready": status.ready_replicas or 0}
            self.points.append({"at": told["at"] - self.began, **point})
        self._told.close()

    def steps(self) -> list[int]:
        """The replicas wanted, each change once."""
        counts = [int(point["replicas"]) for point in self.points]
        return [count for count, before in zip(counts, [None, *counts], strict=False) if count != before]


@contextmanager
def timeline(release: Release) -> Iterator[Timeline]:
    seen, over = Timeline(release), threading.Event()
    following = threading.Thread(target=seen.follow, args=(over,))
    following.start()
    try:
        yield seen
    finally:
        over.set()
        following.join()


@pytest.mark.skipif("keda" in os.environ.get("E2E_WITHOUT", ""), reason="E2E_WITHOUT says that there is no KEDA")
def test_a_deferral_wakes_the_large_tier_and_load_takes_it_to_two_and_back_to_none(
    release: Release, figures: Figures
) -> None:
    where = release.namespace
    release.put(VALUES)
    eventually(lambda: not where.replicas("marginal-large").replicas, seconds=180, what="a large tier at zero")
    with timeline(release) as seen:
        time.sleep(3)
        [first] = where.run("first", "calls.py", release.router, "1", "auto", "120", "1").ended()
        load = where.run("crowd", "calls.py", release.router, str(CALLERS), "auto", "120", "0").started()
        eventually(lambda: len(where.ready("large")) == 2, seconds=180, what="two large models")
        time.sleep(10)
        crowd = load.end()
        eventually(lambda: not where.replicas("marginal-large").replicas, seconds=300, what="the large tier at zero")
        time.sleep(3)

    lines = [first, *crowd]
    waits = [(line["began"] - seen.began, line["first_seconds"]) for line in lines]
    (figures.folder / "timeline.json").write_text(json.dumps({"points": seen.points, "waits": waits}))
    draw_timeline(figures.folder / "timeline.png", seen.points, waits)
    figures.tell("large-at-zero", steps=seen.steps(), first_waited_seconds=first["first_seconds"], **calls(lines))
    assert not [line for line in lines if line["failed"] or line["degraded"]]
    assert first["tiers_asked"] == ["TIER_SMALL", "TIER_LARGE"]
    assert seen.steps() == [0, 1, 2, 1, 0]
