"""checkov has nothing to say about the examples but what is answered here."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from charts.rendering import GOLDEN, ROOT

TOOLS_UV = ROOT / ".tools" / "bin" / "uv"
ANSWERED: Mapping[str, str] = {
    "CKV_K8S_8": "the test alone has no probes: it runs once",
    "CKV_K8S_9": "the same",
    "CKV_K8S_11": "no CPU limits: they throttle a process that could use an idle core, and requests are always set",
    "CKV_K8S_15": "tags are versions and never move; IfNotPresent also starts where no registry can be reached",
    "CKV_K8S_35": "HF_TOKEN alone is a variable, from a Secret: not every engine reads it elsewhere",
    "CKV_K8S_38": "the router has a token where it watches endpoint slices, and a Role for nothing else",
    "CKV_K8S_43": "images are named by version; `image.digest` is there for who pins them",
}
OF_THE_TEST = {"CKV_K8S_8", "CKV_K8S_9"}


@pytest.mark.timeout(600)
def test_checkov_finds_nothing_that_is_not_answered() -> None:
    """The first run installs it, 200 MB, into uv's cache."""
    uv = str(TOOLS_UV) if TOOLS_UV.exists() else shutil.which("uv")
    if uv is None:
        pytest.skip("needs uv, which `make setup` installs")
    options = ["--framework", "kubernetes", "--skip-download", "--compact", "--quiet", "--output", "json"]
    audit = [uv, "run", "--quiet", "--locked", "--script", str(Path(__file__).with_name("audit.py"))]
    command = [*audit, "--directory", str(GOLDEN), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    report = json.loads(done.stdout)
    failed = report["results"]["failed_checks"]
    unanswered = [(one["check_id"], one["check_name"], one["resource"]) for one in failed if not answered(one)]
    assert unanswered == []
    assert report["summary"]["passed"] > 1_000
    assert {one["check_id"] for one in failed} == ANSWERED.keys()


def answered(finding: Mapping[str, str]) -> bool:
    of_the_test = finding["resource"].startswith("Pod.") and finding["resource"].endswith("-test")
    return finding["check_id"] in ANSWERED and (of_the_test or finding["check_id"] not in OF_THE_TEST)
