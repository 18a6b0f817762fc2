"""Tenants: who is billed, and what each of them may do."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from marginal.errors import NotAllowed
from marginal.routing.holds import NO_BUDGET, Budget

TENANT = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
"""What a tenant's name looks like: it is part of store keys, record lines and labels."""

DEFAULT_TENANT = "default"
"""Who is billed where no API keys are in force."""


@dataclass(frozen=True, slots=True)
class TenantRules:
    """What one tenant may do, per router: requests per second, requests under way, share that goes to the large tier.

    None is no limit. `policies` empty allows every policy; `deferral_share` is in [0, 1].
    """

    budget: Budget = NO_BUDGET
    per_second: float | None = None
    burst: int = 1
    concurrency: int | None = None
    deferral_share: float | None = None
    policies: frozenset[str] = frozenset()

    def permit(self, policy: str) -> None:
        """Raises NotAllowed when the tenant may not use the policy."""
        if self.policies and policy not in self.policies:
            raise NotAllowed(f"policy: this tenant may use {', '.join(sorted(self.policies))} only")


@dataclass(frozen=True, slots=True)
class Tenants:
    """The rules of every tenant that has its own, and `others` for the rest."""

    by_name: Mapping[str, TenantRules] = field(default_factory=dict)
    others: TenantRules = TenantRules()

    def rules(self, tenant: str) -> TenantRules:
        """The rules in force for a tenant."""
        return self.by_name.get(tenant, self.others)
