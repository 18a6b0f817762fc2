"""What a tier may be called by: one address, a list of them, a name with many, or whatever a discovery finds."""

import asyncio
import re
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from marginal.errors import ConfigurationError

DNS = "dns:///"
KUBERNETES = "kubernetes:///"

RESOLVE_SECONDS = 5.0
EMPTY_SECONDS = 1.0
"""How often a name is looked up, and one that had no address."""

NO_ADDRESS = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}
ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.%a-z]+\]|[A-Za-z0-9._-]+):(\d{1,5})")

Push = Callable[[frozenset[str]], None]
"""Takes every address that may be called now, as "host:port"."""


@dataclass(frozen=True, slots=True)
class Discovery:
    """Where addresses come from: `follow` pushes them until it is cancelled.

    `authority` is the host name that certificates are for, where the addresses are bare numbers.
    """

    follow: Callable[[Push], Coroutine[Any, Any, None]]
    authority: str = ""


def discovery(target: str) -> Discovery:
    """That of "host:port", "host1:port,host2:port" or "dns:///name:port". Raises ConfigurationError for others.

    A name is looked up by gRPC itself in the first two; in the last each of its addresses counts by itself.
    """
    if target.startswith(DNS):
        host, port = _split(target.removeprefix(DNS), target)
        return Discovery(lambda push: _resolved(host, int(port), push), host)
    if "/" in target:
        raise ConfigurationError(f"{target}: a tier is HOST:PORT, a list of these, dns:/// or kubernetes:///")
    found = [one.strip() for one in target.split(",")]
    for one in found:
        _split(one, target)

    async def fixed(push: Push) -> None:
        push(frozenset(found))

    return Discovery(fixed)


def _split(address: str, target: str) -> tuple[str, str]:
    match = ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match[2]) < 65_536:
        raise ConfigurationError(f"{target}: {address or 'nothing'} is no HOST:PORT")
    try:
        match[1].encode("idna")  # as a look-up does it
    except UnicodeError:
        raise ConfigurationError(f"{target}: {match[1]} is no name of a host") from None
    return match[1], match[2]


async def _resolved(host: str, port: int, push: Push) -> None:
    """Looks the name up again and again; one that cannot be looked up keeps the addresses it had."""
    while True:
        found = await _looked_up(host, port)
        if found is not None:
            push(found)
        await asyncio.sleep(EMPTY_SECONDS if not found else RESOLVE_SECONDS)


async def _looked_up(host: str, port: int) -> frozenset[str] | None:
    """Its addresses, IPv4 where there are any; None when nobody can say."""
    try:
        rows = await asyncio.get_running_loop().getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        return frozenset() if error.errno in NO_ADDRESS else None
    four = frozenset(f"{row[4][0]}:{port}" for row in rows if row[0] is socket.AF_INET)
    return four or frozenset(f"[{row[4][0]}]:{port}" for row in rows if row[0] is socket.AF_INET6)
