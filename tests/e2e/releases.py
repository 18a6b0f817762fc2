"""A release of the chart, by Helm itself."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from e2e.cluster import Namespace

CHART = Path(__file__).resolve().parents[2] / "charts" / "marginal"
SMALL_PODS = {"requests": {"cpu": "20m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}


class Refused(Exception):
    """Helm did not do it; the text is what it says."""


def merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Values over values, as Helm merges files of them."""
    both = dict(first)
    for key, value in second.items():
        under = both.get(key)
        both[key] = merged(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
    return both


class Release:
    """The release `marginal` of a namespace; `base` are values that every install and upgrade begins with."""

    def __init__(self, helm: str, namespace: Namespace, base: Mapping[str, Any]) -> None:
        self._helm = helm
        self._base = base
        self.values: Mapping[str, Any] = {}
        self.namespace = namespace
        self.router = "marginal-router:50051"

    def put(self, values: Mapping[str, Any] | None = None, *, wait: bool = True) -> str:
        """Installs or upgrades to exactly these values; what Helm writes. Raises Refused."""
        given = json.dumps(merged(self._base, values or {}))
        waiting = ("--wait", "--timeout", "8m") if wait else ()
        done = self._run("upgrade", "--install", "marginal", str(CHART), "--values", "-", *waiting, given=given)
        self.values = values or {}
        return done

    def test(self) -> str:
        """`helm test --logs`."""
        return self._run("test", "marginal", "--logs")

    def revision(self) -> int:
        return int(json.loads(self._run("history", "marginal", "--output", "json"))[-1]["revision"])

    def uninstall(self) -> str:
        """Does nothing where there is none."""
        return self._run("uninstall", "marginal", "--ignore-not-found", "--wait")

    def version(self) -> str:
        return self._run("version", "--short").strip()

    def _run(self, *arguments: str, given: str = "") -> str:
        where = ("--kubeconfig", self.namespace.cluster.kubeconfig, "--namespace", self.namespace.name)
        done = subprocess.run(  # noqa: S603
            [self._helm, *arguments, *where], input=given, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise Refused(done.stderr or done.stdout)
        return done.stdout
