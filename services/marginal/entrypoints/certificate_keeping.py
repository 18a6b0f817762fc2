"""Keeps the certificates of a process up with their files.

One that ends while it is in use is refused at the next look like any other that cannot work: the log says so, once.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from marginal.entrypoints.following import Followed, Rereads, following
from marginal.errors import ConfigurationError
from marginal.telemetry.logs import Log
from marginal.telemetry.metrics import Metrics
from marginal.transport.certificates import CertificateFiles, Certificates, read_certificates
from marginal.transport.tls import ClientTls, ServerTls


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of one process: `cert` and `key` are who it is, to those who call it and to those it calls.

    `client_ca` vouches for its callers, `ca` for those it calls. Without `cert` it serves in plain text, without `ca`
    it calls in plain text.
    """

    cert: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    ca: Path | None = None


class CertificateKeeper:
    """The TLS of one process in both directions; None is plain text."""

    def __init__(self, files: TlsFiles, *, log: Log, metrics: Metrics) -> None:
        """Reads the files. Raises ConfigurationError naming the one that cannot work."""
        if files.cert is None and files.key is None and files.client_ca is not None:
            raise ConfigurationError("--tls-client-ca: needs --tls-cert and --tls-key as well")
        self.server: ServerTls | None = None
        self.client: ClientTls | None = None
        self.followed: list[Followed[Certificates, Certificates]] = []

        def follow(what: str, ca: Path | None, take: Callable[[Certificates], None]) -> None:
            pem = CertificateFiles(files.cert, files.key, ca)
            look = partial(read_certificates, pem, clock=time.time)
            self.followed.append(Followed(what, look, lambda seen: seen, take, Rereads(what, log, metrics)))

        if files.cert is not None or files.key is not None:
            follow("server certificates", files.client_ca, self._serve_with)
        if files.ca is not None:
            follow("client certificates", files.ca, self._call_with)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follows the files meanwhile."""
        async with following(*self.followed):
            yield

    def _serve_with(self, certificates: Certificates) -> None:
        if self.server is None:
            self.server = ServerTls(certificates)
        else:
            self.server.replace(certificates)

    def _call_with(self, certificates: Certificates) -> None:
        if self.client is None:
            self.client = ClientTls(certificates)
        else:
            self.client.replace(certificates)
