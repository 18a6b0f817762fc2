"""Sums of records: by tenant, policy, task or day, each currency by itself, from one or several journals."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marginal.ledger.costs import CostTally, summarised
from marginal.ledger.journal_costs import files_since, journal_costs, journal_record
from marginal.ledger.journal_lines import record_line
from marginal.ledger.reading import read_journals
from marginal.policy.deferral import Decision, Reason, Verdict
from marginal.routing.records import CANCELLED, Attempt, CostRecord, DegradedReason, Outcome, Settlement
from marginal.routing.spending import CostQuery, CostSummary, Figures, Grouping
from marginal.tokens import Tier, Usage
from unit.ledger.made_records import FIELDS, NOW, journal_in, record

Line = Mapping[str, Any]
DAY = 86_400.0


def line(request_id: str = "1", *, tenant: str = "acme", nanos: int = 100, **more: Any) -> Line:
    return record_line(record(request_id, tenant=tenant, nanos=nanos, **more), FIELDS)


def decided(request_id: str, verdict: Verdict, reason: Reason = Reason.SCORE) -> Line:
    return {**line(request_id), "decision": {"verdict": verdict.value, "reason": reason.value}}


def sums(lines: Iterable[Line], by: Grouping = Grouping.TENANT, **query: Any) -> dict[tuple[str, str], int]:
    return {(row.key, row.currency): row.figures.total_nanos for row in summarised(lines, CostQuery(by, **query)).rows}


def total(lines: Iterable[Line]) -> Figures:
    (only,) = summarised(lines, CostQuery()).totals
    return only.figures


def write(directory: Path, *lines: Line) -> Path:
    journal = journal_in(directory)
    for one in lines:
        journal.append(one)
    journal.close()
    return directory


def costs_of(*directories: Path, **query: Any) -> CostSummary:
    return journal_costs(files_since(directories, None), CostQuery(**query))


@pytest.mark.parametrize(
    ("by", "keys"),
    [
        (Grouping.TENANT, {"acme": 7, "other": 1}),
        (Grouping.POLICY, {"default": 8}),
        (Grouping.TASK, {"maths": 5, "": 3}),
        (Grouping.DAY, {"2026-11-24": 7, "2026-11-25": 1}),
    ],
)
def test_a_row_for_each(by: Grouping, keys: Mapping[str, int]) -> None:
    lines = [
        line("1", nanos=2),
        line("2", nanos=5, task="maths"),
        line("3", nanos=1, tenant="other", admitted_at=NOW + DAY),
    ]
    assert sums(lines, by) == {(key, "USD"): nanos for key, nanos in keys.items()}


def test_a_day_begins_at_midnight_of_utc() -> None:
    midnight = (NOW // DAY + 1) * DAY
    lines = [line("1", admitted_at=midnight - 0.001), line("2", admitted_at=midnight)]
    assert [row.key for row in summarised(lines, CostQuery(Grouping.DAY)).rows] == ["2026-11-24", "2026-11-25"]


def test_two_currencies_are_never_added() -> None:
    lines = [line("1", nanos=5), {**line("2", nanos=7), "currency": "EUR"}, line("3", nanos=6)]
    assert sums(lines) == {("acme", "USD"): 11, ("acme", "EUR"): 7}
    totals = summarised(lines, CostQuery()).totals
    assert [(row.currency, row.figures.total_nanos) for row in totals] == [("EUR", 7), ("USD", 11)]


def test_the_dearest_comes_first_and_days_come_in_their_order() -> None:
    lines = [line("1", nanos=1), line("2", nanos=9, tenant="b", admitted_at=NOW - DAY), line("3", nanos=5, tenant="c")]
    assert [row.key for row in summarised(lines, CostQuery()).rows] == ["b", "c", "acme"]
    assert [row.key for row in summarised(lines[::-1], CostQuery(Grouping.DAY)).rows] == ["2026-11-23", "2026-11-24"]


def test_only_what_was_asked_for_counts() -> None:
    lines = [line("1", nanos=1), line("2", nanos=2, tenant="b"), line("3", nanos=4, admitted_at=NOW + 10)]
    assert sums(lines, tenant="acme") == {("acme", "USD"): 5}
    assert sums(lines, since=NOW + 10) == {("acme", "USD"): 4}
    assert sums(lines, until=NOW + 10) == {("acme", "USD"): 1, ("b", "USD"): 2}
    assert sums(lines, policy="careful") == {}


def test_shares_are_of_what_they_say() -> None:
    judged = [decided("1", Verdict.DEFER), decided("2", Verdict.KEEP), decided("3", Verdict.KEEP)]
    figures = total([*judged, decided("4", Verdict.DEFER, Reason.MODE), line("5", degraded=DegradedReason.BUDGET)])
    assert (figures.judged, figures.deferred, figures.requests) == (3, 1, 5)
    assert figures.deferral_share == pytest.approx(1 / 3)
    assert figures.degraded_share == pytest.approx(1 / 5)
    assert Figures().deferral_share == Figures().degraded_share == Figures().saved_share == 0.0


def test_saved_is_against_always_large_without_shadows_and_wasted_is_what_nobody_read() -> None:
    decision = Decision(Verdict.KEEP, Reason.SCORE, "min_margin", 0.9, 0.5, 3)
    attempts = (
        Attempt(Tier.SMALL, "s", Outcome.ABORTED, Usage(10, 1), 30, 0.1),
        Attempt(Tier.LARGE, "l", Outcome.KEPT, Usage(10, 4, 8), 200, 0.1),
        Attempt(Tier.LARGE, "l", Outcome.SHADOW, Usage(10, 5), 500, 0.1),
    )
    figures = total([record_line(CostRecord("1", "", "acme", "p", "1", "USD", decision, attempts, 1_000), FIELDS)])
    assert (figures.total_nanos, figures.wasted_nanos, figures.shadow_nanos) == (730, 30, 500)
    assert (figures.saved_nanos, figures.saved_share) == (770, 0.77)
    assert (figures.input_tokens, figures.cached_input_tokens, figures.output_tokens) == (30, 8, 10)


def test_errors_are_told_apart_from_callers_who_gave_up_and_from_dead_routers() -> None:
    figures = total(
        [
            line("1"),
            line("2", error="TierUnavailable"),
            line("3", error=CANCELLED),
            line("4", settlement=Settlement.EXPIRED),
            line("5", settlement=Settlement.RECOVERED),
        ]
    )
    assert (figures.requests, figures.failed, figures.cancelled, figures.reckoned) == (5, 1, 1, 2)


def test_rows_beyond_the_most_are_counted_and_stay_in_the_totals() -> None:
    tally = CostTally(CostQuery())
    for number in range(5):
        tally.add(line(str(number), tenant=f"t{number}", nanos=number))
    summary = tally.summary(most_rows=2)
    assert ([row.key for row in summary.rows], summary.left_out) == (["t4", "t3"], 3)
    assert summary.totals[0].figures.total_nanos == 10


def test_no_records_are_no_rows() -> None:
    assert summarised([], CostQuery()) == CostSummary(Grouping.TENANT)


def test_a_record_that_lacks_a_field_is_damaged_and_counts_in_no_sum(tmp_path: Path) -> None:
    broken = {name: value for name, value in line("2").items() if name != "wasted_nanos"}
    summary = costs_of(write(tmp_path, line("1", nanos=5), broken, {"event": "of_a_later_version"}))
    assert (summary.damaged, summary.totals[0].figures.requests, summary.totals[0].figures.total_nanos) == (1, 1, 5)


def test_a_torn_line_is_damaged(tmp_path: Path) -> None:
    write(tmp_path, line("1"))
    with (tmp_path / "journal-00000001.jsonl").open("ab") as file:
        file.write(b'\0\0\0\n[1]\n{"event":"cost_record","requ')
    assert costs_of(tmp_path).damaged == 3


def test_files_that_were_last_written_before_are_not_read(tmp_path: Path) -> None:
    write(tmp_path, line("1"))
    written = (tmp_path / "journal-00000001.jsonl").stat().st_mtime
    assert files_since([tmp_path], written + 30.0) != []
    assert files_since([tmp_path], written + 2 * DAY) == []


def test_reading_tells_how_far_it_is_and_can_be_ended(tmp_path: Path) -> None:
    class Ended(Exception):
        pass

    def end(_: int) -> None:
        raise Ended

    files = files_since([write(tmp_path, *(line(str(number)) for number in range(2_000)))], None)
    told: list[int] = []
    journal_costs(files, CostQuery(), watch=told.append)
    assert sum(told) == files[0].stat().st_size
    assert len(told) > 1
    with pytest.raises(Ended):
        journal_costs(files, CostQuery(), watch=end)


def test_a_file_that_is_deleted_meanwhile_is_passed_over_and_nothing_counts_twice(tmp_path: Path) -> None:
    first = write(tmp_path / "first", line("1", nanos=5, open=True), line("2", nanos=6))
    second = write(
        tmp_path / "second", line("1", nanos=7), line("2", nanos=6), *(line(f"{n}") for n in range(3, 2_000))
    )
    files = files_since([first, second], None)

    def delete(_: int) -> None:
        files[0].unlink(missing_ok=True)

    whole, meanwhile = costs_of(first, second), journal_costs(files, CostQuery(), watch=delete)
    assert meanwhile == whole
    later = journal_costs(files, CostQuery())
    assert later.totals[0].figures.requests == 1_999
    assert journal_record(files, "1") == next(read_journals([second]).final_records())


EVENTS = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.sampled_from("abc"),
        st.sampled_from(["acme", "other"]),
        st.integers(0, 99),
        st.sampled_from(list(Settlement)),
        st.booleans(),
    ),
    max_size=20,
)


@settings(deadline=None)
@given(EVENTS)
def test_one_pass_finds_what_two_passes_find(
    tmp_path_factory: pytest.TempPathFactory,
    events: list[tuple[int, str, str, int, Settlement, bool]],
) -> None:
    root = tmp_path_factory.mktemp("journals")
    directories = [root / "0", root / "1"]
    for number, directory in enumerate(directories):
        mine = [
            line(request_id, tenant=tenant, nanos=nanos, settlement=settlement, open=is_open)
            for at, request_id, tenant, nanos, settlement, is_open in events
            if at == number
        ]
        write(directory, *mine)
    final = list(read_journals(directories).final_records())
    assert costs_of(*directories) == summarised(final, CostQuery())
    files = files_since(directories, None)
    assert [journal_record(files, one["request_id"]) for one in final] == final
    assert journal_record(files, "unknown") is None
