"""A namespace of a real cluster, and what tests do there: run a script in a pod, end pods, restart, look."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from kubernetes import client, config, stream

SCRIPTS = Path(__file__).parent / "pods"
PYTHON = "/opt/marginal/bin/python3"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
UNPRIVILEGED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
USER = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
PASSING = {"events", "pods.metrics.k8s.io", "events.events.k8s.io"}
"""What comes and goes by itself in every namespace."""


T = TypeVar("T")


class TookTooLong(AssertionError):
    """What was waited for did not come about."""


def eventually(look: Callable[[], T], *, seconds: float, what: str, every: float = 0.5) -> T:
    """What `look` gives as soon as it is true. Raises TookTooLong, with what was seen last."""
    until = time.monotonic() + seconds
    while not (seen := look()):
        if time.monotonic() > until:
            raise TookTooLong(f"{what}: not within {seconds:g} s, last seen {seen!r}")
        time.sleep(every)
    return seen


class Cluster:
    """The cluster of a kubeconfig."""

    def __init__(self, kubeconfig: str, image: str) -> None:
        """`image` is what scripts run in: one that has Marginal's package."""
        self.kubeconfig = kubeconfig
        self.image = image
        self.api = config.new_client_from_config(kubeconfig)
        self.core = client.CoreV1Api(self.api)
        self.apps = client.AppsV1Api(self.api)

    @property
    def version(self) -> str:
        return str(client.VersionApi(self.api).get_code().git_version)

    def kinds(self) -> Iterator[tuple[str, str]]:
        """Every kind of namespaced object that can be listed: a name, and where."""
        groups = self.get("/apis")["groups"]
        for path in ["/api/v1", *(f"/apis/{group['preferredVersion']['groupVersion']}" for group in groups)]:
            for kind in self.get(path)["resources"]:
                if kind["namespaced"] and "list" in kind["verbs"] and "/" not in kind["name"]:
                    group = path.split("/")[2] if path.startswith("/apis") else ""
                    yield f"{kind['name']}.{group}".rstrip("."), f"{path}/namespaces/{{}}/{kind['name']}"

    def get(self, path: str) -> dict[str, Any]:
        """The JSON at a path of the API."""
        answer = self.api.call_api(
            path, "GET", auth_settings=["BearerToken"], _preload_content=False, _return_http_data_only=True
        )
        return dict(json.loads(answer.data))

    @contextmanager
    def namespace(self, name: str) -> Iterator["Namespace"]:
        """A namespace that lets in restricted pods only; it is gone afterwards."""
        made = client.V1Namespace(metadata=client.V1ObjectMeta(name=name, labels=RESTRICTED))
        self.core.create_namespace(made)
        try:
            yield Namespace(self, name)
        finally:
            self.core.delete_namespace(name)
            names = lambda: [one.metadata.name for one in self.core.list_namespace().items]  # noqa: E731
            eventually(lambda: name not in names(), seconds=300, what=f"end of namespace {name}")


