"""The way to a Valkey server: how it is connected to, how scripts are run there, and what its faults are called.

Nothing is ever tried twice here: a call that timed out may have been done, and only the scripts know by their ids.
"""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from valkey.asyncio import ConnectionPool, Valkey
from valkey.asyncio.retry import Retry
from valkey.backoff import NoBackoff
from valkey.credentials import CredentialProvider
from valkey.exceptions import NoScriptError, ValkeyError
from valkey.exceptions import ResponseError as RefusedByServer
from valkey.exceptions import TimeoutError as NotInTime

from marginal.errors import ConfigurationError
from marginal.ledger.ports import StoreAway

TIMEOUT_SECONDS = 0.2
"""How long one call may take, connecting included: many times a round trip, and short for a caller who waits."""

MOST_CONNECTIONS = 32
"""Calls under way at a time; one more waits, within its timeout."""

READS = ("balances", "expired", "states", "tenants")
WRITES = ("acknowledge", "demand", "expire", "progress", "reserve", "settle")


def open_client(
    url: str,
    *,
    timeout_seconds: float = TIMEOUT_SECONDS,
    ca_file: Path | None = None,
    password_file: Path | None = None,
) -> Valkey:
    """A client of `valkey://`, or of `valkeys://` over TLS (`redis` and `rediss` too); connects when it is used.

    The password of `password_file` replaces the URL's, and both files are read anew for every connection. Raises
    ConfigurationError for a URL that is none.
    """
    options: dict[str, Any] = {
        "socket_timeout": None,  # ValkeyLink times the whole call; the driver would start a task for every command
        "socket_connect_timeout": timeout_seconds,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_timeout": False,
        "decode_responses": True,
        "lib_name": None,
        "lib_version": None,
    }
    if url.startswith(("valkeys://", "rediss://")):
        options |= {"ssl_check_hostname": True, "ssl_ca_certs": None if ca_file is None else str(ca_file)}
    elif ca_file is not None:
        raise ConfigurationError("the budget store has a CA file but no TLS: its URL must begin with valkeys://")
    try:
        pool = ConnectionPool.from_url(url, **options)
    except ValueError:
        raise ConfigurationError("the budget store's URL is none: write valkey://HOST:PORT/DATABASE") from None
    if password_file is not None:
        username = pool.connection_kwargs.pop("username", None)
        pool.connection_kwargs.pop("password", None)
        pool.connection_kwargs["credential_provider"] = PasswordFile(password_file, username)
    return Valkey.from_pool(pool)


@dataclass(frozen=True, slots=True)
class PasswordFile(CredentialProvider):
    """A password kept in a file, which may be replaced while we run."""

    path: Path
    username: str | None = None

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        password = self.path.read_text().strip()
        return (self.username, password) if self.username else (password,)


@dataclass(frozen=True, slots=True)
class Script:
    """One script's text, and the name that the server gives it."""

    text: str
    sha: str


class ValkeyLink:
    """Runs our scripts and single commands on one server; every fault of it is a StoreAway."""

    def __init__(
        self, client: Valkey, tag: str, *, timeout_seconds: float, now: Callable[[], float] | None = None
    ) -> None:
        """`tag` begins every key; `now` replaces the server's clock, in tests."""
        self._client = client
        self._tag = tag
        self._timeout_seconds = timeout_seconds
        self._now = now
        self._room = asyncio.Semaphore(MOST_CONNECTIONS)
        self._scripts = {name: _script(name, "#!lua") for name in WRITES}
        self._scripts |= {name: _script(name, "#!lua flags=no-writes") for name in READS}

    async def run(self, name: str, *arguments: str | int | float) -> Any:
        """What a script answers; loads it first where the server does not know it."""
        script = self._scripts[name]
        moment = "" if self._now is None else f"{self._now():.6f}"
        rest = (1, self._tag, moment, *arguments)
        try:
            return await self.command("EVALSHA", script.sha, *rest)
        except NoScriptError:
            return await self.command("EVAL", script.text, *rest)

    async def command(self, *words: str | int | float) -> Any:
        """What one command answers. Raises StoreAway, and NoScriptError."""
        try:
            async with asyncio.timeout(self._timeout_seconds), self._room:
                return await self._client.execute_command(*words)  # type: ignore[no-untyped-call]
        except NoScriptError:
            raise
        except (ValkeyError, OSError) as error:
            raise StoreAway(f"the budget store {_fault(error)}") from error

    def key(self, *parts: str) -> str:
        """The key of these parts."""
        return ":".join((self._tag, *parts))

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()


def _fault(error: Exception) -> str:
    """What happened, in words without an address: a URL may have a password in it."""
    if isinstance(error, (TimeoutError, NotInTime)):
        return "did not answer in time"
    if isinstance(error, RefusedByServer):
        code = str(error).partition(" ")[0]
        return f"refused: {code if code.isupper() else type(error).__name__}"
    return f"cannot be asked: {type(error).__name__}"


def _script(name: str, first_line: str) -> Script:
    folder = resources.files(__package__) / "scripts"
    texts = [(folder / file).read_text(encoding="utf-8") for file in ("holds.lua", f"{name}.lua")]
    text = "\n".join((first_line, *texts))
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
