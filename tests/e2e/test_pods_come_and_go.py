"""Callers notice nothing of a rollout, and of a pod that dies only those whose answer it had begun."""

import time

import pytest

from e2e.cluster import Namespace, eventually
from e2e.figures import Figures, calls
from e2e.releases import Release, merged

CALLERS = 8
KINDS = ("router", "small", "large")


def test_restarts_of_everything_fail_no_call_in_a_thousand(pair: Release, figures: Figures) -> None:
    load = pair.namespace.run("callers", "calls.py", pair.router, str(CALLERS), "auto", "30", "0").started()
    eventually(lambda: len(load.lines()) > 50, seconds=60, what="calls")
    before = {kind: set(pair.namespace.ready(kind)) for kind in KINDS}
    for kind in KINDS:
        pair.namespace.restart(kind)
    after = {kind: set(pair.namespace.ready(kind)) for kind in KINDS}
    eventually(lambda: len(load.lines()) >= 1_000, seconds=300, what="a thousand calls", every=2)
    seen = calls(load.end())
    figures.tell("rolling-restart", **seen)
    assert [len(pods) for pods in (*before.values(), *after.values())] == [2] * 6
    assert all(before[kind].isdisjoint(after[kind]) for kind in KINDS)
    assert (seen["failed"], seen["degraded"]) == (0, 0), seen
    assert seen["calls"] >= 1_000
    assert seen["deferred"] > 100


@pytest.mark.parametrize("kind", KINDS)
def test_a_pod_that_is_killed_takes_only_the_answers_it_had_begun(pair: Release, figures: Figures, kind: str) -> None:
    where = pair.namespace
    eventually(lambda: len(where.ready(kind)) == 2, seconds=120, what="two pods")
    load = where.run("callers", "calls.py", pair.router, str(CALLERS), "auto", "30", "0", "retry").started()
    eventually(lambda: len(load.lines()) > 50, seconds=60, what="calls")
    killed, before = where.ready(kind)[0], where.lives()
    at = where.kill(killed)
    eventually(lambda: where.lives()[killed] > before[killed], seconds=60, what="another start of its program")
    eventually(lambda: len(where.ready(kind)) == 2, seconds=120, what="two pods that are ready")
    lines = load.end()
    open_then = [line for line in lines if line["began"] <= at <= line["began"] + line["seconds"]]
    seen = calls(lines)
    figures.tell(f"killed-{kind}", **seen, open_at_the_kill=len(open_then))
    assert CALLERS / 2 <= len(open_then) <= CALLERS  # the others are between two calls
    assert seen["failed"] <= len(open_then), seen
    assert seen["degraded"] == 0, seen
    assert seen["failed_before_the_first_token"] == 0, seen


def test_a_pod_that_is_told_to_end_while_its_program_starts_does_not_linger(pair: Release, figures: Figures) -> None:
    where, kept = pair.namespace, pair.values
    pair.put(merged(kept, {"tiers": {"large": {"shutdown": {"preStopSeconds": 0}}}}))
    before = where.lives().keys()
    where.kubectl("delete", "pod", where.ready("large")[0], "--wait=false")
    [starting] = eventually(lambda: running(where) - before, seconds=60, what="a program that starts", every=0.1)
    began = time.monotonic()
    where.kubectl("delete", "pod", starting, "--timeout", "200s")
    took = time.monotonic() - began
    pair.put(kept)
    figures.tell("ended-while-starting", seconds=took)
    assert took < 30


def running(where: Namespace) -> set[str]:
    """The large models whose program has been started, ready or not."""
    return {
        pod["metadata"]["name"]
        for pod in where.pods("large")
        if any("running" in one["state"] for one in pod["status"].get("containerStatuses", ()))
    }


def test_values_scale_each_tier(pair: Release, figures: Figures) -> None:
    took = {}
    for kind in ("small", "large"):
        for replicas in (3, 1):
            began = time.monotonic()
            pair.put(merged(pair.values, {"tiers": {kind: {"replicas": replicas}}}))
            eventually(lambda: len(pair.namespace.ready(kind)) == replicas, seconds=180, what=f"{replicas} of {kind}")  # noqa: B023
            took[f"{kind} to {replicas}"] = round(time.monotonic() - began, 1)
    lines = pair.namespace.run("after", "calls.py", pair.router, "1", "auto", "30", "20").ended()
    figures.tell("scale", seconds=took, **calls(lines))
    assert not [line for line in lines if line["failed"] or line["degraded"]]
