"""Whatever happens to a store, in whatever order, no nano-unit is lost or counted twice.

A longer search: `STORE_EXAMPLES=2000 services/.venv/bin/python -m pytest -c tests/pytest.ini --timeout 0
tests/unit/ledger/test_stores_stateful.py`.
"""

import asyncio
import os
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from engines.valkey import ValkeyProcess
from marginal.errors import AlreadyAnswered, BudgetExceeded, InProgress, KeyReused
from marginal.ledger.memory import MemoryStore
from marginal.ledger.ports import REMEMBERED_SECONDS, Settled, StoreEmptied
from marginal.ledger.valkey import ValkeyStore
from marginal.routing.holds import Ask, Grant, HoldState, Scope, Window
from marginal.routing.records import DegradedReason
from unit.ledger.facts import (
    Acknowledged,
    Admitted,
    Expired,
    Fact,
    Heard,
    Told,
    has_key,
    key_owner,
    money,
    standing,
    standings,
)
from unit.ledger.stored import DAY, EVENING, LEASE, SetClock, limited, open_valkey

EXAMPLES = int(os.environ.get("STORE_EXAMPLES", "100"))
STEPS = 40
MOST_SECONDS = 36 * DAY
"""Beyond 40 days a shared store gives up an expired hold that nobody acknowledged."""

RARELY = st.sampled_from((0, 0, 1))
"""How often one search restarts or empties its store, or lets a router crash: little is under way after that."""

TENANTS = ("acme", "other")
BUDGET = limited(hour=300, day=500, month=800)
REFUSED = {AlreadyAnswered: "answered", BudgetExceeded: "exceeded", InProgress: "in progress", KeyReused: "reused"}

amounts = st.integers(0, 200)
shares = st.sampled_from((0.0, 0.1, 0.5, 0.9, 1.0))
numbers = st.integers(0, 20)
tenants = st.sampled_from(TENANTS)
keys = st.sampled_from(("", "", "k", "l"))
_Result = TypeVar("_Result")


