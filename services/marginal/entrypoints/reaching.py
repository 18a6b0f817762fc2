"""How the commands of `marginal` reach services that want an API key or speak TLS: options before the command."""

import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from marginal.errors import ConfigurationError
from marginal.transport.certificates import CertificateFiles, read_certificates
from marginal.transport.tls import ClientTls

PANEL = "Reaching services"

ApiKeyFile = Annotated[
    Path | None,
    typer.Option(
        envvar="MARGINAL_API_KEY_FILE", help="File that holds the API key for the router.", rich_help_panel=PANEL
    ),
]
TlsCa = Annotated[
    Path | None,
    typer.Option(
        envvar="MARGINAL_TLS_CA", help="PEM authorities of the services; TLS is spoken then.", rich_help_panel=PANEL
    ),
]
TlsName = Annotated[
    str,
    typer.Option(
        envvar="MARGINAL_TLS_NAME",
        help="Whom the services' certificate is for, where they are reached by another name, as by a port-forward.",
        rich_help_panel=PANEL,
    ),
]
TlsCert = Annotated[
    Path | None,
    typer.Option(
        envvar="MARGINAL_TLS_CERT", help="PEM certificate to show, where one is asked for.", rich_help_panel=PANEL
    ),
]
TlsKey = Annotated[
    Path | None, typer.Option(envvar="MARGINAL_TLS_KEY", help="PEM key of --tls-cert.", rich_help_panel=PANEL)
]


@dataclass(frozen=True, slots=True)
class Reaching:
    """What a caller shows to the services, and whom it believes; without `tls` it speaks plain text."""

    api_key: str = field(default="", repr=False)
    tls: ClientTls | None = None


PLAIN = Reaching()
_current: ContextVar[Reaching] = ContextVar("reaching", default=PLAIN)


def reaching(api_key_file: Path | None, tls: CertificateFiles, tls_name: str) -> None:
    """Reads the files, for the command that follows. Raises ConfigurationError naming the one at fault."""
    if tls_name and not tls.ca:
        raise ConfigurationError("--tls-name: has no effect without --tls-ca")
    key = _key(api_key_file) if api_key_file else ""
    believed = ClientTls(read_certificates(tls, clock=time.time), name=tls_name) if tls.ca else None
    _current.set(Reaching(key, believed))


def current() -> Reaching:
    """What was given to the command that runs."""
    return _current.get()


def _key(path: Path) -> str:
    try:
        key = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise ConfigurationError(f"--api-key-file {path}: cannot be read, or is not ASCII") from None
    if not key.isprintable() or not key or " " in key:
        raise ConfigurationError(f"--api-key-file {path}: must hold one key and nothing else")
    return key
