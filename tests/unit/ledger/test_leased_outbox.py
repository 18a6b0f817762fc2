"""What a store is still to be told stays, the newest of each, until it was told."""

import math

from marginal.ledger.outbox import BATCH, RECALL_SECONDS, Outbox
from marginal.ledger.ports import Settled


def record(name: str, nanos: int = 1, *, final: bool = True) -> Settled:
    return Settled(name, "acme", nanos, 0.0, final=final)


def test_the_newest_mark_of_a_hold_and_none_once_it_is_settled() -> None:
    outbox = Outbox()
    outbox.progress({"a": 5, "b": 1}, 60.0)
    outbox.progress({"a": 3}, 60.0)
    outbox.settle([record("b")])
    outbox.progress({"b": 9}, 60.0)
    assert outbox.parcel().marks == {"a": 5}


def test_a_final_record_is_not_replaced_by_one_that_is_not() -> None:
    outbox = Outbox()
    outbox.settle([record("a", 1, final=False), record("a", 2), record("a", 1, final=False)])
    assert outbox.parcel().settled == [record("a", 2)]


def test_what_comes_while_a_parcel_is_under_way_is_sent_with_the_next() -> None:
    outbox = Outbox()
    outbox.settle([record("a", 1, final=False)])
    outbox.progress({"b": 1}, 60.0)
    parcel = outbox.parcel()
    outbox.settle([record("a", 2)])
    outbox.progress({"b": 2}, 60.0)
    outbox.delivered(parcel, 0.0)
    assert outbox.parcel().settled == [record("a", 2)]
    assert outbox.parcel().marks == {"b": 2}


def test_batches_leave_in_the_order_they_came() -> None:
    outbox = Outbox()
    outbox.settle([record(str(number)) for number in range(BATCH + 1)])
    outbox.delivered(outbox.parcel(), 0.0)
    assert [one.request_id for one in outbox.parcel().settled] == [str(BATCH)]


def test_the_oldest_are_left_to_the_journal_when_it_is_full() -> None:
    outbox = Outbox(most_records=2)
    outbox.settle([record("a"), record("b"), record("c")])
    assert [one.request_id for one in outbox.parcel().settled] == ["b", "c"]
    assert outbox.spilled == 0.0


def test_what_was_sent_lately_can_be_sent_again() -> None:
    outbox = Outbox()
    outbox.settle([record("old")])
    outbox.delivered(outbox.parcel(), 0.0)
    outbox.settle([record("new"), record("open", 1, final=False)])
    outbox.delivered(outbox.parcel(), 1_000.0)
    outbox.settle([record("open", 2)])
    outbox.recall(1_010.0)
    assert outbox.parcel().settled == [record("new"), record("open", 2)]


def test_what_was_delivered_may_still_be_lost_for_as_long_as_it_is_recalled_however_old_it_is() -> None:
    outbox = Outbox()
    for number in range(1_000):
        outbox.settle([Settled(str(number), "acme", 1, 100.0 - number)])
        outbox.delivered(outbox.parcel(), number / 10)
    assert outbox.oldest(100.0) == outbox.oldest(99.9 + RECALL_SECONDS) == 100.0 - 999
    assert outbox.oldest(102.0 + RECALL_SECONDS) == math.inf
    outbox.settle([Settled("waits", "acme", 1, 7.0)])
    assert outbox.oldest(1_000.0) == 7.0


def test_of_what_was_delivered_only_the_last_is_guarded_once_the_first_is_safe() -> None:
    outbox = Outbox()
    for at, admitted_at in ((0.0, 5.0), (200.0, 9.0)):
        outbox.settle([Settled(str(at), "acme", 1, admitted_at)])
        outbox.delivered(outbox.parcel(), at)
    assert (outbox.oldest(RECALL_SECONDS), outbox.oldest(RECALL_SECONDS + 2)) == (5.0, 9.0)
