"""What went wrong lately with the objects of one release: warning events, the latest first."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from marginal.cluster.api import Object
from marginal.cluster.pods import is_ready

MOST = 5


@dataclass(frozen=True, slots=True)
class Happening:
    """A warning event; `at` as the server writes it."""

    at: str
    about: str
    reason: str
    message: str
    times: int = 1


def latest(events: Sequence[Object], owned: Collection[str], pods: Sequence[Object]) -> tuple[Happening, ...]:
    """Those about the objects that are `owned`, by name, about the pods, and about pods that these once had.

    That a pod was not ready is no news when it is now, or is to end, or is gone.
    """
    unready = {_name(pod) for pod in pods if not is_ready(pod) and not pod["metadata"].get("deletionTimestamp")}
    names = {*owned, *map(_name, pods), *(claim for pod in pods for claim in _claims(pod))}
    ours = [
        one
        for one in events
        if (_about(one) in names or _maker(one) in owned)
        and (one.get("reason") != "Unhealthy" or _about(one) in unready)
    ]
    return tuple(sorted(map(_happening, ours), key=lambda one: one.at, reverse=True)[:MOST])


def _maker(event: Object) -> str:
    """The ReplicaSet or StatefulSet that a pod, maybe gone by now, is named after; "" for what is no pod."""
    return _about(event).rpartition("-")[0] if event.get("involvedObject", {}).get("kind") == "Pod" else ""


def _claims(pod: Object) -> Iterator[str]:
    """The volume claims that it mounts."""
    for volume in pod.get("spec", {}).get("volumes") or ():
        if claim := volume.get("persistentVolumeClaim"):
            yield str(claim.get("claimName", ""))


def _happening(event: Object) -> Happening:
    about = event.get("involvedObject", {})
    series = event.get("series") or {}
    at = series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime") or ""
    return Happening(
        str(at or event["metadata"].get("creationTimestamp", "")),
        f"{str(about.get('kind', '')).lower()} {about.get('name', '')}",
        str(event.get("reason", "")),
        " ".join(str(event.get("message", "")).split()),
        int(series.get("count") or event.get("count") or 1),
    )


def _about(event: Object) -> str:
    return str(event.get("involvedObject", {}).get("name", ""))


def _name(found: Object) -> str:
    return str(found["metadata"]["name"])
