"""The upper layers of an image: locked packages with their bill of materials, then Marginal itself and its programs."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from bill_of_materials import of_what_is_installed
from debian_base import PYTHON_VERSION, CannotBuild
from images import PREFIX, PYTHON, Service

ROOT = Path(__file__).parents[2]
SITE = f"{PREFIX.lstrip('/')}/lib/python{PYTHON}/site-packages"
SBOM = "usr/share/sbom/marginal.cdx.json"
GENERATED = shutil.ignore_patterns("*_pb2*", "__pycache__")
PLATFORMS = {"amd64": "x86_64-manylinux_2_36", "arm64": "aarch64-manylinux_2_36"}
"""glibc 2.36 is bookworm's."""


class Uv:
    """uv, with the lock file as the only thing that it believes, and a Python of the image's version."""

    def __init__(self, program: Path, scratch: Path) -> None:
        """Works in `scratch`, on a copy of the sources."""
        self._program, self._scratch = program, scratch
        self._project = scratch / "source" / "services"
        self._tools = scratch / "tools"

    def prepare(self) -> Path:
        """Builds the wheel with the locked build requirements and returns it. Raises CannotBuild."""
        shutil.copytree(ROOT / "protos", self._scratch / "source" / "protos")
        shutil.copytree(ROOT / "services" / "marginal", self._project / "marginal", ignore=GENERATED)
        for name in ("pyproject.toml", "uv.lock", "hatch_build.py"):
            shutil.copy(ROOT / "services" / name, self._project)
        self._run("sync", "--frozen", "--python", PYTHON, "--only-group", "build", "--no-install-project")
        wheels = self._scratch / "wheels"
        self._run("build", "--wheel", "--no-build-isolation", "--python", str(self.python), "--out-dir", str(wheels))
        return next(wheels.glob("*.whl"))

    @property
    def python(self) -> Path:
        """The interpreter that builds and compiles."""
        return self._tools / "bin" / "python"

    def requirements(self, service: Service) -> str:
        """All packages of a service, pinned, with their hashes."""
        return self._export(service, "--format", "requirements.txt")

    def bill_of_materials(self, service: Service, site: Path) -> str:
        """What of it is installed at `site`, as CycloneDX."""
        told = json.loads(self._export(service, "--format", "cyclonedx1.5", "--preview-features", "sbom-export"))
        return json.dumps(of_what_is_installed(told, site), indent=1, sort_keys=True) + "\n"

    def install(self, target: Path, *what: str, platform: str) -> None:
        """Installs wheels, never anything that would have to be built, as an image needs them."""
        where = ("--target", str(target), "--python-platform", PLATFORMS[platform], "--python-version", PYTHON_VERSION)
        self._run("pip", "install", *where, "--only-binary", ":all:", "--no-deps", "--link-mode", "copy", *what)
        shutil.rmtree(target / "bin", ignore_errors=True)
        for path in [target / ".lock", *target.glob("*.dist-info/direct_url.json"), *target.glob("*.dist-info/uv_*")]:
            path.unlink(missing_ok=True)
        for record in target.glob("*.dist-info/RECORD"):
            kept = [line for line in record.read_text().splitlines(keepends=True) if not _of_this_run(line)]
            record.write_text("".join(kept))

    def compile(self, root: Path, *folders: str) -> None:
        """Compiles ahead, as nothing can be written later; without times, so that it is the same every time."""
        modes = ("--invalidation-mode", "unchecked-hash", "-s", str(root), "-p", "/", "-q", "-j", "0")
        where = [str(root / folder) for folder in folders]
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        subprocess.run([self.python, "-m", "compileall", *modes, *where], check=True, env=environment)  # noqa: S603

    def _export(self, service: Service, *how: str) -> str:
        extras = [word for extra in service.extras for word in ("--extra", extra)]
        return self._run("export", "--frozen", "--no-dev", "--no-emit-project", "--no-header", *extras, *how)

    def _run(self, *words: str) -> str:
        environment: Mapping[str, str] = {
            **os.environ,
            "UV_PROJECT_ENVIRONMENT": str(self._tools),
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_REQUIRE_HASHES": "0",
        }
        command = [str(self._program), "--quiet", "--project", str(self._project), *words]
        done = subprocess.run(  # noqa: S603
            command, cwd=self._project, env=environment, text=True, capture_output=True, check=False
        )
        if done.returncode:
            raise CannotBuild(f"uv {' '.join(words[:2])}: {done.stderr.strip()}")
        return done.stdout


def lay_packages(uv: Uv, service: Service, root: Path, *, platform: str) -> None:
    """The packages of the lock file, each checked against its hash, as a virtual environment, and the list of them."""
    listed = root.with_suffix(".txt")
    listed.write_text(uv.requirements(service))
    uv.install(root / SITE, "--require-hashes", "--requirement", str(listed), platform=platform)
    uv.compile(root, SITE)
    prefix = root / PREFIX.lstrip("/")
    (prefix / "bin").mkdir()
    (prefix / "bin" / "python3").symlink_to(f"/usr/bin/python{PYTHON}")
    (prefix / "bin" / "python").symlink_to("python3")
    (prefix / "pyvenv.cfg").write_text(f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {PYTHON}\n")
    (root / SBOM).parent.mkdir(parents=True)
    (root / SBOM).write_text(uv.bill_of_materials(service, root / SITE))


def lay_program(uv: Uv, service: Service, wheel: Path, root: Path, *, platform: str) -> None:
    """Marginal, the programs of the service and the probe for healthchecks."""
    uv.install(root / SITE, str(wheel), platform=platform)
    uv.compile(root, SITE)
    scripts = root / PREFIX.lstrip("/") / "bin"
    scripts.mkdir()
    for name, entry in _entry_points(root / SITE).items():
        if name in service.programs:
            module, _, function = entry.partition(":")
            _executable(
                scripts / name,
                f"#!{PREFIX}/bin/python3\nimport sys\n\nfrom {module} import {function}\n\nsys.exit({function}())\n",
            )
    _executable(scripts / "grpc-health", Path(__file__).with_name("grpc-health").read_text())


def _of_this_run(line: str) -> bool:
    """Whether a line of a RECORD is of a file that was removed: scripts name the folder that they were written in."""
    return line.startswith("bin/") or line.partition(",")[0].endswith(("/direct_url.json", "/uv_cache.json"))


def _entry_points(site: Path) -> dict[str, str]:
    found = next(site.glob("marginal-*.dist-info/entry_points.txt")).read_text()
    pairs = (line.split(" = ") for line in found.splitlines() if " = " in line)
    return dict(pairs)


def _executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)
