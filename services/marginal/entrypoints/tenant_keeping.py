"""Keeps a router's tenants and API keys up with their files."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marginal.entrypoints.following import Followed, followed_file, following
from marginal.routing.keyring import Keyring
from marginal.routing.tenants import Tenants
from marginal.settings.keys_file import keys_file
from marginal.settings.tenant_file import tenants_file
from marginal.telemetry.logs import Log
from marginal.telemetry.metrics import Metrics
from marginal.transport.credentials import Callers


@dataclass(frozen=True, slots=True)
class TenantFiles:
    """Where tenants and keys come from; None is no rules for anybody, and no keys.

    `trust_header` bills whom the caller names; with keys the key alone tells.
    """

    tenants: Path | None = None
    keys: Path | None = None
    trust_header: bool = False


class TenantKeeper:
    """Who may call one router and what each may do: `tenants` is in force now, `callers` tells them apart."""

    def __init__(self, files: TenantFiles, *, log: Log, metrics: Metrics) -> None:
        """Reads both files. Raises ConfigurationError naming the file."""
        self.tenants = Tenants()
        self._keyring = Keyring()
        self.followed: list[Followed[str, Any]] = []
        self.callers = Callers(None if files.keys is None else self._tenant, trust_header=files.trust_header)

        def take_tenants(tenants: Tenants) -> None:
            self.tenants = tenants

        def take_keys(keyring: Keyring) -> None:
            self._keyring = keyring

        if files.tenants is not None:
            self.followed.append(followed_file("tenants", tenants_file(files.tenants), take_tenants, log, metrics))
        if files.keys is not None:
            self.followed.append(followed_file("keys", keys_file(files.keys), take_keys, log, metrics))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follows the files meanwhile."""
        async with following(*self.followed):
            yield

    def _tenant(self, key: str) -> str:
        """Whose key it is. Raises Unauthenticated."""
        return self._keyring.owner(key, now=time.time()).tenant
