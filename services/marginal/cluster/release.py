"""One installed release as the API server has it: its workloads, who scales them, and what went wrong lately."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from marginal.cluster.api import Api, ApiRefused, Object
from marginal.cluster.pods import is_ready, why_not_started
from marginal.errors import ConfigurationError

PART_OF = "app.kubernetes.io/part-of=marginal"
INSTANCE, COMPONENT, VERSION = (f"app.kubernetes.io/{name}" for name in ("instance", "component", "version"))
COMPONENTS = ("router", "small", "large")
MOST_WARNINGS = 5
NOT_THERE = (403, 404)
"""A kind that this cluster does not have, or that we may not see."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One component with its replicas; `scaler` is "keda", "hpa" or "none", and what ails it and the pods in words."""

    component: str
    name: str
    ready: int
    desired: int
    scaler: str = "none"
    least: int | None = None
    most: int | None = None
    scaler_ails: str = ""
    pods_ail: str = ""


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
    """What is installed under one name; `router_pod` is a ready one, "" when there is none.

    `tls` is whether the router speaks TLS.
    """

    name: str
    namespace: str
    version: str
    workloads: tuple[Workload, ...]
    warnings: tuple[Happening, ...]
    router_pod: str
    tls: bool = False


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
    pods = (await api.list(f"/api/v1/namespaces/{namespace}/pods", labelSelector=f"{INSTANCE}={name}")).items
    workloads = sorted((_workload(one, scalers, pods) for one in own), key=lambda one: COMPONENTS.index(one.component))
    return Release(
        name,
        namespace,
        next((_label(one, VERSION) for one in own if _label(one, VERSION)), ""),
        tuple(workloads),
        tuple(await _warnings(api, namespace, [one.name for one in workloads], pods)),
        next((_name(pod) for pod in pods if _label(pod, COMPONENT) == "router" and is_ready(pod)), ""),
        any(_label(one, COMPONENT) == "router" and _speaks_tls(one) for one in own),
    )


def _speaks_tls(workload: Object) -> bool:
    containers = workload["spec"].get("template", {}).get("spec", {}).get("containers") or ()
    return any(one.get("name") == "MARGINAL_TLS_CERT" for container in containers for one in container.get("env") or ())


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


def _workload(found: Object, scalers: Mapping[str, Object], pods: Sequence[Object]) -> Workload:
    name, component, status = _name(found), _label(found, COMPONENT), found.get("status", {})
    plain = Workload(
        component,
        name,
        int(status.get("readyReplicas") or 0),
        int(found["spec"].get("replicas", 1)),
        pods_ail=next(filter(None, (why_not_started(pod) for pod in pods if _label(pod, COMPONENT) == component)), ""),
    )
    scaler = scalers.get(name)
    if scaler is None:
        return plain
    spec = scaler["spec"]
    keda = "maxReplicaCount" in spec or "triggers" in spec
    least, most = ("minReplicaCount", "maxReplicaCount") if keda else ("minReplicas", "maxReplicas")
    return replace(
        plain,
        scaler="keda" if keda else "hpa",
        least=spec.get(least, 0 if keda else 1),
        most=spec.get(most, 100 if keda else None),
        scaler_ails="; ".join(_ailments(scaler, "Ready" if keda else "ScalingActive")),
    )


def _ailments(scaler: Object, condition: str) -> Iterator[str]:
    """An autoscaler of a workload at zero is switched off, and does not ail."""
    for one in scaler.get("status", {}).get("conditions") or ():
        if one.get("type") == condition and one.get("status") == "False" and one.get("reason") != "ScalingDisabled":
            yield str(one.get("message") or one.get("reason") or "it says not why")


async def _warnings(api: Api, namespace: str, names: Sequence[str], pods: Sequence[Object]) -> Sequence[Happening]:
    """The latest; that a pod was not ready is no news when it is now, or is to end, or is gone."""
    events = await _seen(api, f"/api/v1/namespaces/{namespace}/events", fieldSelector="type=Warning")
    unready = {_name(pod) for pod in pods if not is_ready(pod) and not pod["metadata"].get("deletionTimestamp")}
    ours = [
        one
        for one in events
        if any(_about(one).startswith(name) for name in names)
        and (one.get("reason") != "Unhealthy" or _about(one) in unready)
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


def _about(event: Object) -> str:
    return str(event.get("involvedObject", {}).get("name", ""))


def _name(found: Object) -> str:
    return str(found["metadata"]["name"])


def _label(found: Object, name: str) -> str:
    return str((found["metadata"].get("labels") or {}).get(name, ""))
