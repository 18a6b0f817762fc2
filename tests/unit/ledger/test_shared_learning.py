"""What one router has learnt is what the next one starts from, and what a fresh one cannot overwrite."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from marginal.ledger.ports import StoreAway
from marginal.ledger.shared_learning import NAME, Lessons, SharedLearning, merged
from marginal.policy.deferral import Decision, Reason, Verdict
from marginal.routing.book import Learner, PolicyBook
from marginal.settings import parse_policies
from unit.ledger.fragile import Connection, FragileStore

FILE = """
default = "one"
currency = "USD"

[prices]
small = { input_per_million_tokens = 1, output_per_million_tokens = 1 }
large = { input_per_million_tokens = 10, output_per_million_tokens = 10 }

[policies.one]
version = "1"
score = "min_margin"
threshold = { rule = "target_rate", rate = 0.3, start = 0.5 }
"""
KEPT = Decision(Verdict.KEEP, Reason.SCORE, score=0.9)


class ARouter:
    """A policy book and what shares it."""

    def __init__(self, store: FragileStore, file: str = FILE) -> None:
        self.book = PolicyBook(parse_policies(file))
        self.lessons = Lessons(self.book)
        self.shared = SharedLearning(Connection(store), self.lessons)

    def learner(self, tenant: str = "acme") -> Learner:
        return self.book.learner(self.book.policy(""), task="", tenant=tenant)

    def learns(self, lessons: int, tenant: str = "acme") -> None:
        for _ in range(lessons):
            self.learner(tenant).judged(KEPT, deferrable=True)

    def threshold(self, tenant: str = "acme") -> float:
        return self.learner(tenant).threshold.value


@pytest.fixture
def store() -> FragileStore:
    return FragileStore()


def lessons_in(store: FragileStore) -> Mapping[str, int]:
    return {entry["tenant"]: entry["lessons"] for entry in json.loads(store.learned[NAME])["learners"]}


async def test_a_new_router_starts_where_the_others_are(store: FragileStore) -> None:
    old, new = ARouter(store), ARouter(store)
    old.learns(40)
    await old.shared.exchange()
    assert await new.shared.exchange() == 1
    assert new.threshold() == pytest.approx(old.threshold())
    assert new.threshold() != 0.5


async def test_a_fresh_router_does_not_overwrite_what_an_old_one_knows(store: FragileStore) -> None:
    old, fresh = ARouter(store), ARouter(store)
    old.learns(40)
    store.away = True
    with pytest.raises(StoreAway):
        await fresh.shared.exchange()
    fresh.learns(3)
    fresh.learns(3, tenant="new")
    store.away = False
    await old.shared.exchange()
    await fresh.shared.exchange()
    assert lessons_in(store) == {"acme": 40, "new": 3}
    assert fresh.threshold() == pytest.approx(old.threshold())


async def test_what_was_taken_over_counts_as_learnt(store: FragileStore) -> None:
    old, new = ARouter(store), ARouter(store)
    old.learns(40)
    await old.shared.exchange()
    await new.shared.exchange()
    new.learns(1)
    await new.shared.exchange()
    assert lessons_in(store) == {"acme": 41}


async def test_a_router_that_is_under_way_keeps_to_its_own(store: FragileStore) -> None:
    one, other = ARouter(store), ARouter(store)
    one.learns(5)
    other.learns(9)
    await one.shared.exchange()
    await other.shared.exchange()
    before = one.threshold()
    await one.shared.exchange()
    assert one.threshold() == before
    assert lessons_in(store) == {"acme": 9}


async def test_nothing_is_written_while_nothing_is_learnt(store: FragileStore) -> None:
    router = ARouter(store)
    router.learns(5)
    await router.shared.exchange()
    calls = store.calls
    await router.shared.exchange()
    assert store.calls == calls + 1


async def test_an_emptied_store_learns_it_again(store: FragileStore) -> None:
    router = ARouter(store)
    router.learns(5)
    await router.shared.exchange()
    store.restart_empty()
    await router.shared.exchange()
    assert lessons_in(store) == {"acme": 5}


async def test_another_criterion_has_learnt_something_else(store: FragileStore) -> None:
    old, updated = ARouter(store), ARouter(store, FILE.replace("rate = 0.3", "rate = 0.4"))
    old.learns(40)
    await old.shared.exchange()
    assert await updated.shared.exchange() == 0
    updated.learns(2)
    await updated.shared.exchange()
    learners = json.loads(store.learned[NAME])["learners"]
    assert sorted(entry["lessons"] for entry in learners) == [2, 40]


@pytest.mark.parametrize(
    "text", ["{", "[]", "null", '{"version": 9}', '{"version": 1, "learners": [{"policy": "one"}]}', "[" * 100_000]
)
async def test_a_text_that_is_none_of_ours_is_replaced(store: FragileStore, text: str) -> None:
    store.learned[NAME] = text
    router = ARouter(store)
    router.learns(5)
    assert await router.shared.exchange() == 0
    assert lessons_in(store) == {"acme": 5}


async def test_a_state_that_no_rule_reads_is_replaced(store: FragileStore) -> None:
    router = ARouter(store)
    router.learns(1)
    [entry] = router.lessons.snapshot()
    bad: dict[str, Any] = {**entry, "lessons": 99, "state": {"place": "high"}}
    store.learned[NAME] = json.dumps({"version": 1, "learners": [bad]})
    before = router.threshold()
    assert await router.shared.exchange() == 0
    assert router.threshold() == before
    assert lessons_in(store) == {"acme": 1}


def test_theirs_stays_where_both_have_learnt_as_much() -> None:
    place = {"policy": "one", "task": "", "tenant": "acme", "fingerprint": "f", "lessons": 5}
    [best] = merged([place | {"state": 1}], [place | {"state": 2}]).values()
    assert best["state"] == 2
