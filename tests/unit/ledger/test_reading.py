"""What journals tell when they are read again: one final record per request, and who never got one."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marginal.ledger.journal_lines import Admitted, admitted_line, progress_line, record_line
from marginal.ledger.reading import read_journals
from marginal.routing.records import Settlement
from unit.ledger.made_records import FIELDS, NOW, journal_in, record

EXPIRED, RECOVERED, SETTLED = Settlement.EXPIRED, Settlement.RECOVERED, Settlement.SETTLED


def admission(request_id: str) -> Mapping[str, Any]:
    return admitted_line(Admitted(request_id, "acme", NOW, 1_000, "full", "default", "hash"))


def charge(
    request_id: str, nanos: int, settlement: Settlement = SETTLED, *, is_open: bool = False
) -> Mapping[str, Any]:
    return record_line(record(request_id, nanos=nanos, settlement=settlement, open=is_open), FIELDS)


def write(directory: Path, *lines: Mapping[str, Any], **rules: Any) -> Path:
    journal = journal_in(directory, **rules)
    for line in lines:
        journal.append(line)
    journal.close()
    return directory


def nanos_in(*directories: Path) -> dict[str, int]:
    return {line["request_id"]: line["total_nanos"] for line in read_journals(directories).final_records()}


def test_the_last_record_of_a_request_counts(tmp_path: Path) -> None:
    assert nanos_in(write(tmp_path, charge("1", 100, is_open=True), charge("2", 5), charge("1", 300))) == {
        "1": 300,
        "2": 5,
    }


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(("surer", "less_sure"), [(SETTLED, RECOVERED), (RECOVERED, EXPIRED), (SETTLED, EXPIRED)])
def test_of_several_journals_the_surest_record_counts(
    tmp_path: Path, surer: Settlement, less_sure: Settlement, first: bool
) -> None:
    directories = [
        write(tmp_path / "a", admission("1"), charge("1", 7, surer)),
        write(tmp_path / "b", charge("1", 9, less_sure)),
    ]
    reading = read_journals(directories if first else directories[::-1])
    assert [line["total_nanos"] for line in reading.final_records()] == [7]
    assert not reading.unfinished


def test_the_truth_that_came_before_a_reckoning_counts_in_one_journal_too(tmp_path: Path) -> None:
    assert nanos_in(write(tmp_path, charge("1", 7), charge("1", 9, EXPIRED))) == {"1": 7}


def test_requests_without_a_record_are_told(tmp_path: Path) -> None:
    lines = [admission("1"), admission("2"), admission("3"), progress_line({"1": 10, "?": 1}, NOW), charge("2", 30)]
    reading = read_journals([write(tmp_path, *lines)])
    assert reading.unfinished == {
        "1": Admitted("1", "acme", NOW, 1_000, "full", "default", "hash"),
        "3": Admitted("3", "acme", NOW, 1_000, "full", "default", "hash"),
    }
    assert reading.records == 1


def test_a_request_whose_shadow_attempt_was_under_way_has_a_record_and_is_unfinished(tmp_path: Path) -> None:
    reading = read_journals([write(tmp_path, admission("1"), charge("1", 100, is_open=True))])
    assert (set(reading.unfinished), reading.records) == ({"1"}, 1)


def test_damaged_lines_are_passed_over_and_counted(tmp_path: Path) -> None:
    write(tmp_path, charge("1", 1), charge("2", 2), {"event": "of_a_later_version"})
    file = tmp_path / "journal-00000001.jsonl"
    damaged = [
        b"\0\0\0",
        b"[]",
        b'{"event":"cost_record"}',
        b'{"event":"admitted","request_id":"9"}',
        b'{"event":"progress","marks":[]}',
        json.dumps({**charge("1", 5), "settlement": "unheard of"}).encode(),
        json.dumps({**charge("1", 5), "total_nanos": "much"}).encode(),
        b"",
        b'{"event":"cost_rec',
    ]
    file.write_bytes(b"\n".join([file.read_bytes() + damaged[0], *damaged[1:]]))
    reading = read_journals([tmp_path])
    assert (reading.lines, reading.damaged) == (3 + len(damaged), len(damaged))
    assert nanos_in(tmp_path) == {"1": 1, "2": 2}


def test_records_come_in_the_order_of_the_files(tmp_path: Path) -> None:
    lines = [charge(f"{number:03}", number) for number in range(200)]
    write(tmp_path, *lines, file_bytes=5_000)
    assert len(list(tmp_path.iterdir())) > 20
    assert list(nanos_in(tmp_path).items()) == [(f"{number:03}", number) for number in range(200)]


EVENTS = st.tuples(
    st.integers(0, 2),
    st.sampled_from("abcd"),
    st.integers(0, 99),
    st.sampled_from(list(Settlement)),
)
SURENESS = [EXPIRED, RECOVERED, SETTLED]


@settings(deadline=None)
@given(st.lists(EVENTS, max_size=30))
def test_every_id_has_one_final_record_whatever_was_written_where(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[int, str, int, Settlement]]
) -> None:
    root = tmp_path_factory.mktemp("journals")
    directories = [root / str(number) for number in range(3)]
    for number, directory in enumerate(directories):
        mine = [charge(request_id, nanos, kind) for at, request_id, nanos, kind in events if at == number]
        write(directory, *mine, file_bytes=2_000)
    best: dict[str, tuple[int, int, int, int]] = {}
    for order, (at, request_id, nanos, kind) in enumerate(events):
        found = (SURENESS.index(kind), at, order, nanos)
        best[request_id] = max(best.get(request_id, found), found)
    assert nanos_in(*directories) == {request_id: found[-1] for request_id, found in best.items()}


def test_a_record_is_enough_for_finance(tmp_path: Path) -> None:
    line = next(read_journals([write(tmp_path, record_line(record("1"), FIELDS, key="hash"))]).final_records())
    wanted = {"request_id", "tenant", "policy", "currency", "admitted_at", "settlement", "total_nanos", "wasted_nanos"}
    assert {*wanted, "saved_nanos", "attempts", "key"} <= set(line)
    assert line["total_nanos"] == record("1").total_nanos
