"""A namespace of a real cluster, and what tests do there: run a script in a pod, end pods, restart, look."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

SCRIPTS = Path(__file__).resolve().parent / "pods"
PYTHON = "/opt/marginal/bin/python3"
COMPONENT = "app.kubernetes.io/component"
UNPRIVILEGED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
A_USER = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
PASSING = {"events", "events.events.k8s.io", "pods.metrics.k8s.io"}
"""What comes and goes by itself in every namespace."""

Object = Mapping[str, Any]
T = TypeVar("T")


class TookTooLong(AssertionError):
    """What was waited for did not come about."""


class KubectlFailed(AssertionError):
    """kubectl could not; the text is what it says."""


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

    def __init__(self, kubectl: str, kubeconfig: str, image: str) -> None:
        """`image` is what scripts run in: one that has Marginal's package."""
        self.kubeconfig = kubeconfig
        self.image = image
        self._kubectl = kubectl

    def command(self, *arguments: str) -> list[str]:
        return [self._kubectl, "--kubeconfig", self.kubeconfig, *arguments]

    def kubectl(self, *arguments: str, given: object = None) -> str:
        """What a command writes; `given` is an object for its input. Raises KubectlFailed."""
        done = subprocess.run(  # noqa: S603
            self.command(*arguments), input=json.dumps(given), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise KubectlFailed(f"kubectl {' '.join(arguments[:4])}: {done.stderr.strip()}")
        return done.stdout

    def get(self, *what: str) -> Any:
        return json.loads(self.kubectl("get", *what, "--output", "json"))

    @property
    def version(self) -> str:
        return str(json.loads(self.kubectl("version", "--output", "json"))["serverVersion"]["gitVersion"])

    @contextmanager
    def namespace(self, name: str, security: str = "restricted") -> Iterator["Namespace"]:
        """A namespace that lets in pods of one of Kubernetes' security standards; it is gone afterwards."""
        metadata = {"name": name, "labels": {"pod-security.kubernetes.io/enforce": security}}
        self.kubectl("create", "--filename", "-", given={"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        try:
            yield Namespace(self, name)
        finally:
            self.kubectl("delete", "namespace", name, "--timeout", "300s")


class Namespace:
    """One namespace of it."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name

    def kubectl(self, *arguments: str, given: object = None) -> str:
        return self.cluster.kubectl("--namespace", self.name, *arguments, given=given)

    def get(self, *what: str) -> Any:
        return self.cluster.get("--namespace", self.name, *what)

    def pods(self, component: str = "router,small,large") -> list[Object]:
        """The pods of components that are not about to end."""
        found = self.get("pods", "--selector", f"{COMPONENT} in ({component})")["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def ready(self, component: str) -> list[str]:
        """The names of those that are ready."""
        return [
            pod["metadata"]["name"]
            for pod in self.pods(component)
            if any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", ()))
        ]

    def lives(self) -> dict[str, int]:
        """Which pods of the release there are, and how often their containers were started again."""
        return {
            pod["metadata"]["name"]: sum(one["restartCount"] for one in pod["status"].get("containerStatuses", ()))
            for pod in self.pods()
        }

    def replicas(self, deployment: str) -> tuple[int, int]:
        """How many there are, and how many of them are ready."""
        status = self.get("deployment", deployment)["status"]
        return status.get("replicas", 0), status.get("readyReplicas", 0)

    def restart(self, component: str) -> None:
        """Replaces every pod of a component; the old ones are gone at the end."""
        old = self.lives().keys()
        self.kubectl("rollout", "restart", f"deployment/marginal-{component}")
        self.kubectl("rollout", "status", f"deployment/marginal-{component}", "--timeout", "300s")
        gone = {name for name in old if name.startswith(f"marginal-{component}-")}
        for name in gone:
            self.kubectl("wait", "--for", "delete", f"pod/{name}", "--timeout", "200s")

    def kill(self, pod: str) -> float:
        """Crashes the program of a pod without a warning; when, in Unix time."""
        uid = self.get("pod", pod)["metadata"]["uid"]
        with self.cluster.namespace(f"{self.name}-kill", security="privileged") as where:
            [told] = where.run("kill", "kill.py", uid, on_the_node=True).ended()
        assert len(told["killed"]) == 1, told
        return float(told["at"])

    def secret(self, name: str, files: Mapping[str, str]) -> None:
        """A Secret of files."""
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": files}
        self.kubectl("create", "--filename", "-", given=secret)

    def run(
        self, name: str, script: str, *arguments: str, secrets: Sequence[str] = (), on_the_node: bool = False
    ) -> "ScriptPod":
        """A script of `pods/` in a pod of its own.

        The Secrets are at /secrets/NAME; `on_the_node` it may do anything to the node's processes.
        """
        container = {
            "name": "script",
            "image": self.cluster.image,
            "command": [PYTHON, "-c", (SCRIPTS / script).read_text()],
            "args": list(arguments),
            "env": [{"name": "GRPC_VERBOSITY", "value": "ERROR"}],  # a pod's log has what it says between the lines
            "securityContext": {"privileged": True} if on_the_node else UNPRIVILEGED,
            "volumeMounts": [{"name": one, "mountPath": f"/secrets/{one}", "readOnly": True} for one in secrets],
        }
        spec = {
            "containers": [container],
            "volumes": [{"name": one, "secret": {"secretName": one}} for one in secrets],
            "hostPID": on_the_node,
            "restartPolicy": "Never",
            "securityContext": {"runAsUser": 0} if on_the_node else A_USER,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 0,
        }
        metadata = {"name": name, "labels": {"app": name}}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        self.kubectl("create", "--filename", "-", given=pod)
        return ScriptPod(self, name)

    def service(self, name: str, port: int) -> None:
        """A service before the pod that `run` has given this name."""
        spec = {"selector": {"app": name}, "ports": [{"port": port, "appProtocol": "kubernetes.io/h2c"}]}
        service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}
        self.kubectl("create", "--filename", "-", given=service)

    @contextmanager
    def running(self, pod: str, script: str) -> Iterator["subprocess.Popen[str]"]:
        """A script of `pods/` that runs in a pod that is there, meanwhile."""
        where = ("--namespace", self.name, "exec", pod, "--")
        command = self.cluster.command(*where, PYTHON, "-c", (SCRIPTS / script).read_text())
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
            try:
                yield process
            finally:
                process.kill()

    def contents(self) -> set[str]:
        """Everything in the namespace, as kind/name."""
        kinds = set(self.cluster.kubectl("api-resources", "--namespaced", "--verbs", "list", "-o", "name").split())
        return set(self.kubectl("get", ",".join(sorted(kinds - PASSING)), "--output", "name").split())


class ScriptPod:
    """A script that runs in a pod, and the JSON lines that it writes."""

    def __init__(self, namespace: Namespace, name: str) -> None:
        self._namespace = namespace
        self.name = name

    def phase(self) -> str:
        return str(self._namespace.get("pod", self.name)["status"]["phase"])

    def started(self) -> "ScriptPod":
        eventually(lambda: self.phase() != "Pending", seconds=120, what=f"start of pod {self.name}")
        return self

    def lines(self) -> list[dict[str, Any]]:
        """Each line written so far."""
        whole, _, _ = self._namespace.kubectl("logs", self.name).rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def end(self) -> list[dict[str, Any]]:
        """Lets a script of calls come to its end; every line."""
        self._namespace.kubectl("exec", self.name, "--", PYTHON, "-c", "open('/tmp/end', 'w')")
        return self.ended()

    def ended(self) -> list[dict[str, Any]]:
        """Every line, once the script has come to its end by itself."""
        over = ("Succeeded", "Failed")
        eventually(lambda: self.phase() in over, seconds=180, what=f"end of pod {self.name}")
        assert self.phase() == "Succeeded", self._namespace.kubectl("logs", self.name)
        lines = self.lines()
        self._namespace.kubectl("delete", "pod", self.name)
        return lines
