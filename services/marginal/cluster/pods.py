"""Pods as the API server has them: whether one is ready, and why one cannot start."""

from collections.abc import Iterator, Mapping
from typing import Any

from marginal.cluster.api import Object

STARTING = ("ContainerCreating", "PodInitializing")
PULLED = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
OVER = ("Succeeded", "Failed")


def is_ready(pod: Object) -> bool:
    """Whether it takes calls, and is not about to end."""
    ready = any(one.get("type") == "Ready" and one.get("status") == "True" for one in _conditions(pod))
    return ready and not pod["metadata"].get("deletionTimestamp")


def why_not_started(pod: Object) -> str:
    """Why it cannot start, in words; "" when it did, or still may."""
    if pod["metadata"].get("deletionTimestamp") or pod.get("status", {}).get("phase") in OVER:
        return ""
    why = next(_hindrances(pod), "")
    return f"pod {pod['metadata']['name']} cannot start: {why}" if why else ""


def _hindrances(pod: Object) -> Iterator[str]:
    for one in _conditions(pod):
        if one.get("type") == "PodScheduled" and one.get("reason") == "Unschedulable":
            yield f"no node takes it, {one.get('message', 'it says not why')}"
    status = pod.get("status", {})
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        waiting = container.get("state", {}).get("waiting") or {}
        reason = str(waiting.get("reason") or "")
        if reason in PULLED:
            yield f"its image {container.get('image', '')} cannot be had ({reason})"
        elif reason == "CrashLoopBackOff":
            yield f"its program {container.get('name', '')} ends again and again, {_end(container)}"
        elif reason and reason not in STARTING:
            yield f"{reason}, {waiting.get('message') or 'it says not why'}"


def _end(container: Mapping[str, Any]) -> str:
    last = container.get("lastState", {}).get("terminated") or {}
    if last.get("reason") == "OOMKilled":
        return "last for want of memory"
    return f"last with exit code {last.get('exitCode', 'unknown')}, see its log"


def _conditions(pod: Object) -> tuple[Mapping[str, Any], ...]:
    return tuple(pod.get("status", {}).get("conditions") or ())
