"""A journal loses no line that it took, whatever becomes of the process, the file's end or the disk."""

import asyncio
import json
import os
import random
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marginal.errors import ConfigurationError
from marginal.ledger.journal import PASSING_RULES, Journal
from unit.ledger.made_records import journal_in, lines_in

SERVICES = Path(__file__).parents[3] / "services"


@pytest.fixture
def told() -> list[str]:
    return []


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The kernel refuses to write beyond `size` bytes of any file, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_lines_are_read_again_in_the_order_they_came(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    async with journal.running():
        for number in range(100):
            journal.append({"event": "test", "n": number})
        await journal.durable()
        assert [line["n"] for line in lines_in(tmp_path)] == list(range(100))


def test_a_line_is_in_the_file_when_append_returns(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    journal.append({"event": "test"})
    assert lines_in(tmp_path) == [{"event": "test"}]
    journal.close()


def test_whatever_a_line_holds_it_is_taken_and_can_be_read(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    for value in (float("nan"), "\ud800", "a\nb", Path("x")):
        journal.append({"event": "test", "value": value})
    journal.close()
    assert [line["value"] for line in lines_in(tmp_path)] == [None, "?", "a\nb", "x"]


async def test_everybody_who_waits_at_once_shares_a_few_syncs_and_is_woken_in_order(tmp_path: Path) -> None:
    journal, woken = journal_in(tmp_path), []

    async def one(number: int) -> None:
        journal.append({"n": number})
        await journal.durable()
        woken.append(number)

    async with journal.running():
        await asyncio.gather(*(one(number) for number in range(200)))
    assert woken == list(range(200))


async def test_giving_up_waiting_does_not_wake_the_others_too_early(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    async with journal.running():
        journal.append({"n": 1})
        waiting = [asyncio.create_task(journal.durable()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        assert await asyncio.gather(*waiting[1:]) == [None, None]


def test_a_full_file_is_followed_by_the_next(tmp_path: Path) -> None:
    journal = journal_in(tmp_path, file_bytes=100)
    for number in range(30):
        journal.append({"event": "test", "n": number})
    journal.close()
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files[:2] == ["journal-00000001.jsonl", "journal-00000002.jsonl"]
    assert all((tmp_path / name).stat().st_size <= 100 for name in files)
    assert [line["n"] for line in lines_in(tmp_path)] == list(range(30))


async def test_a_journal_that_nobody_keeps_bounds_its_disk_and_lets_nobody_wait(tmp_path: Path) -> None:
    journal = Journal(tmp_path, tell=[].append, rules=replace(PASSING_RULES, file_bytes=100))
    async with journal.running():
        for number in range(30):
            journal.append({"event": "test", "n": number})
            await journal.durable()
    numbers = [line["n"] for line in lines_in(tmp_path)]
    assert numbers == list(range(numbers[0], 30))
    assert len(numbers) < 10


def test_a_journal_goes_on_in_its_last_file(tmp_path: Path) -> None:
    for number in range(3):
        journal = journal_in(tmp_path)
        journal.append({"n": number})
        journal.close()
    assert [path.name for path in tmp_path.iterdir()] == ["journal-00000001.jsonl"]
    assert [line["n"] for line in lines_in(tmp_path)] == [0, 1, 2]


def test_a_second_router_is_refused_until_the_first_has_gone(tmp_path: Path) -> None:
    first = journal_in(tmp_path)
    with pytest.raises(ConfigurationError, match=r"journal: .* another router writes here"):
        journal_in(tmp_path)
    first.close()
    journal_in(tmp_path).close()


def test_a_directory_that_cannot_be_is_the_operators_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"journal: .*: give a directory to write to"):
        journal_in(tmp_path / "file")


LINES = b"".join(
    json.dumps({"event": "test", "n": number, "text": "ä" * number}).encode() + b"\n" for number in range(6)
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(cut=st.integers(0, len(LINES)), garbage=st.sampled_from([b"", b"\0" * 64, b'{"n":\n', b"\xff\n"]))
def test_a_torn_end_is_cut_off_and_all_before_it_stays(
    tmp_path_factory: pytest.TempPathFactory, cut: int, garbage: bytes
) -> None:
    directory, told = tmp_path_factory.mktemp("journal"), list[str]()
    (directory / "journal-00000007.jsonl").write_bytes(LINES[:cut] + garbage)
    journal = journal_in(directory, told)
    journal.append({"n": "next"})
    journal.close()
    whole = LINES[:cut].count(b"\n")
    assert [line["n"] for line in lines_in(directory)] == [*range(whole), "next"]
    torn = len(LINES[:cut] + garbage) - (LINES[:cut].rfind(b"\n") + 1)
    assert [f" {torn} bytes " in line for line in told] == ([True] if torn else [])


APPENDING = """
    import sys
    from pathlib import Path
    from marginal.ledger.journal import Journal, JournalRules
    journal = Journal(Path(sys.argv[1]), tell=print, rules=JournalRules(file_bytes=50_000))
    for number in range(10_000_000):
        journal.append({"event": "test", "n": number, "text": "x" * (number % 700)})
        print(number, flush=True)
"""


@pytest.mark.parametrize("seed", range(4))
def test_a_killed_process_loses_no_line_whose_append_returned(tmp_path: Path, seed: int) -> None:
    stop_at = random.Random(seed).randrange(1, 5_000)  # noqa: S311
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", textwrap.dedent(APPENDING), str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=SERVICES,
    ) as process:
        assert process.stdout is not None
        returned = -1
        for line in process.stdout:
            returned = int(line)
            if returned == stop_at:
                process.send_signal(signal.SIGKILL)
    journal_in(tmp_path).close()
    assert returned >= stop_at
    numbers = [line["n"] for line in lines_in(tmp_path)]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > returned


async def test_while_the_disk_is_full_lines_wait_in_memory_and_are_written_when_there_is_room(
    tmp_path: Path, told: list[str]
) -> None:
    journal = journal_in(tmp_path, told, retry_seconds=0.01, most_waiting=50)
    async with journal.running():
        with files_of_at_most(1_000):
            while not journal.full:
                journal.append({"event": "test", "n": len(lines_in(tmp_path)) + journal.waiting})
                await journal.durable()
            assert not journal.writable
            assert journal.waiting == 50
            assert 0 < (tmp_path / "journal-00000001.jsonl").stat().st_size <= 1_000
            journal.append({"event": "test", "n": len(lines_in(tmp_path)) + journal.waiting})
            await asyncio.sleep(0.05)
        async with asyncio.timeout(5):
            while not journal.writable:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.01)
        assert not journal.full
        numbers = [line["n"] for line in lines_in(tmp_path)]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) > 51
    assert told == [
        "the journal cannot be written: File too large; its lines are kept in memory until it can",
        "the journal can be written again, and nothing was lost",
    ]


def test_what_could_not_be_written_until_the_end_is_told(tmp_path: Path, told: list[str]) -> None:
    journal = journal_in(tmp_path, told)
    with files_of_at_most(0):
        journal.append({"event": "test"})
    journal.close()
    assert told[-1] == "the journal ends with 1 lines that could not be written"


class DiskThatForgets(Journal):
    """A journal whose file was closed under it, so that its next sync fails as one of a broken disk does."""

    def break_disk(self) -> None:
        os.close(self._file)
        read, write = os.pipe()
        os.close(read)
        os.dup2(write, self._file)
        os.close(write)


async def test_after_a_failed_sync_all_since_the_last_good_one_is_written_again_elsewhere(
    tmp_path: Path, told: list[str]
) -> None:
    journal = DiskThatForgets(tmp_path, tell=told.append)
    journal.append({"n": 0})
    await journal.durable()
    journal.append({"n": 1})
    journal.append({"n": 2})
    journal.break_disk()  # a pipe cannot be synced
    await journal.durable()
    assert not journal.writable
    async with journal.running():
        pass
    assert journal.writable
    written = [json.loads(line) for line in (tmp_path / "journal-00000002.jsonl").read_bytes().splitlines()]
    assert written == [{"event": "again", "since": 1}, {"n": 1}, {"n": 2}]


FILLING = """
    import asyncio, sys
    from pathlib import Path
    from marginal.ledger.journal import Journal, JournalRules
    async def main(disk):
        (disk / "other").write_bytes(b"x" * 800_000)
        rules = JournalRules(file_bytes=50_000, retry_seconds=0.01, most_waiting=2_000)
        journal, number = Journal(disk / "journal", tell=print, rules=rules), 0
        async with journal.running():
            while journal.waiting < 500:
                journal.append({"n": number, "text": "x" * 100})
                await journal.durable()
                number += 1
            print("waiting", journal.waiting, "full", journal.full)
            (disk / "other").unlink()
            while not journal.writable:
                await asyncio.sleep(0.01)
        lines = [l for p in sorted((disk / "journal").iterdir()) for l in p.read_bytes().splitlines()]
        print("whole", [__import__("json").loads(line)["n"] for line in lines] == list(range(number)))
    asyncio.run(main(Path(sys.argv[1])))
"""


def test_a_disk_that_really_is_full_and_has_room_again(tmp_path: Path) -> None:
    """F42, on a file system of one megabyte in a mount namespace of its own."""
    mounting = 'mount -t tmpfs -o size=1m none "$1" && exec "$2" -c "$3" "$1"'
    command = ["unshare", "-rm", "sh", "-c", mounting, "sh", str(tmp_path), sys.executable, textwrap.dedent(FILLING)]
    ran = subprocess.run(  # noqa: S603
        command, cwd=SERVICES, capture_output=True, text=True, check=False, timeout=60
    )
    if "unshare" in ran.stderr or "mount:" in ran.stderr:
        pytest.skip(f"no mount namespace to be had here: {ran.stderr.strip()}")
    assert ran.stdout.splitlines() == [
        "the journal cannot be written: No space left on device; its lines are kept in memory until it can",
        "waiting 500 full False",
        "the journal can be written again, and nothing was lost",
        "whole True",
    ], ran.stderr
