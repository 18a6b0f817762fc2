"""The large tier is at zero until a small model is unsure, and goes back when nobody wants it any more."""

import json
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from e2e.cluster import eventually
from e2e.figures import Figures, calls, draw_timeline
from e2e.needs import needs_keda
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
                "cooldownSeconds": 40,
                "pollingSeconds": 5,
                "scaleDownStabilizationSeconds": 5,
                "scaleDownPercentPerMinute": 100,
            },
        },
    },
}


class Timeline:
    """Demand as the router tells it, replicas as Kubernetes counts them."""

    def __init__(self, release: Release) -> None:
        self._namespace = release.namespace
        self.began = time.time()
        self.points: list[dict[str, float]] = []

    def follow(self, told: Iterable[str]) -> None:
        """Takes the lines of `pods/demand.py` until they end."""
        for line in told:
            seen = json.loads(line)
            replicas, ready = self._namespace.replicas("marginal-large")
            at = seen["at"] - self.began
            self.points.append({"at": at, "demand": seen["demand"], "replicas": replicas, "ready": ready})

    def steps(self) -> list[int]:
        """The replicas wanted, each change once."""
        counts = [int(point["replicas"]) for point in self.points]
        return [count for count, before in zip(counts, [None, *counts], strict=False) if count != before]


@contextmanager
def timeline(release: Release, router: str = "") -> Iterator[Timeline]:
    """What the pod `router` tells meanwhile; "" is any that is ready."""
    where, seen = release.namespace, Timeline(release)
    with where.running(router or where.ready("router")[0], "demand.py") as script:
        following = threading.Thread(target=seen.follow, args=(script.stdout,))
        following.start()
        try:
            yield seen
        finally:
            script.kill()
            following.join()


@needs_keda
def test_a_deferral_wakes_the_large_tier_and_load_takes_it_to_two_and_back_to_none(
    release: Release, figures: Figures
) -> None:
    where = release.namespace
    release.put(VALUES)
    eventually(lambda: where.replicas("marginal-large") == (0, 0), seconds=180, what="a large tier at zero")
    with timeline(release) as seen:
        time.sleep(3)
        [first] = where.run("first", "calls.py", release.router, "1", "auto", "120", "1").ended()
        load = where.run("crowd", "calls.py", release.router, str(CALLERS), "auto", "120", "0").started()
        eventually(lambda: len(where.ready("large")) == 2, seconds=180, what="two large models")
        time.sleep(5)
        crowd = load.end()
        eventually(lambda: where.replicas("marginal-large") == (0, 0), seconds=300, what="the large tier at zero")
        time.sleep(3)

    lines = [first, *crowd]
    waits = [(line["began"] - seen.began, line["first_seconds"]) for line in lines]
    (figures.folder / "timeline.json").write_text(json.dumps({"points": seen.points, "waits": waits}))
    draw_timeline(figures.folder / "timeline.png", seen.points, waits)
    figures.tell("large-at-zero", steps=seen.steps(), first_waited_seconds=first["first_seconds"], **calls(lines))
    assert not [line for line in lines if line["failed"] or line["degraded"]]
    assert first["tiers_asked"] == ["TIER_SMALL", "TIER_LARGE"]
    assert seen.steps() == [0, 1, 2, 1, 0]
