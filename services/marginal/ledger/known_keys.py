"""The idempotency keys that one router has granted, so that it knows them again while the shared store is away.

A key that another router granted is not known here: the store alone knows all of them.
"""

from collections import OrderedDict
from dataclasses import dataclass

from marginal.ledger.ports import REMEMBERED_SECONDS, Settled
from marginal.ledger.refusals import already_answered, in_progress, key_reused
from marginal.routing.holds import Ask

MOST_KEYS = 100_000


@dataclass(slots=True)
class _Owner:
    request_id: str
    fingerprint: str
    until: float
    answered: bool = False


class KnownKeys:
    """Keys and the requests that have them, for as long as a store remembers them; times are seconds of one clock."""

    def __init__(self, most: int = MOST_KEYS) -> None:
        """The oldest are forgotten when there are more than `most`."""
        self._most = most
        self._owners: OrderedDict[str, _Owner] = OrderedDict()

    def check(self, ask: Ask, now: float) -> None:
        """Raises InProgress, AlreadyAnswered or KeyReused for a key that another request has."""
        owner = self._owners.get(ask.key)
        if owner is None or owner.request_id == ask.request_id or owner.until < now:
            return
        if owner.fingerprint != ask.fingerprint:
            raise key_reused()
        raise already_answered(owner.request_id) if owner.answered else in_progress(owner.request_id)

    def granted(self, ask: Ask, now: float) -> None:
        """The request has the key now."""
        if not ask.key:
            return
        self._owners[ask.key] = _Owner(ask.request_id, ask.fingerprint, now + REMEMBERED_SECONDS)
        self._owners.move_to_end(ask.key)
        if len(self._owners) > self._most:
            self._owners.popitem(last=False)

    def settled(self, one: Settled) -> None:
        """A request that was answered keeps its key for good, one that was not gives it back."""
        owner = self._owners.get(one.key)
        if owner is None or owner.request_id != one.request_id:
            return
        if one.answered:
            owner.answered = True
        else:
            del self._owners[one.key]
