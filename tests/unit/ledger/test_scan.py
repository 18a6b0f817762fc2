"""One reading of a journal gives what every finished request came to, and remembers only those not finished."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from marginal.ledger.journal_files import journal_files, journal_groups, journal_number
from marginal.ledger.journal_lines import (
    Admitted,
    admitted_line,
    again_line,
    encoded,
    progress_line,
    record_line,
    superseded_line,
)
from marginal.ledger.ports import Settled
from marginal.ledger.scan import Scan
from marginal.routing.records import Settlement
from unit.ledger.made_records import FIELDS, NOW, record

Line = Mapping[str, Any]


def let_in(request_id: str) -> Line:
    return admitted_line(Admitted(request_id, "acme", NOW, 1_000, "full"))


def charge(request_id: str, nanos: int, **more: Any) -> Line:
    return record_line(record(request_id, nanos=nanos, **more), FIELDS)


def files_of(directory: Path, *files: Sequence[Line]) -> Sequence[Path]:
    for number, lines in enumerate(files, 1):
        (directory / f"journal-{number:08d}.jsonl").write_bytes(b"".join(map(encoded, lines)))
    return journal_files(directory)


def scanned(files: Sequence[Path]) -> tuple[Scan, list[tuple[str, int]]]:
    scan = Scan()
    return scan, [(one.request_id, one.nanos) for one in scan.finished(files)]


def test_a_request_under_way_is_remembered_with_its_newest_mark_until_its_last_record(tmp_path: Path) -> None:
    lines = [let_in("1"), let_in("2"), progress_line({"1": 10, "2": 20, "?": 1}, NOW), progress_line({"1": 15}, NOW)]
    scan, finished = scanned(files_of(tmp_path, lines, [charge("2", 30)]))
    assert finished == [("2", 30)]
    assert (set(scan.unfinished), scan.marks, scan.lines) == ({"1"}, {"1": 15}, 5)


def test_nothing_is_remembered_of_requests_that_are_finished(tmp_path: Path) -> None:
    names = [str(number) for number in range(50)]
    files = files_of(
        tmp_path, [*map(let_in, names)], [charge(n, 1, open=True) for n in names], [charge(n, 2) for n in names]
    )
    scan, finished = scanned(files)
    assert finished == [(name, 2) for name in names]
    assert [*scan.unfinished, *scan.marks, *scan.answered, *scan.expired] == []


def test_an_answer_whose_shadow_is_under_way_is_unfinished_and_its_record_is_known(tmp_path: Path) -> None:
    scan, finished = scanned(files_of(tmp_path, [let_in("1"), charge("1", 100, open=True)]))
    assert (finished, set(scan.unfinished), scan.answered["1"]["total_nanos"]) == ([], {"1"}, 100)


def test_what_was_reckoned_of_anothers_request_is_unsure_until_the_truth_comes(tmp_path: Path) -> None:
    reckoned = [charge(name, 9, settlement=Settlement.EXPIRED) for name in "12"]
    scan, finished = scanned(files_of(tmp_path, reckoned, [charge("2", 7)]))
    assert finished == [("2", 7)]
    assert scan.expired == {"1": Settled("1", "acme", 9, NOW, answered=True, final=False)}


def test_what_was_reckoned_is_needed_no_more_once_the_truth_was_told_elsewhere(tmp_path: Path) -> None:
    reckoned = [charge(name, 9, settlement=Settlement.EXPIRED) for name in "123"]
    scan, finished = scanned(files_of(tmp_path, reckoned, [superseded_line(["2", "3", "summed"]), reckoned[2]]))
    assert (finished, sorted(scan.expired), scan.superseded) == ([], ["1", "3"], {"summed"})


def test_lines_that_are_there_again_count_once_and_begin_nothing_anew(tmp_path: Path) -> None:
    """F43: after a failed sync lines are written again, and a crash may cut that short."""
    first, second = [let_in("1"), charge("1", 5)], [let_in("2"), charge("2", 6), let_in("3")]
    again = [again_line(1), *first, let_in("2"), charge("3", 7)]
    files = files_of(tmp_path, first, second, again, [charge("4", 8)])
    assert [[journal_number(path) for path in group] for group in journal_groups(files)] == [[1, 2, 3], [4]]
    scan, finished = scanned(files)
    assert finished == [("1", 5), ("2", 6), ("3", 7), ("4", 8)]
    assert not scan.unfinished


def test_groups_that_overlap_are_one(tmp_path: Path) -> None:
    files = files_of(tmp_path, [let_in("1")], [again_line(1)], [let_in("2")], [again_line(2)], [again_line(5)])
    assert [len(group) for group in journal_groups(files)] == [4, 1]


def test_a_moment_that_no_calendar_has_is_damage(tmp_path: Path) -> None:
    never = [let_in("1") | {"at": at} for at in (-1.0, 1e20, math.inf)]
    files = files_of(tmp_path, [*never, *(charge("2", 5) | {"admitted_at": at} for at in (-1.0, 1e20, "12", None))])
    files[0].write_bytes(files[0].read_bytes() + b'{"event":"admitted","request_id":"3","tenant":"a","at":NaN}\n')
    scan, finished = scanned(files)
    assert (finished, scan.unfinished, scan.lines, scan.damaged) == ([], {}, 8, 8)


def test_damaged_lines_are_passed_over_and_counted(tmp_path: Path) -> None:
    (path,) = files_of(tmp_path, [charge("1", 1)])
    path.write_bytes(b'\0\n[]\n{"event":"progress","marks":[]}\n' + path.read_bytes() + b'{"event":"cost_rec')
    scan, finished = scanned([path])
    assert (finished, scan.lines, scan.damaged) == ([("1", 1)], 5, 4)
