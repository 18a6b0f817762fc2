"""What a store of holds ought to know, reckoned anew each time from a list of what happened to it.

Nothing here keeps a state: every question walks the facts from the first to the last.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from marginal.ledger.ports import Settled
from marginal.routing.holds import Grant, HoldState, Window


@dataclass(frozen=True)
class Admitted:
    request_id: str
    tenant: str
    held: int
    at: float
    key: str
    fingerprint: str
    lease_until: float
    grant: Grant


@dataclass(frozen=True)
class Heard:
    request_id: str
    mark: int
    lease_until: float


@dataclass(frozen=True)
class Expired:
    request_id: str
    at: float


@dataclass(frozen=True)
class Told:
    request_id: str
    settled: Settled
    at: float


@dataclass(frozen=True)
class Acknowledged:
    request_id: str


Fact = Admitted | Heard | Expired | Told | Acknowledged


@dataclass(frozen=True)
class Standing:
    """What the facts come to for one request."""

    tenant: str
    admitted_at: float
    state: HoldState
    held: int
    charged: int
    answered: bool = False
    closed_at: float | None = None
    final: bool = False
    lease_until: float = 0.0
    acknowledged: bool = False

    @property
    def whole(self) -> int:
        """What is set aside for it, one way or the other."""
        return self.held + self.charged

    @property
    def has_key(self) -> bool:
        """Whether its idempotency key is its own, should it have one."""
        return self.answered or self.state is HoldState.HELD


def standing(facts: Sequence[Fact], request_id: str) -> Standing | None:
    """How a request stands; None when the facts do not name it."""
    return _standing([fact for fact in facts if fact.request_id == request_id])


def standings(facts: Sequence[Fact]) -> dict[str, Standing]:
    """How every request stands that the facts name."""
    own: dict[str, list[Fact]] = {}
    for fact in facts:
        own.setdefault(fact.request_id, []).append(fact)
    return {name: found for name, one in own.items() if (found := _standing(one)) is not None}


def _standing(own: Sequence[Fact]) -> Standing | None:
    hold = next((fact for fact in own if isinstance(fact, Admitted)), None)
    told = [fact for fact in own if isinstance(fact, Told)]
    expired = next((fact for fact in own if isinstance(fact, Expired)), None)
    if told:
        last = next((fact.settled for fact in told if fact.settled.final), told[-1].settled)
        tenant, at = (hold.tenant, hold.at) if hold else (told[0].settled.tenant, told[0].settled.admitted_at)
        closed_at = expired.at if expired else told[0].at
        return Standing(tenant, at, HoldState.SETTLED, 0, last.nanos, last.answered, closed_at, last.final)
    if hold is None:
        return None
    heard = [fact for fact in own[: own.index(expired) if expired else None] if isinstance(fact, Heard)]
    if expired:
        charged = max((fact.mark for fact in heard), default=0) or hold.held
        acknowledged = any(isinstance(fact, Acknowledged) for fact in own[own.index(expired) :])
        return Standing(
            hold.tenant, hold.at, HoldState.EXPIRED, 0, charged, closed_at=expired.at, acknowledged=acknowledged
        )
    lease_until = max([hold.lease_until, *(fact.lease_until for fact in heard)])
    return Standing(hold.tenant, hold.at, HoldState.HELD, hold.held, 0, lease_until=lease_until)


def money(all_of_them: Iterable[Standing], tenant: str, window: Window, period: str) -> tuple[int, int]:
    """What is committed and held: the final charges, and the open holds, of the requests admitted in the period."""
    own = [one for one in all_of_them if one.tenant == tenant and window.period(one.admitted_at) == period]
    return sum(one.charged for one in own), sum(one.held for one in own)


def key_owner(facts: Sequence[Fact], tenant: str, key: str) -> tuple[str, str] | None:
    """The request that has a key or had it last, and what was asked under it ("" where that is not known)."""
    owner: tuple[str, str] | None = None
    for place, fact in enumerate(facts):
        if isinstance(fact, Admitted) and (fact.tenant, fact.key) == (tenant, key):
            owner = (fact.request_id, fact.fingerprint)
        if isinstance(fact, Told) and (fact.settled.tenant, fact.settled.key) == (tenant, key):
            before, after = standing(facts[:place], fact.request_id), standing(facts[: place + 1], fact.request_id)
            counts = not (before and before.final) and after and after.answered
            if counts and not has_key(facts[: place + 1], owner):
                owner = (fact.request_id, "")
    return owner


def has_key(facts: Sequence[Fact], owner: tuple[str, str] | None) -> bool:
    """Whether the key is still its last owner's: one that came to nothing has left it free."""
    one = standing(facts, owner[0]) if owner else None
    return one is not None and one.has_key
