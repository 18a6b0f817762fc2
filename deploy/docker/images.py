"""The images of Marginal: what the Dockerfile's stages and the tars of `rootfs` both hold, and nothing more."""

from collections.abc import Sequence
from dataclasses import dataclass

PREFIX = "/opt/marginal"
USER = "65532:65532"
OWNERS = {"var/lib/marginal": 65532}
"""Where a router keeps its journal, so that an empty volume laid over it can be written."""

PYTHON = "3.11"
"""Of Debian bookworm, which both ways of building start from."""

ENVIRONMENT = {
    "PATH": f"{PREFIX}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/tmp",  # noqa: S108 (the one place that is writable)
    "LANG": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONFAULTHANDLER": "1",
}


@dataclass(frozen=True, slots=True)
class Service:
    """One image: the extras of the distribution that it carries, and the programs that these are enough for."""

    title: str
    extras: Sequence[str]
    programs: Sequence[str]


SERVICES = {
    "router": Service("Marginal router", ("cluster",), ("marginal-router",)),
    "model": Service("Marginal model service", ("model",), ("marginal-small-model", "marginal-large-model")),
    "cli": Service("Marginal command line", ("cluster", "evaluation", "model"), ("marginal",)),
}
"""A container of an image runs its first program."""
