"""A router in a process of its own, over tiers of this process that do what a prompt tells them, and its books."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.audit import Audit, audited, told_by
from engines.callers import Caller
from engines.obedient import Tiers
from engines.services import Service
from marginal.entrypoints.processes import free_addresses

SOON, EVERY_SECONDS = 20.0, 0.02
"""Seconds that anything may take on a machine that has other things to do, and how often it is looked at."""

STALL_SECONDS, KEEPALIVE_SECONDS, DEADLINE_SECONDS = 1.0, 1.0, 30.0
SMALL_FLOOR_SECONDS, LARGE_FLOOR_SECONDS = 0.2, 5.0
"""A request with less time is refused, or not worth the large tier."""

SURE, UNSURE = "small:margin=0.9", "small:margin=0.05"
POLICIES = f"""
default = "plain"
currency = "USD"

[prices.small]
input_per_million_tokens = 1
output_per_million_tokens = 10

[prices.large]
input_per_million_tokens = 10
output_per_million_tokens = 100

[policies.plain]
version = "1"
score = "first_token_margin"
threshold = {{ rule = "fixed", value = 0.5 }}
degrade = {{ small_floor_seconds = {SMALL_FLOOR_SECONDS}, large_floor_seconds = {LARGE_FLOOR_SECONDS} }}
"""


@dataclass
class House:
    """A router, its tiers, and where its books are."""

    router: Service
    tiers: Tiers
    journal: Path
    admin: str

    def caller(self) -> Caller:
        return Caller(self.router.target)

    async def audited(self) -> Audit:
        """The books, which must be clean."""
        audit = await audited(told_by(self.admin), self.journal)
        assert audit.clean, audit
        return audit

    async def idle(self) -> None:
        """Waits until no tier works for anybody any more."""
        await until(lambda: not self.tiers.active)


def house_of(folder: Path, tiers: Tiers, *options: str, journal: Path | None = None) -> House:
    """A router that is not started yet, with its budgets in memory."""
    policies, (admin,) = folder / "policies.toml", free_addresses("127.0.0.1", 1)
    policies.write_text(POLICIES)
    journal = journal or folder / "journal"
    arguments = (
        *("--policy-file", str(policies), "--journal", str(journal), "--admin-listen", admin),
        *("--stall-seconds", str(STALL_SECONDS), "--keepalive-seconds", str(KEEPALIVE_SECONDS)),
        *("--maximum-deadline-seconds", str(DEADLINE_SECONDS)),
    )
    return House(Service("router", folder, *tiers.arguments, *arguments, *options), tiers, journal, admin)


async def until(seen: Callable[[], Any]) -> None:
    """Waits for what is to be seen soon."""
    for _ in range(round(SOON / EVERY_SECONDS)):
        if seen():
            return
        await asyncio.sleep(EVERY_SECONDS)
    raise AssertionError(f"it did not happen within {SOON:g} s")
