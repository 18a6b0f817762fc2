"""What a reviewer would have to look for again and again."""

import ast
import re
import tomllib
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "services" / "marginal"
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if "v1" not in path.parts)
TESTS = sorted((ROOT / "tests").rglob("*.py"))
VAGUE = {"utils", "common", "helpers", "base", "manager", "core", "misc"}


def names(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=names)
def test_a_module_says_what_it_is_and_stays_readable(path: Path) -> None:
    text = path.read_text()
    assert path.name == "__init__.py" or ast.get_docstring(ast.parse(text))
    assert path.stem not in VAGUE
    assert len(text.splitlines()) <= 300


@pytest.mark.parametrize("path", SOURCES, ids=names)
def test_only_entry_points_read_the_environment(path: Path) -> None:
    reads = re.search(r"os\.(environ|getenv)", path.read_text())
    assert not reads or "entrypoints" in path.parts


@pytest.mark.parametrize("path", TESTS, ids=names)
def test_fakes_are_classes_and_never_patches(path: Path) -> None:
    imported = {
        alias.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    modules = {node.module for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)}
    assert not {"mock", "unittest.mock"} & (imported | modules)


def test_every_dependency_is_justified_in_the_readme() -> None:
    project = tomllib.loads((ROOT / "services" / "pyproject.toml").read_text())["project"]
    readme = (ROOT / "README.md").read_text()
    wanted = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    packages = [re.split(r"[=<>!~]", requirement)[0] for requirement in wanted]
    assert [package for package in packages if f"`{package}`" not in readme] == []


def test_every_status_reason_is_in_the_readme() -> None:
    from marginal.transport.statuses import INTERNAL, OUTSIDE

    readme = (ROOT / "README.md").read_text()
    reasons = [outside.reason for outside in OUTSIDE.values()] + [INTERNAL.reason]
    assert [reason for reason in reasons if f"`{reason}`" not in readme] == []


def test_the_generated_stubs_are_not_committed() -> None:
    assert "services/marginal/v1/*_pb2*" in (ROOT / ".gitignore").read_text()


def test_the_bundled_models_stay_under_ten_megabytes() -> None:
    sizes = [path.stat().st_size for path in (PACKAGE / "models").glob("*.gguf")]
    assert len(sizes) == 2
    assert sum(sizes) < 10_000_000
