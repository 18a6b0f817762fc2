"""`marginal keys`: creates, lists and revokes the API keys by which routers tell tenants apart."""

import fcntl
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from marginal.entrypoints.cli_options import AsJson
from marginal.entrypoints.wording import as_json
from marginal.errors import ConfigurationError, InvalidRequest
from marginal.routing.keyring import ApiKey, Keyring
from marginal.settings.keys_file import keys_file as stored_at
from marginal.settings.keys_file import minted, moment, written_keys
from marginal.whole_files import write_whole

SECONDS = {"m": 60, "h": 3_600, "d": 86_400}
ONCE = "This is the only time that the key is shown; the file holds its hash."

KeysFile = Annotated[
    Path, typer.Option(envvar="MARGINAL_KEYS_FILE", help="The keys file that routers read, see --keys-file there.")
]

app = typer.Typer(no_args_is_help=True, help="Create, list and revoke API keys.")


@app.command(
    epilog="[bold]Examples[/]\n\n"
    "marginal keys create search --keys-file keys.jsonl\n\n"
    "marginal keys create search --keys-file keys.jsonl --expires 90d --json"
)
def create(
    tenant: Annotated[str, typer.Argument(help="Who is billed for what is asked with the key.")],
    keys_file: KeysFile,
    expires: Annotated[
        str, typer.Option(help="How long it is valid, as 90d, 12h or 30m.", show_default="for ever")
    ] = "",
    json: AsJson = False,
) -> None:
    """Create a key for a tenant and show it, once; routers know it within a second."""
    now = time.time()
    key, kept = minted(tenant, now=now, expires_at=now + _seconds(expires) if expires else None)
    with _rewriting(keys_file) as keys:
        keys.append(kept)
    if json:
        Console().out(as_json(_as_json(kept, now) | {"key": key}), highlight=False)
        return
    typer.echo(key)
    until = f", valid until {moment(kept.expires_at)}" if kept.expires_at else ""
    typer.echo(f"Key {kept.id} of tenant {tenant}{until}. {ONCE}", err=True)


@app.command(
    "list", epilog="[bold]Examples[/]\n\nmarginal keys list --keys-file keys.jsonl\n\nmarginal keys list --json"
)
def list_keys(keys_file: KeysFile, json: AsJson = False) -> None:
    """List the keys: whose they are and whether they are valid; never a key itself."""
    keys, now = _read(keys_file), time.time()
    console = Console(highlight=False)
    if json:
        console.out(as_json({"keys": [_as_json(key, now) for key in keys]}), highlight=False)
        return
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for heading in ("id", "tenant", "created", "expires", "state"):
        table.add_column(heading, no_wrap=True)
    for key in keys:
        table.add_row(key.id, key.tenant, moment(key.created_at), moment(key.expires_at) or "never", _state(key, now))
    console.print(table)


@app.command(epilog="[bold]Examples[/]\n\nmarginal keys revoke 5f0c2a9b71de --keys-file keys.jsonl")
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id: what stands between mk_ and the next _.")],
    keys_file: KeysFile,
    json: AsJson = False,
) -> None:
    """Revoke a key: routers refuse it within a second or two, and it cannot be made valid again."""
    with _rewriting(keys_file) as keys:
        places = [place for place, key in enumerate(keys) if key.id == key_id]
        if not places:
            raise InvalidRequest("id", f"no key {key_id} is in {keys_file}, see `marginal keys list`")
        revoked = keys[places[0]] = replace(keys[places[0]], revoked=True)
    if json:
        Console().out(as_json(_as_json(revoked, time.time())), highlight=False)
    else:
        typer.echo(f"Key {revoked.id} of tenant {revoked.tenant} is revoked.")


@contextmanager
def _rewriting(path: Path) -> Iterator[list[ApiKey]]:
    """The keys of a file, to be changed by nobody else meanwhile; written back whole, readable by its owner only."""
    try:
        with path.parent.joinpath(f".{path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            keys = list(_read(path) if path.exists() else Keyring())
            yield keys
            write_whole(path, written_keys(keys), mode=0o600)
    except OSError as error:
        raise ConfigurationError(f"keys file {path}: cannot be written, {(error.strerror or '').lower()}") from None


def _read(path: Path) -> Keyring:
    return stored_at(path).read()


def _seconds(expires: str) -> float:
    """Raises ConfigurationError for what is no span of time."""
    span = re.fullmatch(r"(\d{1,5})([mhd])", expires)
    if span is None or not int(span[1]):
        raise ConfigurationError(f"--expires {expires}: must be a span of time such as 90d, 12h or 30m")
    return float(int(span[1]) * SECONDS[span[2]])


def _state(key: ApiKey, now: float) -> str:
    if key.revoked:
        return "revoked"
    return "valid" if key.valid(now) else "expired"


def _as_json(key: ApiKey, now: float) -> dict[str, object]:
    return {
        "id": key.id,
        "tenant": key.tenant,
        "created_at": moment(key.created_at),
        "expires_at": moment(key.expires_at),
        "state": _state(key, now),
    }
