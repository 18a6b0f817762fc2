"""One installed release as the API server has it: its workloads, who scales them, and what went wrong lately."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from marginal.cluster.api import Api, ApiRefused, Object
from marginal.errors import ConfigurationError

PART_OF = "app.kubernetes.io/part-of=marginal"
INSTANCE, COMPONENT, VERSION = (f"app.kubernetes.io/{name}" for name in ("instance", "component", "version"))
COMPONENTS = ("router", "small", "large")
MOST_WARNINGS = 5
NOT_THERE = (403, 404)
"""A kind that this cluster does not have, or that we may not see."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One component with its replicas; `scaler` is "keda", "hpa" or "none", and what ails it in words."""

    component: str
    name: str
    ready: int
    desired: int
    scaler: str = "none"
    least: int | None = None
    most: int | None = None
    scaler_ails: str = ""


@dataclass(frozen=True, slots=True)
class Happening:
    """A warning event; `at` as the server writes it."""

    at: str
    about: str
    reason: str
    message: str
    times: int = 1


@dataclass(frozen=True, slots=True)
class Release:
    """What is installed under one name; `router_pod` is a ready one, "" when there is none."""

    name: str
    namespace: str
    version: str
    workloads: tuple[Workload, ...]
    warnings: tuple[Happening, ...]
    router_pod: str


async def find_release(api: Api, namespace: str, name: str = "") -> Release:
    """The only release of a namespace, or the named one. Raises ConfigurationError when there is none."""
    apps = f"/apis/apps/v1/namespaces/{namespace}"
    found = [
        one
        for kind in ("deployments", "statefulsets")
        for one in (await api.list(f"{apps}/{kind}", labelSelector=PART_OF)).items
        if _label(one, COMPONENT) in COMPONENTS
    ]
    names = sorted({_label(one, INSTANCE) for one in found})
    if not names or (name and name not in names):
        which = f"release {name!r}" if name else "release of Marginal"
        raise ConfigurationError(f"there is no {which} in namespace {namespace}: name another with --namespace")
    if not name and len(names) > 1:
        raise ConfigurationError(f"namespace {namespace} has the releases {', '.join(names)}: name one with --release")
    name = name or names[0]
    own = [one for one in found if _label(one, INSTANCE) == name]
    scalers = await _scalers(api, namespace)
    workloads = sorted((_workload(one, scalers) for one in own), key=lambda one: COMPONENTS.index(one.component))
    return Release(
        name,
        namespace,
        next((_label(one, VERSION) for one in own if _label(one, VERSION)), ""),
        tuple(workloads),
        tuple(await _warnings(api, namespace, [one.name for one in workloads])),
        await _router_pod(api, namespace, name),
    )


async def _router_pod(api: Api, namespace: str, name: str) -> str:
    pods = await api.list(f"/api/v1/namespaces/{namespace}/pods", labelSelector=f"{INSTANCE}={name},{COMPONENT}=router")
    return next((str(pod["metadata"]["name"]) for pod in pods.items if _is_ready(pod)), "")


def _is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()
    ready = any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)
    return ready and not pod["metadata"].get("deletionTimestamp")


async def _scalers(api: Api, namespace: str) -> Mapping[str, Object]:
    """The scaler of each workload, by the workload's name; KEDA's own objects before the autoscalers it makes."""
    hpas = await _seen(api, f"/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers")
    scaled = await _seen(api, f"/apis/keda.sh/v1alpha1/namespaces/{namespace}/scaledobjects")
    return {str(one["spec"]["scaleTargetRef"]["name"]): one for one in (*hpas, *scaled)}


async def _seen(api: Api, path: str, **query: str) -> Sequence[Object]:
    try:
        return (await api.list(path, **query)).items
    except ApiRefused as error:
        if error.status in NOT_THERE:
            return ()
        raise


def _workload(found: Object, scalers: Mapping[str, Object]) -> Workload:
    name, status = str(found["metadata"]["name"]), found.get("status", {})
    plain = Workload(
        _label(found, COMPONENT), name, int(status.get("readyReplicas") or 0), int(found["spec"].get("replicas", 1))
    )
    scaler = scalers.get(name)
    if scaler is None:
        return plain
    spec = scaler["spec"]
    keda = "maxReplicaCount" in spec or "triggers" in spec
    least, most = ("minReplicaCount", "maxReplicaCount") if keda else ("minReplicas", "maxReplicas")
    return Workload(
        plain.component,
        name,
        plain.ready,
        plain.desired,
        "keda" if keda else "hpa",
        spec.get(least, 0 if keda else 1),
        spec.get(most, 100 if keda else None),
        "; ".join(_ailments(scaler, "Ready" if keda else "ScalingActive")),
    )


def _ailments(scaler: Object, condition: str) -> Iterator[str]:
    """An autoscaler of a workload at zero is switched off, and does not ail."""
    for one in scaler.get("status", {}).get("conditions") or ():
        if one.get("type") == condition and one.get("status") == "False" and one.get("reason") != "ScalingDisabled":
            yield str(one.get("message") or one.get("reason") or "it says not why")


async def _warnings(api: Api, namespace: str, names: Sequence[str]) -> Sequence[Happening]:
    events = await _seen(api, f"/api/v1/namespaces/{namespace}/events", fieldSelector="type=Warning")
    ours = [
        one
        for one in events
        if any(str(one.get("involvedObject", {}).get("name", "")).startswith(name) for name in names)
    ]
    latest = sorted(map(_happening, ours), key=lambda one: one.at, reverse=True)
    return latest[:MOST_WARNINGS]


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


def _label(found: Object, name: str) -> str:
    return str((found["metadata"].get("labels") or {}).get(name, ""))
