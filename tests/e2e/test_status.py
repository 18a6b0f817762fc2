"""`marginal status` from a machine that has nothing but a kubeconfig: a release as it is, and what is wrong with it."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster import Namespace, eventually
from e2e.command_line import marginal, meanwhile
from e2e.conftest import TIMED
from e2e.figures import Figures
from e2e.needs import needs_keda
from e2e.releases import Release, merged
from e2e.test_policies import POLICIES

pytestmark = needs_keda
VALUES: dict[str, Any] = {
    "policies": POLICIES.format(version="7", threshold=0.5) + "degrade = { wake_seconds = 60.0 }\n",
    "tiers": {
        "small": {"replicas": 2, "engine": {"embedded": {"model": TIMED["small"]}}},
        "large": {
            "engine": {"embedded": {"model": TIMED["large"]}},
            "autoscaling": {"kind": "keda", "maxReplicas": 1, "cooldownSeconds": 40, "pollingSeconds": 5},
        },
    },
}
"""A tier that is kept, and one that sleeps."""


def shown(where: Namespace, *options: str, fails: bool = False) -> str:
    """What the command shows; of one that `fails`, what it complains of."""
    return marginal(*asked(where), *options, fails=fails)


def asked(where: Namespace) -> tuple[str, ...]:
    return ("status", "--kubeconfig", where.cluster.kubeconfig, "--namespace", where.name)


def status(where: Namespace) -> Any:
    return json.loads(shown(where, "--json"))


@pytest.fixture(scope="module")
def sleeping(release: Release) -> Release:
    """A release whose large tier is at zero."""
    release.put(VALUES)
    return asleep(release)


def asleep(release: Release) -> Release:
    where = release.namespace
    eventually(lambda: where.replicas("marginal-large") == (0, 0), seconds=300, what="a large tier at zero")
    eventually(lambda: where.replicas("marginal-small") == (2, 2), seconds=180, what="a small tier of two")
    return release


def test_a_release_is_shown_as_it_is(sleeping: Release, figures: Figures) -> None:
    where = sleeping.namespace
    lines = where.run("callers", "calls.py", sleeping.router, "4", "auto", "120", "40").ended()
    seen, table = status(where), shown(where)
    (figures.folder / "status.txt").write_text(table)
    figures.tell("status", **seen)
    assert seen["wrong"] == "nothing"
    assert [(one["component"], one["desired"], one["scaler"], one["least"], one["most"]) for one in seen["tiers"]] == [
        ("router", 1, "none", None, None),
        ("small", 2, "none", None, None),
        ("large", 1, "keda", 0, 1),
    ]
    [policy] = seen["policies"]["policies"]
    [tenant] = policy["criteria"][0]["tenants"]
    deferred = sum(line["tier"] == "TIER_LARGE" for line in lines) / len(lines)
    assert (policy["version"], tenant["threshold"], tenant["requests"]) == ("7", 0.5, len(lines))
    assert tenant["deferral_share"] == pytest.approx(deferred, abs=0.001)
    assert {one["spent_nanos"] for one in seen["budgets"]} == {sum(line["nanos"] for line in lines)}
    assert "\nsmall" in table
    assert "keda, 0 to 1" in table


def test_a_tier_at_zero_is_wrong_only_while_it_is_wanted(sleeping: Release, figures: Figures, tmp_path: Path) -> None:
    where, written = asleep(sleeping).namespace, tmp_path / "watched"
    with meanwhile(written, *asked(where), "--watch", "--json"):
        eventually(lambda: written.read_text().count("\n"), seconds=30, what="a first look")
        [line] = where.run("caller", "calls.py", sleeping.router, "1", "large", "120", "1").ended()
        eventually(lambda: where.ready("large"), seconds=60, what="a large model")
        time.sleep(5)
    seen = [json.loads(one) for one in written.read_text().splitlines()]
    told = [(one["tiers"][2]["ready"], one["tiers"][2]["demand"], one["wrong"]) for one in seen]
    figures.tell("status-at-zero", told=told, first_seconds=line["first_seconds"])
    assert not line["failed"]
    assert {wrong for ready, _, wrong in told if ready} == {"nothing"}
    assert told[0] == (0, 0.0, "nothing")
    complaints = {wrong for _, _, wrong in told} - {"nothing"}
    assert complaints
    assert all(one.startswith("no replica of the large tier is ready") for one in complaints)


def test_a_pod_that_cannot_start_is_named_with_the_reason(sleeping: Release, figures: Figures) -> None:
    where = sleeping.namespace
    sleeping.put(merged(VALUES, {"tiers": {"small": {"image": {"tag": "nowhere"}}}}), wait=False)
    seen = eventually(lambda: (told := status(where))["wrong"] != "nothing" and told, seconds=60, what="a complaint")
    table = shown(where)
    (figures.folder / "status-wrong-image.txt").write_text(table)
    figures.tell("status-wrong-image", wrong=seen["wrong"], warnings=seen["warnings"])
    sleeping.put(VALUES)
    eventually(lambda: status(where)["wrong"] == "nothing", seconds=60, what="nothing that is wrong")
    assert "marginal-small" in seen["wrong"]
    assert "ErrImagePull" in seen["wrong"] or "ImagePullBackOff" in seen["wrong"]


def test_a_namespace_without_a_release_is_said_to_have_none(namespace: Namespace) -> None:
    with namespace.cluster.namespace(f"{namespace.name}-empty") as empty:
        assert f"there is no release of Marginal in namespace {empty.name}" in " ".join(
            shown(empty, fails=True).split()
        )
