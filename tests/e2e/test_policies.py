"""A policy is changed by an upgrade, and no process notices but the routers."""

from e2e.cluster import eventually
from e2e.figures import Figures, calls
from e2e.releases import Release, merged

POLICIES = """
default = "default"
currency = "USD"
[prices.small]
per_call = 0.001
[prices.large]
per_call = 0.01
[policies.default]
version = "{version}"
score = "min_margin"
window = 8
threshold = {{ rule = "fixed", value = {threshold} }}
"""


def test_an_upgrade_changes_the_policy_without_a_restart(pair: Release, figures: Figures) -> None:
    lives = pair.namespace.lives()
    load = pair.namespace.run("callers", "calls.py", pair.router, "2", "auto", "30", "0").started()
    eventually(load.lines, seconds=60, what="a first answer")

    kept = pair.values
    pair.put(merged(kept, {"policies": POLICIES.format(version="kept", threshold=0.0)}))
    eventually(
        lambda: versions(load.lines()[-20:]) == {"kept"}, seconds=120, what="the new policy at every router", every=2
    )
    lines = load.end()

    figures.tell("policy", **calls(lines), versions=sorted(versions(lines)))
    assert pair.namespace.lives() == lives
    assert not [line["failed"] for line in lines if line["failed"]]
    assert versions(lines) == {"1", "kept"}
    assert {line["tier"] for line in lines if line["policy_version"] == "kept"} == {"TIER_SMALL"}


def versions(lines: list[dict[str, str]]) -> set[str]:
    return {line["policy_version"] for line in lines if not line["failed"]}
