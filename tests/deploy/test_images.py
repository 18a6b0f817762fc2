"""The Dockerfile: linted, held together with the tars for tests, and each image with what its programs import only."""

import importlib.metadata
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from images import ENVIRONMENT, SERVICES, USER

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "deploy" / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text().replace("\\\n", "")
PROJECT = tomllib.loads((ROOT / "services" / "pyproject.toml").read_text())

HIDING = """
import sys
from importlib.metadata import EntryPoint

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"{name} is not in this image", name=name)

hidden = set(sys.argv[2:])
sys.meta_path.insert(0, Hidden())
EntryPoint("program", sys.argv[1], "console_scripts").load()
"""


def stage(name: str) -> str:
    """The lines of one stage."""
    return re.split(r"^FROM ", DOCKERFILE.partition(f" AS {name}\n")[2], flags=re.MULTILINE)[0]


def instructions(name: str, instruction: str) -> list[str]:
    return re.findall(rf"^{instruction} (.*)$", stage(name), flags=re.MULTILINE)


def test_the_dockerfile_is_what_hadolint_wants() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    found = subprocess.run([hadolint, DOCKER / "Dockerfile"], capture_output=True, text=True, check=False)  # noqa: S603
    assert (found.returncode, found.stdout) == (0, "")


def test_its_base_is_pinned_by_digest_and_debian_like_that_of_the_tars() -> None:
    assert re.search(r"^ARG PYTHON=python:3\.11\.\d+-slim-bookworm@sha256:[0-9a-f]{64}$", DOCKERFILE, re.MULTILINE)
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) <= {"${PYTHON}", "uv", "installer", "runtime"}


@pytest.mark.parametrize("name", SERVICES)
def test_both_ways_put_the_same_into_an_image(name: str) -> None:
    service = SERVICES[name]
    packages, programs = instructions(f"{name}-files", "RUN")
    assert shlex.split(packages)[2::2] == list(service.extras)
    assert shlex.split(programs.partition("lay-programs")[2]) == list(service.programs)
    assert instructions(name, "ENTRYPOINT") == [f'["{service.programs[0]}"]']
    assert instructions(name, "LABEL") == [f'org.opencontainers.image.title="{service.title}"']


def test_both_ways_start_programs_alike() -> None:
    (environment,) = instructions("runtime", "ENV")
    assert dict(word.split("=", 1) for word in shlex.split(environment)) == ENVIRONMENT
    assert instructions("runtime", "USER") == [USER]
    assert instructions("runtime", "STOPSIGNAL") == ["SIGTERM"]


def test_everything_copied_is_sent_to_the_builder_and_nothing_else_is() -> None:
    copied = {
        source
        for words in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
        for source in shlex.split(words)[:-1]
    }
    sent = {line[1:] for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"}
    assert copied == sent
    assert all((ROOT / source).exists() for source in copied)


def test_no_builder_can_keep_a_wheel_that_is_no_longer_the_one_of_the_sources() -> None:
    """A copy is compared with what it was made of; what is mounted from another stage is not by every builder."""
    assert "--mount" not in DOCKERFILE
    assert len(re.findall(r"^COPY --from=wheel /wheels /wheels$", DOCKERFILE, re.MULTILINE)) == len(SERVICES)


def test_what_builds_the_wheel_is_locked_and_the_same_as_elsewhere() -> None:
    assert sorted(PROJECT["dependency-groups"]["build"]) == sorted(PROJECT["build-system"]["requires"])


def test_uv_is_the_one_that_the_makefile_installs() -> None:
    (pinned,) = re.findall(r"^uv==\S+", (DOCKER / "uv.txt").read_text(), re.MULTILINE)
    assert pinned in (ROOT / "Makefile").read_text().split()


@pytest.mark.parametrize("name", SERVICES)  # the programs of one image differ in a word, and not in what they import
def test_a_program_imports_nothing_that_its_image_lacks(name: str) -> None:
    carried = packages(SERVICES[name].extras)
    hidden = [
        module
        for module, distributions in importlib.metadata.packages_distributions().items()
        if not carried & {normal(distribution) for distribution in distributions}
    ]
    assert "pytest" in hidden
    entry = PROJECT["project"]["scripts"][SERVICES[name].programs[0]]
    ran = subprocess.run(  # noqa: S603
        [sys.executable, "-c", HIDING, entry, *hidden], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert ran.returncode == 0, ran.stderr


def packages(extras: tuple[str, ...]) -> set[str]:
    """Everything that is installed with some extras."""
    wanted = [word for extra in extras for word in ("--extra", extra)]
    how = ("--quiet", "--frozen", "--offline", "--no-dev", "--no-emit-project", "--no-header", "--no-hashes")
    exported = subprocess.run(  # noqa: S603
        [ROOT / ".tools/bin/uv", "export", "--project", ROOT / "services", *how, *wanted],
        capture_output=True,
        text=True,
        check=True,
    )
    names = re.findall(r"^([A-Za-z0-9._-]+)==", exported.stdout, re.MULTILINE)
    return {normal(name) for name in [*names, "marginal"]}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
