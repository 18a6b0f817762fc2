"""Whether money is conserved: what a store says was spent and is held, against the records and the open holds.

Pure. In every window of every tenant: committed + held == sum of its records + sum of its open holds.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from marginal.ledger.ports import Balance, Settled
from marginal.routing.holds import Window


@dataclass(frozen=True, slots=True)
class Difference:
    """What a window of the store has more than the records and the open holds; less than 0 when it lacks something."""

    tenant: str
    window: Window
    period: str
    nanos: int


def differences(records: Iterable[Settled], holds: Iterable[Settled], balances: Iterable[Balance]) -> list[Difference]:
    """The windows that do not add up; `holds` are requests under way with what is held for them.

    Only windows that a balance is given for are looked at, each one once.
    """
    expected: Counter[tuple[str, Window, str]] = Counter()
    for one in (*records, *holds):
        for window in Window:
            expected[one.tenant, window, window.period(one.admitted_at)] += one.nanos
    found = (
        Difference(
            each.tenant,
            each.window,
            each.period,
            each.committed_nanos + each.held_nanos - expected[each.tenant, each.window, each.period],
        )
        for each in balances
    )
    return [difference for difference in found if difference.nanos]


def not_once(admitted: Iterable[str], recorded: Iterable[str], under_way: Iterable[str] = ()) -> Mapping[str, int]:
    """The ids that have not exactly one final record, and how many they have; those under way need none yet."""
    times = Counter(iter(recorded))
    owed = set(admitted) - set(under_way)
    return {request_id: times[request_id] for request_id in sorted(owed | set(times)) if times[request_id] != 1}
