"""Generates the typed stubs of `protos/marginal/v1` and of KEDA's scaler whenever the distribution is built."""

import shutil
import sys
from pathlib import Path

import grpc_tools
from grpc_tools import protoc
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HERE = Path(__file__).parent
PROTOS = HERE.parent / "protos"
PLUGINS = ("mypy", "mypy_grpc")
FOREIGN = {"marginal/v1": PROTOS / "third_party" / "externalscaler"}
"""Protos of others whose stubs go beside ours: the package they are imported from, and where they are."""


class GenerateStubs(BuildHookInterface):
    """Runs protoc on every proto of ours, and on the foreign ones: messages, services and their type stubs."""

    def initialize(self, version: str, build_data: dict) -> None:  # noqa: ARG002 (hatchling's signature)
        if not PROTOS.is_dir():
            raise SystemExit(f"{PROTOS} not found: build from the repository tree, the protos are beside services/")
        sources = [str(path.relative_to(PROTOS)) for path in sorted(PROTOS.glob("marginal/**/*.proto"))]
        sources += [f"{package}/{path.name}" for package, folder in FOREIGN.items() for path in folder.glob("*.proto")]
        arguments = [
            f"-I{PROTOS}",
            f"-I{PROTOS / 'third_party'}",
            *(f"-I{package}={folder}" for package, folder in FOREIGN.items()),
            f"-I{Path(grpc_tools.__file__).parent / '_proto'}",
            f"--python_out={HERE}",
            f"--grpc_python_out={HERE}",
            *(f"--plugin=protoc-gen-{name}={_executable(f'protoc-gen-{name}')}" for name in PLUGINS),
            *(f"--{name}_out={HERE}" for name in PLUGINS),
        ]
        if protoc.main(["protoc", *arguments, *sources]) != 0:
            raise SystemExit("protoc failed: see its messages above")


def _executable(name: str) -> str:
    """Finds a build requirement's script beside the interpreter that builds."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        raise SystemExit(f"{name} not found: it comes with mypy-protobuf, a build requirement")
    return found