class Namespace:
    """One namespace of it."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name

    def pods(self, component: str) -> list[client.V1Pod]:
        """The pods of a component that are not about to end."""
        labels = f"app.kubernetes.io/component={component}"
        found = self.cluster.core.list_namespaced_pod(self.name, label_selector=labels).items
        return [pod for pod in found if pod.metadata.deletion_timestamp is None]

    def ready(self, component: str) -> list[str]:
        """The names of those that are ready."""
        return [
            pod.metadata.name
            for pod in self.pods(component)
            if any(one.type == "Ready" and one.status == "True" for one in pod.status.conditions or ())
        ]

    def lives(self) -> dict[str, tuple[str, int]]:
        """Which pods of the release there are, and how often their containers were started again."""
        found = (pod for component in ("router", "small", "large") for pod in self.pods(component))
        return {
            pod.metadata.name: (pod.metadata.uid, sum(one.restart_count for one in pod.status.container_statuses))
            for pod in found
        }

    def replicas(self, deployment: str) -> client.V1DeploymentStatus:
        return self.cluster.apps.read_namespaced_deployment_status(deployment, self.name).status

    def restart(self, deployment: str, *, seconds: float = 300) -> None:
        """What `kubectl rollout restart` and `rollout status` do, until the old pods are gone as well."""
        old = {pod.metadata.name for pod in self.pods(deployment.rsplit("-", 1)[-1])}
        stamp = {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": f"{time.time()}"}}}
        self.cluster.apps.patch_namespaced_deployment(deployment, self.name, {"spec": {"template": stamp}})

        def replaced() -> bool:
            there = self.cluster.apps.read_namespaced_deployment(deployment, self.name)
            pods = {pod.metadata.name for pod in self.cluster.core.list_namespaced_pod(self.name).items}
            status, wanted = there.status, there.spec.replicas
            rolled = status.observed_generation == there.metadata.generation and status.updated_replicas == wanted
            return bool(rolled and status.available_replicas == wanted and not pods & old)

        eventually(replaced, seconds=seconds, what=f"new pods of {deployment}")

    def kill(self, pod: str) -> None:
        """Ends a pod at once, without a warning."""
        self.cluster.core.delete_namespaced_pod(pod, self.name, grace_period_seconds=0)

    def run(self, name: str, script: str, *arguments: str, labels: Mapping[str, str] | None = None) -> "ScriptPod":
        """A script of `pods/` in a pod of its own."""
        container = {
            "name": "script",
            "image": self.cluster.image,
            "command": [PYTHON, "-c", (SCRIPTS / script).read_text()],
            "args": list(arguments),
            "securityContext": UNPRIVILEGED,
        }
        pod = {
            "metadata": {"name": name, "labels": dict(labels or {"app": name})},
            "spec": {
                "containers": [container],
                "restartPolicy": "Never",
                "securityContext": USER,
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "terminationGracePeriodSeconds": 0,
            },
        }
        self.cluster.core.create_namespaced_pod(self.name, pod)
        return ScriptPod(self, name)

    def service(self, name: str, port: int) -> None:
        """A service before the pod that `run` has given this name."""
        spec = {"selector": {"app": name}, "ports": [{"port": port, "appProtocol": "kubernetes.io/h2c"}]}
        self.cluster.core.create_namespaced_service(self.name, {"metadata": {"name": name}, "spec": spec})

    def execute(self, pod: str, *command: str) -> Any:
        """A command in a pod, with its output as it comes."""
        return stream.stream(
            client.CoreV1Api(config.new_client_from_config(self.cluster.kubeconfig)).connect_get_namespaced_pod_exec,
            pod,
            self.name,
            command=list(command),
            stdout=True,
            stderr=True,
            _preload_content=False,
        )

    def contents(self) -> set[str]:
        """Everything in the namespace, as kind/name."""
        found = set[str]()
        for kind, path in self.cluster.kinds():
            if kind not in PASSING:
                listed = self.cluster.get(path.format(self.name))["items"]
                found |= {f"{kind}/{one['metadata']['name']}" for one in listed}
        return found


class ScriptPod:
    """A script that runs in a pod, and the JSON lines that it writes."""

    def __init__(self, namespace: Namespace, name: str) -> None:
        self._namespace = namespace
        self._core = namespace.cluster.core
        self.name = name

    @property
    def phase(self) -> str:
        return str(self._core.read_namespaced_pod(self.name, self._namespace.name).status.phase)

    def started(self) -> "ScriptPod":
        eventually(lambda: self.phase != "Pending", seconds=120, what=f"start of pod {self.name}")
        return self

    def lines(self) -> list[dict[str, Any]]:
        """Each line written so far."""
        answer = self._core.read_namespaced_pod_log(self.name, self._namespace.name, _preload_content=False)
        whole, _, _ = answer.data.decode().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def end(self) -> list[dict[str, Any]]:
        """Lets a script of calls come to its end; every line."""
        done = self._namespace.execute(self.name, PYTHON, "-c", "open('/tmp/end', 'w')")
        done.run_forever(timeout=30)
        return self.ended()

    def ended(self) -> list[dict[str, Any]]:
        """Every line, once the script has come to its end by itself."""
        phase = eventually(
            lambda: self.phase in ("Succeeded", "Failed") and self.phase, seconds=180, what=f"end of pod {self.name}"
        )
        assert phase == "Succeeded", self._core.read_namespaced_pod_log(self.name, self._namespace.name)
        lines = self.lines()
        self._core.delete_namespaced_pod(self.name, self._namespace.name)
        return lines
