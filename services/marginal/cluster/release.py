"""One installed release as the API server has it: its workloads, who scales them, and what went wrong lately."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from marginal.cluster.api import Api, ApiRefused, Object
from marginal.cluster.happenings import Happening, latest
from marginal.cluster.pods import is_ready, why_not_started
from marginal.errors import ConfigurationError

PART_OF = "app.kubernetes.io/part-of=marginal"
INSTANCE, COMPONENT, VERSION = (f"app.kubernetes.io/{name}" for name in ("instance", "component", "version"))
COMPONENTS = ("router", "small", "large")
FORBIDDEN, UNKNOWN = 403, 404


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
class Release:
    """What is installed under one name; `router_pod` is a ready one, "" when there is none.

    `tls` is whether the router speaks TLS. `unread` are the kinds of objects that we may not read.
    """

    name: str
    namespace: str
    version: str
    workloads: tuple[Workload, ...]
    warnings: tuple[Happening, ...]
    router_pod: str
    tls: bool = False
    unread: tuple[str, ...] = ()


class _Reader:
    """Reads what it may, and remembers what it may not."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.unread: list[str] = []

    async def list(self, path: str, *, everywhere: bool = True, **query: str) -> Sequence[Object]:
        """Every object at `path`, a kind that not every cluster has unless it is `everywhere`. Raises ApiAway."""
        try:
            return (await self._api.list(path, **query)).items
        except ApiRefused as error:
            if error.status == FORBIDDEN:
                self.unread.append(path.rpartition("/")[2])
            elif error.status != UNKNOWN or everywhere:
                raise
            return ()


async def find_release(api: Api, namespace: str, name: str = "") -> Release:
    """The only release of a namespace, or the named one. Raises ConfigurationError when there is none, ApiAway."""
    reader, apps = _Reader(api), f"/apis/apps/v1/namespaces/{namespace}"
    found = [
        one
        for kind in ("deployments", "statefulsets")
        for one in await reader.list(f"{apps}/{kind}", labelSelector=PART_OF)
        if _label(one, COMPONENT) in COMPONENTS
    ]
    names = sorted({_label(one, INSTANCE) for one in found})
    if not names or (name and name not in names):
        if reader.unread:
            raise ConfigurationError(f"you may not read {' and '.join(reader.unread)} in namespace {namespace}")
        which = f"release {name!r}" if name else "release of Marginal"
        raise ConfigurationError(f"there is no {which} in namespace {namespace}: name another with --namespace")
    if not name and len(names) > 1:
        raise ConfigurationError(f"namespace {namespace} has the releases {', '.join(names)}: name one with --release")
    name = name or names[0]
    own = [one for one in found if _label(one, INSTANCE) == name]
    labelled = f"{INSTANCE}={name}"
    scalers = await _scalers(reader, namespace)
    pods = await reader.list(f"/api/v1/namespaces/{namespace}/pods", labelSelector=labelled)
    sets = await reader.list(f"{apps}/replicasets", labelSelector=labelled)
    events = await reader.list(f"/api/v1/namespaces/{namespace}/events", fieldSelector="type=Warning")
    owned = {_name(one) for one in (*own, *sets)}
    by_target = {_target(one): one for one in scalers}
    owned |= {_name(one) for one in scalers if _target(one) in owned}
    workloads = sorted(
        (_workload(one, by_target, pods) for one in own), key=lambda one: COMPONENTS.index(one.component)
    )
    return Release(
        name,
        namespace,
        next((_label(one, VERSION) for one in own if _label(one, VERSION)), ""),
        tuple(workloads),
        latest(events, owned, pods),
        next((_name(pod) for pod in pods if _label(pod, COMPONENT) == "router" and is_ready(pod)), ""),
        any(_label(one, COMPONENT) == "router" and _speaks_tls(one) for one in own),
        tuple(reader.unread),
    )


def _speaks_tls(workload: Object) -> bool:
    containers = workload["spec"].get("template", {}).get("spec", {}).get("containers") or ()
    return any(one.get("name") == "MARGINAL_TLS_CERT" for container in containers for one in container.get("env") or ())


async def _scalers(reader: _Reader, namespace: str) -> Sequence[Object]:
    """Every scaler, KEDA's own objects after the autoscalers that it makes."""
    kinds = ("autoscaling/v2", "horizontalpodautoscalers"), ("keda.sh/v1alpha1", "scaledobjects")
    return [
        one
        for group, kind in kinds
        for one in await reader.list(f"/apis/{group}/namespaces/{namespace}/{kind}", everywhere=False)
    ]


def _target(scaler: Object) -> str:
    """The name of the workload that it scales."""
    return str(scaler["spec"]["scaleTargetRef"]["name"])


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


def _name(found: Object) -> str:
    return str(found["metadata"]["name"])


def _label(found: Object, name: str) -> str:
    return str((found["metadata"].get("labels") or {}).get(name, ""))
