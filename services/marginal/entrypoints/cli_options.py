"""Options that several commands of `marginal` take, and their defaults."""

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

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


class OwnEngine(Enum):
    """Which API the engine of one's own speaks that a tier of `marginal up` stands in front of."""

    OPENAI = "openai"
    TGI = "tgi"


MODES = {
    ModeOption.AUTO: Mode.AUTO,
    ModeOption.SMALL: Mode.SMALL_ONLY,
    ModeOption.LARGE: Mode.LARGE_ONLY,
    ModeOption.SHADOW: Mode.SHADOW,
}


def _own(about: str, name: str, *, show_default: str | bool = False) -> Any:
    return typer.Option(name, help=about, rich_help_panel="Engines of your own", show_default=show_default)


Target = Annotated[str, typer.Option(envvar="MARGINAL_TARGET", help="The router, HOST:PORT.")]
StateDir = Annotated[
    Path, typer.Option(envvar="MARGINAL_STATE_DIR", help="Where `marginal up` keeps its logs and spans.")
]
DemoStateDir = Annotated[
    Path | None, typer.Option(envvar="MARGINAL_STATE_DIR", help="Reconcile costs with the logs that `up` keeps here.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")]
SmallEndpoint = Annotated[
    list[str] | None,
    _own("URL of your engine as the small tier; several times, or with commas, for several.", "--small-endpoint"),
]
LargeEndpoint = Annotated[list[str] | None, _own("The same for the large tier.", "--large-endpoint")]
SmallEngine = Annotated[OwnEngine | None, _own("The API it speaks.", "--small-engine", show_default="openai")]
LargeEngine = Annotated[OwnEngine | None, _own("The API it speaks.", "--large-engine", show_default="openai")]
SmallEngineModel = Annotated[
    str | None, _own("Its name of the model.", "--small-engine-model", show_default="its only one")
]
LargeEngineModel = Annotated[
    str | None, _own("Its name of the model.", "--large-engine-model", show_default="its only one")
]
SmallKeyFile = Annotated[Path | None, _own("File that holds its API key.", "--small-api-key-file")]
LargeKeyFile = Annotated[Path | None, _own("File that holds its API key.", "--large-api-key-file")]
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
