"""What a router tells its operator about money: from its journal and from its store of budgets."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from marginal.errors import LedgerUnavailable
from marginal.ledger.accounts import Accounts
from marginal.ledger.journal_costs import files_since, journal_costs, journal_record
from marginal.ledger.ports import Balance, StoreAway
from marginal.routing.spending import BudgetState, BudgetStates, CostQuery, CostSummary
from marginal.routing.tenants import Tenants


class _Closed(Exception):
    """The router ends, and nobody waits for what is being read."""


class RouterBooks:
    """The `Books` of one router: its own journal, and the balances of its store, which others may share."""

    def __init__(
        self,
        ledger: Accounts,
        tenants: Callable[[], Tenants],
        currency: Callable[[], str],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`clock` gives seconds since the Unix epoch."""
        self._ledger = ledger
        self._tenants = tenants
        self._currency = currency
        self._clock = clock
        self._closed = threading.Event()

    def costs(self, query: CostQuery) -> CostSummary:
        return journal_costs(files_since([self._ledger.directory], query.since), query, watch=self._go_on)

    def record(self, request_id: str) -> Mapping[str, Any] | None:
        return journal_record(files_since([self._ledger.directory], None), request_id, watch=self._go_on)

    async def budgets(self, tenant: str) -> BudgetStates:
        tenants = self._tenants()
        try:
            found = list(await self._ledger.balances([tenant] if tenant else ()))
            known = {one.tenant for one in found}
            idle = [name for name, rules in tenants.by_name.items() if rules.budget.limits and name not in known]
            if idle and not tenant:
                found += await self._ledger.balances(idle)
        except StoreAway:
            raise LedgerUnavailable("the store of budgets cannot be asked now") from None
        now = self._clock()
        states = sorted((self._state(one, tenants, now) for one in found), key=lambda state: state.tenant)
        return BudgetStates(self._currency(), tuple(filter(_tells, states)))

    def close(self) -> None:
        """Ends what is being read in threads."""
        self._closed.set()

    def _state(self, one: Balance, tenants: Tenants, now: float) -> BudgetState:
        limit = tenants.rules(one.tenant).budget.limits.get(one.window)
        resets = max(0.0, one.window.ends(now) - now)
        return BudgetState(one.tenant, one.window, one.period, one.committed_nanos, one.held_nanos, limit, resets)

    def _go_on(self, _: int) -> None:
        if self._closed.is_set():
            raise _Closed("the router ends")


def _tells(state: BudgetState) -> bool:
    return state.limit_nanos is not None or bool(state.spent_nanos or state.held_nanos)
