"""What a store is still to be told: kept while it is away, and sent in batches while it is there.

Pure. It keeps the newest mark of an open hold and the newest record of a request. Beyond MOST_RECORDS the oldest
records are let go, and `spilled` says when the first of them was admitted: they are in the journal too and must be told
from there. What was sent in the last RECALL_SECONDS is remembered, since a store that fails over may have lost it.
`now` is in seconds of any clock.
"""

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from marginal.ledger.ports import Settled

MOST_RECORDS = 50_000
MOST_SENT = 2_048
RECALL_SECONDS = 300.0
BATCH = 200
_SECOND = 1.0


@dataclass(frozen=True, slots=True)
class Parcel:
    """What is sent at a time: records first, then marks and the leases they ask for, then acknowledgements."""

    settled: Sequence[Settled]
    marks: Mapping[str, int]
    acknowledged: Sequence[str]
    lease_seconds: float


class Outbox:
    """What is put in stays until it is said to be delivered."""

    def __init__(self, *, most_records: int = MOST_RECORDS) -> None:
        self._most_records = most_records
        self._settled: dict[str, Settled] = {}
        self._marks: dict[str, int] = {}
        self._acknowledged: dict[str, None] = {}
        self._lease_seconds = 0.0
        self._sent: deque[tuple[float, Settled]] = deque(maxlen=MOST_SENT)
        self._lately: deque[tuple[float, float]] = deque()
        """When the oldest record that was delivered in a second was admitted, after when that second began."""
        self.spilled: float | None = None

    def __len__(self) -> int:
        return len(self._settled) + len(self._marks) + len(self._acknowledged) + (self.spilled is not None)

    def oldest(self, now: float) -> float:
        """When the first of the records was admitted that wait, or were delivered in the last RECALL_SECONDS; infinity
        when there is none.
        """
        while self._lately and now - self._lately[0][0] > RECALL_SECONDS + _SECOND:
            self._lately.popleft()
        waiting = (one.admitted_at for one in self._settled.values())
        return min(chain(waiting, (admitted_at for _, admitted_at in self._lately)), default=math.inf)

    def settle(self, settled: Iterable[Settled]) -> None:
        """Puts records in; one that is final is not replaced by one that is not."""
        for one in settled:
            before = self._settled.get(one.request_id)
            if before is None or one.final or not before.final:
                self._settled[one.request_id] = one
            self._marks.pop(one.request_id, None)
        while len(self._settled) > self._most_records:
            self.spill(self._settled.pop(next(iter(self._settled))).admitted_at)

    def spill(self, admitted_at: float) -> None:
        """What was admitted since then must be told from the journal."""
        self.spilled = admitted_at if self.spilled is None else min(self.spilled, admitted_at)

    def progress(self, marks: Mapping[str, int], lease_seconds: float) -> None:
        """Puts marks of open holds in; they never go down."""
        self._lease_seconds = lease_seconds
        for request_id, nanos in marks.items():
            if request_id not in self._settled:
                self._marks[request_id] = max(nanos, self._marks.get(request_id, 0))

    def acknowledge(self, request_ids: Iterable[str]) -> None:
        """Puts acknowledgements in."""
        self._acknowledged.update(dict.fromkeys(request_ids))

    def recall(self, now: float) -> None:
        """Puts the latest that were sent in again, except where a newer record of the same request waits."""
        sent = [one for at, one in self._sent if now - at < RECALL_SECONDS]
        waiting = self._settled
        self._sent.clear()
        self._settled = {}
        self.settle(sent)
        self.settle(waiting.values())

    def parcel(self) -> Parcel:
        """The next to be sent, the oldest first."""
        settled = [one for one, _ in zip(self._settled.values(), range(BATCH), strict=False)]
        marks = dict(one for one, _ in zip(self._marks.items(), range(BATCH), strict=False))
        acknowledged = [one for one, _ in zip(self._acknowledged, range(BATCH), strict=False)]
        return Parcel(settled, marks, acknowledged, self._lease_seconds)

    def delivered(self, parcel: Parcel, now: float) -> None:
        """Takes out what was sent, unless something newer has come meanwhile."""
        for one in parcel.settled:
            if self._settled.get(one.request_id) is one:
                del self._settled[one.request_id]
        for request_id, nanos in parcel.marks.items():
            if self._marks.get(request_id) == nanos:
                del self._marks[request_id]
        for request_id in parcel.acknowledged:
            self._acknowledged.pop(request_id, None)
        self._sent.extend((now, one) for one in parcel.settled)
        if parcel.settled:
            self.told(min(one.admitted_at for one in parcel.settled), now)

    def told(self, since: float, now: float) -> None:
        """Remembers that the store was told just now of records that were admitted since then."""
        if self._lately and now - self._lately[-1][0] < _SECOND:
            begun, before = self._lately.pop()
            self._lately.append((begun, min(before, since)))
        else:
            self._lately.append((now, since))
