"""What Helm makes of the chart: objects of one release, each render once per session."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "marginal"
GOLDEN = Path(__file__).parent / "golden"
BUNDLED = ROOT / "services" / "marginal" / "policies.toml"
"""What the programs have; the chart has a copy, since not every packager of charts follows links."""
EXAMPLES = sorted(path.stem for path in (CHART / "examples").glob("*.yaml"))
WITHOUT_SLEEP, CURRENT = "1.29.0", "1.35.0"
"""Kubernetes before pods could sleep by themselves, and now."""

HELM = Path(sys.executable).with_name("helm")
WORKLOADS = {"Deployment", "StatefulSet"}

Object = Mapping[str, Any]


class Refused(Exception):
    """Helm would install nothing; the text is what it says."""


def helm(*arguments: str, given: str = "") -> str:
    """What a command of Helm writes. Raises Refused."""
    done = subprocess.run([HELM, *arguments], input=given, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise Refused(done.stderr or done.stdout)
    return done.stdout


@cache
def manifest(values: str = "", *, release: str = "marginal", kubernetes: str = CURRENT, chart: Path = CHART) -> str:
    """The whole render of values, given as YAML."""
    arguments = ("template", release, str(chart), "--namespace", "marginal", "--kube-version", kubernetes)
    return helm(*arguments, "--values", "-", given=values or "{}")


@cache
def parsed(values: str, release: str, kubernetes: str) -> tuple[Object, ...]:
    text = manifest(values, release=release, kubernetes=kubernetes)
    return tuple(one for one in yaml.load_all(text, yaml.CSafeLoader) if one)


def rendered(values: str = "", *, release: str = "marginal", kubernetes: str = CURRENT) -> tuple[Object, ...]:
    """Every object that a release of these values has; not to be changed."""
    return parsed(values, release, kubernetes)


def example(name: str) -> str:
    """An example's values."""
    return (CHART / "examples" / f"{name}.yaml").read_text()


def of_kind(objects: tuple[Object, ...], *kinds: str) -> Iterator[Object]:
    """The objects of some kinds."""
    return (one for one in objects if one["kind"] in kinds)


def pods(objects: tuple[Object, ...]) -> dict[str, Object]:
    """Every pod template, and the pod of the test, by the name of what makes it: `metadata` and `spec`."""
    made = {one["metadata"]["name"]: one["spec"]["template"] for one in of_kind(objects, *WORKLOADS)}
    return made | {one["metadata"]["name"]: one for one in of_kind(objects, "Pod")}


def containers(pod: Object) -> list[Object]:
    """All containers of a pod."""
    return [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]


def selects(selector: Mapping[str, str], pod: Object) -> bool:
    """Whether labels to match are those of a pod."""
    return selector.items() <= pod["metadata"]["labels"].items()


def environment(pod: Object) -> dict[str, str]:
    """The variables that a pod's own program is given in plain."""
    return {variable["name"]: variable.get("value", "") for variable in pod["spec"]["containers"][0].get("env", ())}