class StoreMachine(RuleBasedStateMachine):
    """Routers that reserve, tell, stall, crash and come back, over a store that fails them in every way it can."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = SetClock()
        self.loop = asyncio.new_event_loop()
        self.store = self.opened()
        self.facts: list[Fact] = []
        self.granted: dict[str, Admitted] = {}
        self.crashed: set[str] = set()
        self.beyond: list[tuple[str, float, int]] = []
        """What came to more than was held or charged for it before: it may take a tenant over its budget."""
        self.restarts = self.losses = self.crashes = 0
        """How many of each are still to come."""

    def opened(self) -> MemoryStore | ValkeyStore:
        raise NotImplementedError

    def emptied(self) -> None:
        """The store forgets everything; whoever shares it finds out."""
        raise NotImplementedError

    def restarted(self) -> bool:
        """The store's process ends and begins anew; whether it still knows everything."""
        raise NotImplementedError

    def founded(self) -> None:
        """The store was told everything and may be reserved in again."""

    def do(self, call: Coroutine[Any, Any, _Result]) -> _Result:
        return self.loop.run_until_complete(call)

    def teardown(self) -> None:
        if isinstance(self.store, ValkeyStore):
            self.do(self.store.close())
        self.loop.close()

    @initialize(
        asked=st.lists(st.tuples(tenants, amounts, shares, keys), min_size=3, max_size=6),
        rarities=st.tuples(RARELY, RARELY, RARELY),
    )
    def begin(self, asked: list[tuple[str, int, float, str]], rarities: tuple[int, int, int]) -> None:
        """A search that begins with nothing under way finds little."""
        self.restarts, self.losses, self.crashes = rarities
        for tenant, full, share, key in asked:
            self.reserve(tenant, full, share, key)

    @rule(tenant=tenants, full=amounts, share=shares, key=keys)
    def reserve(self, tenant: str, full: int, share: float, key: str) -> None:
        """A new request, perhaps under a key that was used before."""
        self.ask(f"request-{len(self.granted)}", tenant, full, share, key)

    @rule(number=numbers, tenant=tenants, full=amounts, share=shares, key=keys)
    def reserve_again(self, number: int, tenant: str, full: int, share: float, key: str) -> None:
        """A request that was granted, as after an answer that got lost."""
        name = self.named(number)
        if name is not None:
            self.ask(name, tenant, full, share, key)

    def ask(self, name: str, tenant: str, full: int, share: float, key: str) -> None:
        ask = Ask(name, tenant, int(full * share), full, BUDGET, key, f"{full % 2}" if key else "")
        if key and self.is_old(key_owner(self.facts, tenant, key)):
            return
        expected = self.expected(ask)
        grant = self.answer(ask)
        assert grant == expected
        if not isinstance(grant, Grant):
            return
        lease_until = self.clock.now + LEASE
        if standing(self.facts, name):
            self.facts.append(Heard(name, 0, lease_until))
        else:
            hold = Admitted(name, tenant, grant.held_nanos, grant.admitted_at, key, ask.fingerprint, lease_until, grant)
            self.facts.append(hold)
            self.granted[name] = hold

    @rule(number=numbers, share=shares)
    def progress(self, number: int, share: float) -> None:
        name = self.named(number, HoldState.HELD, HoldState.EXPIRED)
        if name is None:
            return
        mark = int(self.granted[name].held * share)
        self.do(self.store.progress({name: mark}, lease_seconds=LEASE))
        if self.state(name) is HoldState.HELD:
            self.facts.append(Heard(name, mark, self.clock.now + LEASE))

    @rule(number=numbers, share=shares, answered=st.booleans(), final=st.booleans(), times=st.integers(1, 2))
    def settle(self, number: int, share: float, answered: bool, final: bool, times: int) -> None:
        """In time or late, once or twice, by a router that is still there."""
        name = self.named(number, HoldState.HELD, HoldState.EXPIRED)
        if name is not None:
            self.tell([self.came_to(name, share, answered, final)] * times)

    @rule(number=numbers, share=shares, answered=st.booleans(), final=st.booleans())
    def settle_again(self, number: int, share: float, answered: bool, final: bool) -> None:
        """With what a shadow attempt has added, or with a mistake."""
        name = self.named(number, HoldState.SETTLED)
        if name is not None:
            self.tell([self.came_to(name, share, answered, final)])

    @rule(tenant=tenants, nanos=amounts, key=keys)
    def tell_of_one_that_was_granted_elsewhere(self, tenant: str, nanos: int, key: str) -> None:
        """As by a router that lent from its own slice while the store was away."""
        if key and self.is_old(key_owner(self.facts, tenant, key)):
            return
        self.tell([Settled(f"elsewhere-{len(self.beyond)}", tenant, nanos, self.clock.now, key=key)])

    @rule(number=numbers, named=st.booleans())
    def expire(self, number: int, named: bool) -> None:
        """Every lease that is over, and one hold by its name."""
        name = self.named(number, HoldState.HELD)
        names = [name] if name is not None and named else []
        found = self.do(self.store.expire(names))
        self.facts += [
            Expired(name, self.clock.now)
            for name, one in standings(self.facts).items()
            if one.state is HoldState.HELD and (one.lease_until <= self.clock.now or name in names)
        ]
        assert sorted((one.request_id, one.tenant, one.charged_nanos, one.admitted_at) for one in found) == sorted(
            (name, one.tenant, one.charged, one.admitted_at)
            for name, one in standings(self.facts).items()
            if one.state is HoldState.EXPIRED and not one.acknowledged
        )

    @rule(number=numbers, marks=st.lists(shares, max_size=3))
    def stall(self, number: int, marks: list[float]) -> None:
        """A router tells how far it has come, and then nothing for so long that its hold expires."""
        for share in marks:
            self.progress(number, share)
        self.clock.now += LEASE
        self.expire(number, named=False)

    @rule(number=numbers)
    def acknowledge(self, number: int) -> None:
        name = self.named(number, HoldState.EXPIRED, HoldState.HELD)
        if name is not None:
            self.do(self.store.acknowledge([name]))
            self.facts.append(Acknowledged(name))

    @precondition(lambda self: self.crashes and self.open_names())
    @rule(number=numbers)
    def crash(self, number: int) -> None:
        """A router dies: of every second of its open holds nobody ever hears again."""
        self.crashes -= 1
        self.crashed |= {name for place, name in enumerate(self.open_names()) if place % 2 == number % 2}

    @rule(seconds=st.sampled_from((1.0, LEASE / 2, LEASE)))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(window=st.sampled_from(Window), before=st.sampled_from((0.0, 0.0, 1.0)))
    def roll(self, window: Window, before: float) -> None:
        """A window ends, or is about to."""
        later = window.ends(self.clock.now) - before
        if later < EVENING + MOST_SECONDS:
            self.clock.now = max(self.clock.now, later)

    @precondition(lambda self: self.restarts)
    @rule()
    def restart(self) -> None:
        self.restarts -= 1
        if not self.restarted():
            self.rebuild()

    @precondition(lambda self: self.losses)
    @rule()
    def empty(self) -> None:
        """The store comes back with nothing, and the routers that are still there tell it what they know."""
        self.losses -= 1
        self.emptied()
        self.rebuild()

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        known = standings(self.facts).values()
        for balance in self.do(self.store.balances(TENANTS)):
            expected = money(known, balance.tenant, balance.window, balance.period)
            assert (balance.committed_nanos, balance.held_nanos) == expected
            beyond = sum(
                nanos
                for tenant, at, nanos in self.beyond
                if tenant == balance.tenant and balance.window.period(at) == balance.period
            )
            assert sum(expected) <= BUDGET.limits[balance.window] + beyond

    def answer(self, ask: Ask) -> Grant | str:
        """What the store says to an ask."""
        try:
            return self.do(self.store.reserve(ask, lease_seconds=LEASE))
        except tuple(REFUSED) as error:
            return REFUSED[type(error)]

    def expected(self, ask: Ask) -> Grant | str:
        """What an ask must be answered, by the facts."""
        before = standing(self.facts, ask.request_id)
        if before:
            same = before.state is HoldState.HELD and before.tenant == ask.tenant
            return self.granted[ask.request_id].grant if same else "answered"
        owner = key_owner(self.facts, ask.tenant, ask.key) if ask.key else None
        if owner and has_key(self.facts, owner):
            if owner[1] not in ("", ask.fingerprint):
                return "reused"
            return "in progress" if self.state(owner[0]) is HoldState.HELD else "answered"
        for nanos, scope in ((ask.full_nanos, Scope.FULL), (ask.small_nanos, Scope.SMALL)):
            if all(self.spent(ask.tenant, window) + nanos <= limit for window, limit in BUDGET.limits.items()):
                blocked = DegradedReason.BUDGET if scope is Scope.SMALL else None
                return Grant(nanos, scope, self.clock.now, blocked)
        return "exceeded"

    def tell(self, told: Sequence[Settled]) -> None:
        self.do(self.store.settle(told))
        for one in told:
            before = standing(self.facts, one.request_id)
            self.facts.append(Told(one.request_id, one, self.clock.now))
            after = standing(self.facts, one.request_id)
            more = (after.whole if after else 0) - (before.whole if before else 0)
            self.beyond.append((one.tenant, one.admitted_at, max(0, more)))

    def rebuild(self) -> None:
        """Every record counts again, and every hold of a router that lives is told as if it came to the whole."""
        if isinstance(self.store, ValkeyStore):
            self.refuses_to_reserve()
        known, keys, beyond = standings(self.facts), self.keys(), list(self.beyond)
        self.facts = []
        self.tell(
            [
                Settled(name, one.tenant, one.whole, one.admitted_at, one.answered, one.final, keys[name])
                for name, one in known.items()
                if one.state is not HoldState.HELD or name not in self.crashed
            ]
        )
        self.beyond = beyond
        self.founded()

    def keys(self) -> dict[str, str]:
        """The idempotency key that each request came with."""
        told = {fact.request_id: fact.settled.key for fact in self.facts if isinstance(fact, Told)}
        return told | {name: hold.key for name, hold in self.granted.items()}

    def refuses_to_reserve(self) -> None:
        try:
            self.do(self.store.reserve(Ask("too-early", "acme", 0, 0), lease_seconds=LEASE))
        except StoreEmptied:
            return
        raise AssertionError("an emptied store granted something")

    def came_to(self, name: str, share: float, answered: bool, final: bool) -> Settled:
        hold = self.granted[name]
        return Settled(name, hold.tenant, int(hold.held * share), hold.at, answered, final, hold.key)

    def named(self, number: int, *states: HoldState) -> str | None:
        """A request that was granted and whose router lives, of the newest ones that stand so; any state when none."""
        living = [name for name in reversed(self.granted) if name not in self.crashed and not self.is_old((name, ""))]
        names = [name for name in living if not states or self.state(name) in states]
        return names[number % min(len(names), 6)] if names else None

    def is_old(self, owner: tuple[str, str] | None) -> bool:
        """Whether a store may have forgotten a request."""
        one = standing(self.facts, owner[0]) if owner else None
        return one is not None and one.closed_at is not None and self.clock.now - one.closed_at >= REMEMBERED_SECONDS

    def open_names(self) -> list[str]:
        return [name for name, one in standings(self.facts).items() if one.state is HoldState.HELD]

    def state(self, name: str) -> HoldState | None:
        one = standing(self.facts, name)
        return one.state if one else None

    def spent(self, tenant: str, window: Window) -> int:
        return sum(money(standings(self.facts).values(), tenant, window, window.period(self.clock.now)))


