"""bill_of_materials.py SITE_PACKAGES < EXPORT: uv's CycloneDX export, less the packages that were not installed.

The lock file has packages for every system and every Python, an image has those of its own.
"""

import json
import re
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Any


def of_what_is_installed(exported: dict[str, Any], site: Path) -> dict[str, Any]:
    """The same bill for one image, and without the time and the number of the run that made it.

    Raises ValueError when nothing of it is installed at `site`.
    """
    installed = {(_plain(each.name), each.version) for each in distributions(path=[str(site)])}
    components = [each for each in exported["components"] if (_plain(each["name"]), each["version"]) in installed]
    if not components:
        raise ValueError(f"no package of the lock file is installed at {site}")
    known = {each["bom-ref"] for each in (exported["metadata"]["component"], *components)}
    metadata = {key: value for key, value in exported["metadata"].items() if key != "timestamp"}
    dependencies = [_among(known, each) for each in exported["dependencies"] if each["ref"] in known]
    bill = {key: value for key, value in exported.items() if key != "serialNumber"}
    return bill | {"metadata": metadata, "components": components, "dependencies": dependencies}


def _among(known: set[str], dependency: dict[str, Any]) -> dict[str, Any]:
    kept = [ref for ref in dependency.get("dependsOn", ()) if ref in known]
    return {"ref": dependency["ref"]} | ({"dependsOn": kept} if kept else {})


def _plain(name: str) -> str:
    """A package's name as https://packaging.python.org/en/latest/specifications/name-normalization/ compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    bill = of_what_is_installed(json.load(sys.stdin), Path(sys.argv[1]))
    json.dump(bill, sys.stdout, indent=1, sort_keys=True)
