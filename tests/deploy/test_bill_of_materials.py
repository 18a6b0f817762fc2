"""The bill of materials of an image: uv's export, less what is for other systems and other Pythons."""

import json
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from bill_of_materials import of_what_is_installed

ROOT = Path(__file__).parents[2]
HERE = Path(sysconfig.get_path("purelib"))
FOR_OTHERS = {"colorama", "httpx2-jsfetch"}
"""Packages of the lock file for Windows, and for Python in a browser."""


@pytest.fixture(scope="module")
def exported() -> dict[str, Any]:
    what = ("--quiet", "--frozen", "--offline", "--no-dev", "--no-emit-project", "--all-extras")
    how = ("--format", "cyclonedx1.5", "--preview-features", "sbom-export")
    command = [ROOT / ".tools/bin/uv", "export", "--project", ROOT / "services", *what, *how]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603
    return dict(json.loads(told))


def names(bill: dict[str, Any]) -> list[str]:
    return [component["name"] for component in bill["components"]]


def test_it_lists_each_package_that_is_installed_once_and_none_for_another_system(exported: dict[str, Any]) -> None:
    assert set(names(exported)) >= FOR_OTHERS
    listed = names(of_what_is_installed(exported, HERE))
    assert len(listed) == len(set(listed))
    assert FOR_OTHERS.isdisjoint(listed)
    assert {"grpcio", "kubernetes", "typing-extensions"} <= set(listed)


def test_it_refers_to_nothing_that_it_does_not_list(exported: dict[str, Any]) -> None:
    bill = of_what_is_installed(exported, HERE)
    known = {each["bom-ref"] for each in (bill["metadata"]["component"], *bill["components"])}
    named = {ref for each in bill["dependencies"] for ref in (each["ref"], *each.get("dependsOn", ()))}
    assert len(bill["components"]) <= len(named)
    assert named <= known


def test_a_package_of_another_version_is_not_the_one_that_is_installed(
    exported: dict[str, Any], tmp_path: Path
) -> None:
    (locked,) = (each["version"] for each in exported["components"] if each["name"] == "annotated-types")
    for name, version in (("typing_extensions", "0.1"), ("annotated_types", locked)):
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n")
    assert names(of_what_is_installed(exported, tmp_path)) == ["annotated-types"]


def test_a_folder_without_any_of_its_packages_is_refused(exported: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"no package of the lock file is installed at {tmp_path}"):
        of_what_is_installed(exported, tmp_path)


def test_it_is_the_same_whenever_it_is_made(exported: dict[str, Any]) -> None:
    bill = of_what_is_installed(exported, HERE)
    assert "serialNumber" not in bill
    assert "timestamp" not in bill["metadata"]
