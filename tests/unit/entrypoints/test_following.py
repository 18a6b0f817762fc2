"""What is read from files is kept up with them; what is wrong is refused, and what was in force stays."""

import asyncio
import threading
from functools import partial
from pathlib import Path

import pytest

from marginal.entrypoints.following import LOOK_SECONDS, Followed
from marginal.entrypoints.tenant_keeping import TenantFiles, TenantKeeper
from marginal.errors import ConfigurationError, Unauthenticated
from marginal.settings.keys_file import minted, written_keys
from unit.telemetry.spans import MemoryLog
from unit.telemetry.test_metrics import Counted

KEY, KEPT = minted("search", now=0.0)
METADATA = [("authorization", f"Bearer {KEY}")]


class Files:
    """A tenants file and a keys file, with the keeper that follows them and all that it told."""

    def __init__(self, directory: Path) -> None:
        self.tenants, self.keys = directory / "tenants.toml", directory / "keys.jsonl"
        self.tenants.write_text("[others]\nconcurrency = 3")
        self.keys.write_text(written_keys([KEPT]))
        self.log, self.counted = MemoryLog(), Counted()
        self.keeper = TenantKeeper(
            TenantFiles(self.tenants, self.keys), log=self.log.logs.log, metrics=self.counted.metrics
        )

    def concurrency(self) -> int | None:
        return self.keeper.tenants.rules("anybody").concurrency

    async def look(self, times: int = 1) -> None:
        for _ in range(times):
            for followed in self.keeper.followed:
                await followed.look_again()

    def told(self, event: str) -> list[dict[str, object]]:
        return [line for line in self.log.events() if line["event"] == event]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


async def test_a_change_is_taken_once_two_looks_have_seen_the_same(files: Files) -> None:
    files.tenants.write_text("[others]\nconcurrency = 4")
    await files.look()
    assert files.concurrency() == 3
    await files.look()
    assert files.concurrency() == 4
    assert [line["what"] for line in files.told("file_reread")] == ["tenants"]


async def test_a_wrong_file_is_refused_once_and_the_one_before_stays(files: Files) -> None:
    files.tenants.write_text("[others]\nconcurrency = 0")
    await files.look(4)
    assert files.concurrency() == 3
    [refused] = files.told("file_refused")
    assert "concurrency (line 2)" in str(refused["because"])
    assert list(files.counted.sums("marginal.file.rereads")) == [
        (("marginal.file", "tenants"), ("marginal.result", "refused"))
    ]


async def test_a_file_that_was_gone_is_taken_when_it_is_back(files: Files) -> None:
    files.tenants.unlink()
    await files.look(2)
    assert files.concurrency() == 3
    files.tenants.write_text("[others]\nconcurrency = 4")
    await files.look(2)
    assert files.concurrency() == 4


async def test_a_key_that_is_revoked_opens_no_more(files: Files) -> None:
    assert files.keeper.callers.tenant(METADATA) == "search"
    files.keys.write_text(files.keys.read_text().replace("}", ', "revoked": true}'))
    await files.look(2)
    with pytest.raises(Unauthenticated):
        files.keeper.callers.tenant(METADATA)


async def test_a_keys_file_that_was_emptied_by_mistake_opens_to_nobody(files: Files) -> None:
    files.keys.write_text("")
    await files.look(2)
    with pytest.raises(Unauthenticated):
        files.keeper.callers.tenant(METADATA)


async def test_no_log_line_holds_a_key_or_a_hash(files: Files) -> None:
    files.keys.write_text(f"{KEY}\n{KEPT.sha256}")
    await files.look(2)
    assert files.told("file_refused")
    assert KEY not in str(files.log.lines())
    assert KEPT.sha256 not in str(files.log.lines())


def test_a_wrong_file_at_the_start_is_an_error_that_names_it(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.tenants.write_text("[other]")
    with pytest.raises(ConfigurationError, match=str(files.tenants)):
        TenantKeeper(TenantFiles(files.tenants), log=files.log.logs.log, metrics=files.counted.metrics)


class Heard:
    """Hears what became of changes."""

    def __init__(self) -> None:
        self.all: list[str] = []

    def accepted(self) -> None:
        self.all.append("accepted")

    def refused(self, why: str) -> None:
        self.all.append(why)


async def test_whatever_goes_wrong_the_next_version_is_looked_at() -> None:
    seen, taken, heard = ["first"], list[str](), Heard()

    def take(text: str) -> None:
        if text == "second":
            raise ZeroDivisionError
        taken.append(text)

    followed = Followed("test", lambda: seen[-1], str, take, heard)
    for version in ("second", "third"):
        seen.append(version)
        await followed.look_again()
        await followed.look_again()
    assert taken == ["first", "third"]
    assert heard.all == ["test: ZeroDivisionError", "accepted"]


async def test_a_long_file_is_read_and_parsed_in_a_thread_and_put_in_force_in_the_event_loop() -> None:
    seen, threads = ["first"], dict[str, int]()

    def noted(step: str, text: str) -> str:
        threads[step] = threading.get_ident()
        return text

    followed = Followed(
        "test", lambda: noted("look", seen[-1]), partial(noted, "parse"), partial(noted, "take"), Heard()
    )
    seen.append("second")
    await followed.look_again()
    await followed.look_again()
    assert {step: thread == threading.get_ident() for step, thread in threads.items()} == {
        "look": False,
        "parse": False,
        "take": True,
    }


async def test_files_are_followed_while_the_keeper_runs(files: Files) -> None:
    async with files.keeper.running():
        files.tenants.write_text("[others]\nconcurrency = 4")
        await asyncio.sleep(4 * LOOK_SECONDS)
        assert files.concurrency() == 4
