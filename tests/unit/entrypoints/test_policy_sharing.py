"""A router that starts goes on from what others have learnt, and from its file while the store is away."""

from pathlib import Path

import pytest

from unit.entrypoints.test_policy_keeping import KEPT, Kept, acme
from unit.ledger.fragile import Connection, FragileStore


def kept(directory: Path) -> Kept:
    directory.mkdir()
    return Kept(directory)


async def test_the_store_counts_where_more_was_learnt_and_the_file_where_it_is_away(tmp_path: Path) -> None:
    store, old, new = FragileStore(), kept(tmp_path / "old"), kept(tmp_path / "new")
    first = old.keeper()
    async with first.running(), first.sharing(Connection(store)):
        for _ in range(10):
            acme(first).judged(KEPT, deferrable=True)
    second = new.keeper()
    async with second.sharing(Connection(store)):
        assert acme(second).threshold.value == pytest.approx(acme(first).threshold.value)
    store.away = True
    restarted = old.keeper()
    async with restarted.sharing(Connection(store)):
        assert acme(restarted).threshold.value == pytest.approx(acme(first).threshold.value)
    assert len(old.events("thresholds are not shared now")) == 1
    assert len(new.events("thresholds shared")) == 1
