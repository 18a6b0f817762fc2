"""A tier under a HorizontalPodAutoscaler: a small model that works hard is joined by another, and is alone again."""

import json
import time
from typing import Any

from e2e.cluster import Namespace, eventually
from e2e.command_line import marginal
from e2e.figures import Figures, calls
from e2e.needs import needs_metrics
from e2e.releases import SMALL_PODS, Release, merged

MOST = 2
VALUES: dict[str, Any] = {
    "tiers": {
        "small": {
            "resources": merged(SMALL_PODS, {"requests": {"cpu": "100m"}}),
            "autoscaling": {
                "kind": "hpa",
                "minReplicas": 1,
                "maxReplicas": MOST,
                "cpuPercent": 60,
                "scaleDownStabilizationSeconds": 15,
                "scaleDownPercentPerMinute": 100,
            },
        }
    }
}
"""A replica is for 60 millicores: a caller who does not rest takes far more, one who rests for two seconds far less."""


@needs_metrics
def test_load_takes_a_tier_to_two_and_back_to_one(release: Release, figures: Figures) -> None:
    where = release.namespace
    release.put(VALUES)
    eventually(lambda: small(where)["wrong"] == "nothing", seconds=180, what="an autoscaler that has seen CPU", every=2)
    began = time.monotonic()
    rush = where.run("rush", "calls.py", release.router, "4", "small", "60", "0").started()
    eventually(lambda: len(where.ready("small")) == MOST, seconds=300, what="another small model")
    up = time.monotonic() - began
    shown = small(where)["tiers"][1]
    time.sleep(5)
    rest = where.run("rest", "calls.py", release.router, "2", "small", "60", "0", "pause=2").started()
    lines, began = rush.end(), time.monotonic()
    eventually(lambda: where.replicas("marginal-small") == (1, 1), seconds=400, what="one small model")
    down = time.monotonic() - began
    time.sleep(5)
    lines += rest.end()
    figures.tell("hpa", up_seconds=up, down_seconds=down, shown=shown, **calls(lines))
    assert (shown["scaler"], shown["least"], shown["most"], shown["ready"]) == ("hpa", 1, MOST, MOST)
    assert not [line for line in lines if line["failed"]]


def small(where: Namespace) -> Any:
    """What `marginal status` says."""
    return json.loads(marginal("status", "--kubeconfig", where.cluster.kubeconfig, "-n", where.name, "--json"))