class MemoryMachine(StoreMachine):
    """The store is its router's memory: it ends with it."""

    def opened(self) -> MemoryStore:
        return MemoryStore(self.clock)

    def emptied(self) -> None:
        self.store = self.opened()

    def restarted(self) -> bool:
        self.emptied()
        return False


class ValkeyMachine(StoreMachine):
    """The store is a server that routers share, with an append-only file."""

    server: ValkeyProcess

    def opened(self) -> ValkeyStore:
        self.server.empty()
        store = open_valkey(self.server, self.clock)
        store.join(self.do(store.found("epoch-0")))
        return store

    def emptied(self) -> None:
        self.server.empty()

    def restarted(self) -> bool:
        self.server.restart()
        self.do(asyncio.sleep(0.01))  # for the connections to notice
        return True

    def founded(self) -> None:
        self.store.join(self.do(self.store.found(f"epoch-{len(self.granted)}")))


def search(examples: int) -> settings:
    return settings(
        max_examples=examples, stateful_step_count=STEPS, deadline=None, suppress_health_check=list(HealthCheck)
    )


@pytest.mark.timeout(300)
def test_nothing_is_lost_or_doubled_in_memory() -> None:
    run_state_machine_as_test(MemoryMachine, settings=search(EXAMPLES))


@pytest.mark.timeout(300)
def test_nothing_is_lost_or_doubled_in_valkey(valkey_server: ValkeyProcess) -> None:
    class Machine(ValkeyMachine):
        server = valkey_server

    run_state_machine_as_test(Machine, settings=search(EXAMPLES // 2))
