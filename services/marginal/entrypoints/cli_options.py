"""Options that several commands of `marginal` take, and their defaults."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from marginal.routing.requests import Mode

ROUTER = "127.0.0.1:50051"
STATE_DIR = Path(".marginal")
LIMIT = 300


class ModeOption(Enum):
    """Which tier answers."""

    AUTO = "auto"
    SMALL = "small"
    LARGE = "large"
    SHADOW = "shadow"


class UpExporter(Enum):
    """Where the services' spans go; standard output is taken by their logs."""

    FILE = "file"
    OTLP = "otlp"
    NONE = "none"


MODES = {
    ModeOption.AUTO: Mode.AUTO,
    ModeOption.SMALL: Mode.SMALL_ONLY,
    ModeOption.LARGE: Mode.LARGE_ONLY,
    ModeOption.SHADOW: Mode.SHADOW,
}

Target = Annotated[str, typer.Option(envvar="MARGINAL_TARGET", help="The router, HOST:PORT.")]
StateDir = Annotated[
    Path, typer.Option(envvar="MARGINAL_STATE_DIR", help="Where `marginal up` keeps its logs and spans.")
]
DemoStateDir = Annotated[
    Path | None, typer.Option(envvar="MARGINAL_STATE_DIR", help="Reconcile costs with the logs that `up` keeps here.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")]
Questions = Annotated[
    Path | None,
    typer.Option(
        envvar="MARGINAL_QUESTIONS",
        help="For the demo, a JSON object with id, task, request and answer a line; bundled ones by default.",
    ),
]
Choices = Annotated[
    str, typer.Option(help="Classes, separated by commas, that the score compares; they do not constrain the text.")
]
PairName = Annotated[str, typer.Option("--pair", envvar="MARGINAL_PAIR", help="A pair of the catalogue.")]
Limit = Annotated[int, typer.Option(min=1, help="For the demo, questions at most; every task in its share.")]
Offset = Annotated[
    int | None,
    typer.Option(
        min=0, help="Ask those after the first so many that `marginal record` takes: fresh ones.", show_default="spread"
    ),
]
PolicyNames = Annotated[list[str], typer.Option("--policy", help="A policy to measure; may be given several times.")]
Concurrency = Annotated[int, typer.Option(min=1, help="Requests under way at a time.")]
