"""Records for the requests of routers that died, reckoned here, until their own routers tell what they came to.

A router that comes back tells the truth under the same id, which the store puts in the place of what was reckoned. Its
journal may then forget the id, when it sums the record up; so this journal says in time that its own record is
superseded, lest a store that was emptied is told of both. In time is within the five minutes for which files are kept
after the store was told. A router that is down, or without the store, from then until the store has lost its contents
has not seen the truth: such a request counts twice in budgets, at most at the whole of what was held for it.
"""

from collections.abc import Callable, Mapping

from marginal.ledger.journal import Journal
from marginal.ledger.journal_lines import Admitted, Fields, reckoned, record_line, superseded_line
from marginal.ledger.ports import REMEMBERED_SECONDS, Expired, Store
from marginal.routing.holds import HoldState, Scope
from marginal.routing.records import CostRecord, Settlement

AT_A_TIME = 500
WATCHED_SECONDS = 2.0 * REMEMBERED_SECONDS
"""A request that a store does not know so long after its admission was forgotten there, and not only just lost."""


class Burials:
    """What one router reckoned of others' requests."""

    def __init__(
        self,
        store: Store,
        journal: Journal,
        *,
        fields: Fields,
        currency: str,
        clock: Callable[[], float],
        told: Callable[[CostRecord], None],
    ) -> None:
        """`clock` gives seconds since the Unix epoch; `told` takes the records."""
        self._store = store
        self._journal = journal
        self._fields = fields
        self._currency = currency
        self._clock = clock
        self._told = told
        self._watched: dict[str, float] = {}

    def watch(self, reckoned_before: Mapping[str, float]) -> None:
        """Looks for the truth of requests that earlier lives reckoned, by when they were admitted."""
        self._watched.update(reckoned_before)

    async def bury(self, knows: Callable[[str], bool]) -> None:
        """Writes a record for every hold that expired but those that the router `knows` better, then says so.

        Raises StoreAway.
        """
        if not self._journal.writable:
            return
        expired = [one for one in await self._store.expire() if not knows(one.request_id)]
        for one in expired:
            self._write(one)
        await self._journal.durable()
        if expired and self._journal.writable:
            await self._store.acknowledge([one.request_id for one in expired])

    async def supersede(self) -> None:
        """Writes down of which requests the store has got the truth; looks at AT_A_TIME of them, then at the next.

        Raises StoreAway.
        """
        looked_at = dict(one for one, _ in zip(self._watched.items(), range(AT_A_TIME), strict=False))
        if not looked_at or not self._journal.writable:
            return
        states, long_ago = await self._store.states(list(looked_at)), self._clock() - WATCHED_SECONDS
        if superseded := [one for one in looked_at if states.get(one) is HoldState.SETTLED]:
            self._journal.append(superseded_line(superseded))
        for request_id, admitted_at in looked_at.items():
            del self._watched[request_id]
            state = states.get(request_id)
            if state is not HoldState.SETTLED and (state is not None or admitted_at > long_ago):
                self._watched[request_id] = admitted_at

    def _write(self, one: Expired) -> None:
        dead = Admitted(one.request_id, one.tenant, one.admitted_at, one.charged_nanos, Scope.FULL.value)
        record = reckoned(dead, one.charged_nanos, Settlement.EXPIRED, self._currency)
        self._journal.append(record_line(record, self._fields))
        self._told(record)
        self._watched[one.request_id] = one.admitted_at
