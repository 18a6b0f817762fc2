"""The models and pairs that have a name of their own, read from `catalogue.toml`."""

import functools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marginal.errors import ConfigurationError

_HUB = re.compile(
    r"hub:(?P<repository>[\w.-]+/[\w.-]+)@(?P<revision>[\w.-]+)/(?P<file>[\w./-]+\.gguf)#(?P<sha256>[0-9a-f]{64})"
)


@dataclass(frozen=True, slots=True)
class BundledFile:
    """A model file that ships inside the package."""

    path: Path


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file on the model hub; `sha256` is in lower-case hexadecimal, `bytes` None when the name does not say."""

    repository: str
    revision: str
    file: str
    sha256: str
    bytes: int | None = None

    @property
    def name(self) -> str:
        """The name that `resolve` takes."""
        return f"hub:{self.repository}@{self.revision}/{self.file}#{self.sha256}"


@dataclass(frozen=True, slots=True)
class Pair:
    """The names of a small and a large model that go together, and of the bundled questions that suit them."""

    small: str
    large: str
    questions: str = "general-questions.jsonl"


def pair(name: str) -> Pair:
    """Gives the pair of that name. Raises ConfigurationError naming the known ones."""
    pairs = {key: Pair(**entry) for key, entry in _catalogue()["pairs"].items()}
    if name not in pairs:
        raise ConfigurationError(f"pair: {name} is not in the catalogue, known are {', '.join(pairs)}")
    return pairs[name]


def models() -> Mapping[str, BundledFile | HubFile]:
    """Gives every model of the catalogue by its name."""
    here = Path(__file__)
    return {
        name: BundledFile(here.with_name(entry["bundled"])) if "bundled" in entry else HubFile(**entry)
        for name, entry in _catalogue()["models"].items()
    }


def hub_file(name: str) -> HubFile:
    """Reads `hub:owner/repo@revision/file.gguf#sha256`. Raises ConfigurationError saying how a name looks."""
    match = _HUB.fullmatch(name)
    if match is None:
        raise ConfigurationError(
            f"model: {name} is not the name of a file on the hub, which looks like"
            " hub:owner/repo@revision/file.gguf#sha256 with a SHA-256 of 64 lower-case hexadecimal digits"
        )
    repository, revision, file, sha256 = match.groups()
    return HubFile(repository, revision, file, sha256)


@functools.cache
def _catalogue() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("catalogue.toml").read_text(encoding="utf-8"))
