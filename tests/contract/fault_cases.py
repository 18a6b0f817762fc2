"""What a caller sees and a record says of every fault of the catalogue F4 to F20, one case for each way to meet it."""

from collections.abc import Iterator
from dataclasses import dataclass

from contract.faulty import NEVER_SURE, PATIENT, SURE_ENOUGH, TIMEOUTS, Backend, Seen, ask
from dialects.answers import SLOW
from dialects.faults import VARIANTS
from marginal.policy.deferral import Reason
from marginal.tokens import Tier

BROKEN = ("F4/reset", "F4/close", "F7/error", "F11/stall", "F15/reset", "F19/json", "F19/utf8", "F19/long")
"""Faults of a stream that has begun."""

MUTE = ("F9/500", "F10/silent", "F12/frozen", "F13/frozen", "F19/html")
"""Faults before the first token."""

FULL = ("F8/429", "F8/503", "F8/stream")
"""An engine without room: the large tier must not take over a small one's load."""

SILENT = ("F10", "F11", "F12", "F13")
"""Faults that our patience ends; whatever else is slow is the machine, and must not be taken for one of them."""

UNSCORED = ("F16/missing", *(f"F17/{variant}" for variant in VARIANTS["F17"]))
UNCOUNTED = tuple(f"F18/{variant}" for variant in VARIANTS["F18"])
NOTICED = (*SILENT, "F16", "F17")
"""Faults that we end: the engine must see the connection cut."""

SMALL, LARGE, DEGRADED = "small answer", "large answer", "small answer, degraded: large_unavailable"
CROWDED = "small answer, degraded: overloaded"
INTERRUPTED, LATE, OVERLOADED = "StreamInterrupted", "DeadlineExceeded", "Overloaded"

ESTIMATED = "no usage: prompt tokens are estimated"


@dataclass(frozen=True)
class Case:
    """A fault, where it is met, and what the caller sees."""

    fault: str
    faulty: Tier
    outcome: str
    at: int = 0
    slow: bool = False
    threshold: float = SURE_ENOUGH
    seconds: float = 10.0

    @property
    def name(self) -> str:
        where = f"{self.faulty.value} after {self.at}" if self.at else self.faulty.value
        return f"{self.fault} {where}{'' if self.seconds == 10.0 else ' and late'}"

    async def run(self, backend: Backend) -> Seen:
        return await ask(
            backend,
            self.fault,
            at=self.at,
            faulty=self.faulty,
            threshold=self.threshold,
            seconds=self.seconds,
            words=SLOW if self.slow else "",
            timeouts=TIMEOUTS if self.fault.partition("/")[0] in SILENT else PATIENT,
        )


def _cases() -> Iterator[Case]:
    for fault in BROKEN:
        yield Case(fault, Tier.SMALL, LARGE, at=1)
        yield Case(fault.replace("F4", "F5"), Tier.SMALL, INTERRUPTED, at=6)
        yield Case(fault, Tier.LARGE, DEGRADED)
        yield Case(fault.replace("F4", "F5"), Tier.LARGE, INTERRUPTED, at=1)
    for tier in Tier:
        yield Case("F6/close", tier, INTERRUPTED)
    for fault in MUTE:
        yield Case(fault, Tier.SMALL, LARGE)
        yield Case(fault, Tier.LARGE, DEGRADED)
    for fault in FULL:
        yield Case(fault, Tier.SMALL, OVERLOADED)
        yield Case(fault, Tier.LARGE, CROWDED)
    yield Case("F14/trickle", Tier.SMALL, SMALL)
    # A deadline that falls just as a token arrives finds it on the wire: the engine has sent what nobody will read, and
    # no ledger can know. This link is stuck in the middle of the fourth token, so that what was sent is what was read.
    yield Case("F14/crawl", Tier.LARGE, LATE, at=3, seconds=0.8)
    for fault in UNSCORED:
        yield Case(fault, Tier.SMALL, LARGE, slow=True)
    for fault in ("F16/missing", "F17/nan"):
        yield Case(fault, Tier.LARGE, LARGE)
    for fault in UNCOUNTED:
        yield Case(fault, Tier.SMALL, SMALL)
        yield Case(fault, Tier.LARGE, LARGE)
    yield Case("F20/deaf", Tier.SMALL, LARGE, slow=True, threshold=NEVER_SURE)


CASES = tuple(_cases())


def rules(case: Case, backend: Backend) -> tuple[str, ...]:
    """Why the record's prompt tokens may differ from the engine's; () where they may not. Output tokens never may."""
    told = backend.dialect == "tgi" or case.fault not in UNCOUNTED
    return () if told else (ESTIMATED,)


def wrong(case: Case, backend: Backend, seen: Seen) -> list[str]:
    """Everything that is not as it has to be, in words; [] is a promise kept."""
    found: list[str] = []

    def expect(kept: bool, otherwise: str) -> None:
        if not kept:
            found.append(otherwise)

    expect(len(seen.records) == 1, f"{len(seen.records)} cost records")
    expect(seen.outcome == case.outcome, f"the caller saw: {seen.outcome}, not {case.outcome}")
    expect(not seen.leaked, "secrets in errors or records")
    expect(seen.tasks_left == seen.sockets_left == 0, f"{seen.tasks_left} tasks, {seen.sockets_left} sockets left")
    allowed = rules(case, backend)
    expect(seen.difference == 0, f"{seen.difference:+d} output tokens")
    if ESTIMATED not in allowed:
        expect(seen.input_difference == 0, f"{seen.input_difference:+d} prompt tokens")
    name, record = case.fault.partition("/")[0], seen.record
    for attempt in seen.attempts:
        begun = attempt.usage.output_tokens > 0
        expect(begun == (attempt.cost_nanos > 0), "costs without an answer, or an answer without costs")
        expect(not begun or attempt.usage.input_tokens > 0, "an answer to no prompt")
    if (name in NOTICED and case.outcome != LARGE) or (case.fault in UNSCORED and case.faulty is Tier.SMALL):
        expect(seen.log[-1].disconnected, "the engine was not told to stop")
    if case.fault in UNSCORED and case.faulty is Tier.SMALL:
        reason = record.decision.reason if record.decision else None
        expect(reason is Reason.NO_SCORE, f"decided by {reason}")
    if case.outcome == INTERRUPTED:
        expect(record.error == INTERRUPTED, f"the record's error is {record.error}")
        expect("large" not in seen.text, "the other tier went on")
    if case.outcome == LATE:
        expect([entry.sent for entry in seen.log] == [case.at], f"{seen.log[-1].sent} tokens sent before the deadline")
        expect(seen.log[-1].disconnected, "the engine was not told to stop")
    if name == "F20":
        expect(seen.log[-1].deaf and seen.log[-1].generated > seen.log[-1].sent, "the engine did stop")
    return found
