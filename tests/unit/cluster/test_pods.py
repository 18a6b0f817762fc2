"""Why a pod cannot start, from what the API server writes of it."""

from typing import Any

import pytest

from marginal.cluster.pods import is_ready, why_not_started


def pod(
    *conditions: dict[str, str], phase: str = "Pending", deleted: bool = False, **container: dict[str, Any]
) -> dict[str, Any]:
    metadata = {"name": "main-small-7"} | ({"deletionTimestamp": "2026-11-25T01:00:00Z"} if deleted else {})
    status = [{"name": "small", "image": "marginal/model:nowhere", **container}] if container else []
    return {"metadata": metadata, "status": {"phase": phase, "conditions": conditions, "containerStatuses": status}}


def waits(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


UNSCHEDULABLE = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/1 nodes are available: 1 Insufficient cpu.",
}


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (pod(), ""),
        (pod(state=waits("ContainerCreating")), ""),
        (pod(state={"running": {}}, phase="Running"), ""),
        (pod(state=waits("ErrImagePull"), deleted=True), ""),
        (pod(state=waits("ErrImagePull"), phase="Failed"), ""),
        (pod(state=waits("ErrImagePull", "long")), "its image marginal/model:nowhere cannot be had (ErrImagePull)"),
        (
            pod(state=waits("CrashLoopBackOff"), lastState={"terminated": {"exitCode": 2, "reason": "Error"}}),
            "its program small ends again and again, last with exit code 2, see its log",
        ),
        (
            pod(state=waits("CrashLoopBackOff"), lastState={"terminated": {"exitCode": 137, "reason": "OOMKilled"}}),
            "its program small ends again and again, last for want of memory",
        ),
        (
            pod(state=waits("CreateContainerConfigError", 'secret "keys" not found')),
            'CreateContainerConfigError, secret "keys" not found',
        ),
        (pod(UNSCHEDULABLE), "no node takes it, 0/1 nodes are available: 1 Insufficient cpu."),
    ],
)
def test_a_pod_that_cannot_start_says_why(found: dict[str, Any], why: str) -> None:
    assert why_not_started(found) == (f"pod main-small-7 cannot start: {why}" if why else "")


@pytest.mark.parametrize(
    ("status", "deleted", "ready"), [("True", False, True), ("False", False, False), ("True", True, False)]
)
def test_a_pod_is_ready_until_it_is_to_end(status: str, deleted: bool, ready: bool) -> None:
    assert is_ready(pod({"type": "Ready", "status": status}, deleted=deleted)) is ready
