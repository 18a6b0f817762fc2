"""A run file says the same to its writer and its reader, and whatever is wrong with it is said with its place."""

import gzip
import json
import math
import os
import time
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from marginal.errors import ConfigurationError
from marginal.evaluation.results import Header, Row, Run
from marginal.evaluation.run_lines import header_to_line, row_to_line
from marginal.evaluation.run_writer import RunWriter
from marginal.evaluation.runs import read_run
from marginal.tokens import Alternative, Sampling, Token
from unit.evaluation.runs import HEADER, LARGE, SMALL, row

BARE = Row("q2", "timer", replace(SMALL, correct=None, first_token_seconds=None, text=None), LARGE)
SCHEMA = Draft202012Validator(json.loads(files("marginal.evaluation").joinpath("run.schema.json").read_text("utf-8")))


@pytest.fixture(params=["run.jsonl", "run.jsonl.gz"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / str(request.param)


def record(path: Path, *rows: Row, header: Header = HEADER) -> frozenset[str]:
    """Appends rows; what was there before is given back."""
    with RunWriter(path, header) as run:
        for one in rows:
            run.append(one)
        return run.done


def lines_of(path: Path) -> list[str]:
    packed = path.read_bytes()
    return (gzip.decompress(packed) if path.suffix == ".gz" else packed).decode().splitlines()


def written(directory: Path, *lines: str) -> Path:
    path = directory / "run.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def changed(line: str, changes: dict[str, Any]) -> str:
    """The line with fields changed, named by dotted paths; `...` takes one away."""
    value = json.loads(line)
    for name, new in changes.items():
        *way, last = name.split(".")
        place = value
        for step in way:
            place = place[int(step) if isinstance(place, list) else step]
        if new is ...:
            del place[last]
        else:
            place[last] = new
    return json.dumps(value)


def test_what_is_written_is_read(path: Path) -> None:
    record(path, row(), BARE)
    assert read_run(path) == Run(HEADER, (row(), BARE), "run")


def test_every_written_line_is_of_the_published_schema(path: Path) -> None:
    record(path, row(), BARE, header=replace(HEADER, sampling=Sampling(seed=7)))
    for line in lines_of(path):
        SCHEMA.validate(json.loads(line))


def test_a_recording_goes_on_where_it_ended(path: Path) -> None:
    assert record(path, row("1"), row("2")) == frozenset()
    assert record(path, row("3"), header=replace(HEADER, created="2027-01-01T00:00:00Z")) == {"1", "2"}
    run = read_run(path)
    assert [one.id for one in run.rows] == ["1", "2", "3"]
    assert run.header == HEADER


def test_rows_are_on_disk_before_the_recording_ends(path: Path) -> None:
    with RunWriter(path, HEADER) as run:
        run.append(row("1"))
        copy = path.with_name(f"copy-{path.name}")
        copy.write_bytes(path.read_bytes())
    assert record(copy, row("2")) == {"1"}
    assert len(read_run(copy).rows) == 2


@pytest.mark.parametrize("lost", [1, 3, 12])
def test_a_torn_end_is_said_by_the_reader_and_repaired_by_the_writer(path: Path, lost: int) -> None:
    record(path, row("1"), row("2"))
    os.truncate(path, path.stat().st_size - lost)
    if lost > 1:
        with pytest.raises(
            ConfigurationError, match=r"run\.jsonl.*:\d+: the file ends in the middle of .* is still being"
        ):
            read_run(path)
    assert "1" in record(path)
    assert read_run(path).rows[0].id == "1"
    record(path, row("3"))
    assert read_run(path).rows[-1].id == "3"


def test_a_last_line_that_lacks_only_its_end_is_kept(tmp_path: Path) -> None:
    path = written(tmp_path, header_to_line(HEADER), row_to_line(row("1")))
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    assert len(read_run(path).rows) == 1
    assert record(path, row("2")) == {"1"}
    assert len(read_run(path).rows) == 2


def test_another_recording_of_the_same_file_is_refused(path: Path) -> None:
    with RunWriter(path, HEADER), pytest.raises(ConfigurationError, match="is being recorded by another process"):
        RunWriter(path, HEADER)


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        (replace(HEADER, large="home-huge"), "was recorded with large home-large, not home-huge: go on with the same"),
        (replace(HEADER, sampling=Sampling(max_tokens=8)), "was recorded with sampling.max_tokens 256, not 8"),
        (replace(HEADER, labels="large"), "was recorded with labels expected, not large"),
    ],
)
def test_a_recording_with_other_settings_is_refused_by_their_name(path: Path, other: Header, problem: str) -> None:
    record(path, row("1"))
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match=problem):
        RunWriter(path, other)
    assert path.read_bytes() == before


def test_a_file_that_is_no_run_is_never_touched(tmp_path: Path) -> None:
    path = written(tmp_path, '{"id": "1", "task": "timer", "request": "x", "answer": "y"}')
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match=r"run\.jsonl:1: "):
        RunWriter(path, HEADER)
    assert path.read_bytes() == before


def test_a_place_that_cannot_be_written_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"absent/run\.jsonl: cannot be written, no such file"):
        RunWriter(tmp_path / "absent" / "run.jsonl", HEADER)


BAD_ROWS = [
    ({"id": ...}, "id: field required"),
    ({"id": 7}, "id: input should be a valid string"),
    ({"small": ...}, "small: field required"),
    ({"small.correct": "yes"}, "small.correct: input should be a valid boolean"),
    ({"small.input_tokens": -1}, "small.input_tokens: input should be greater than or equal to 0"),
    ({"small.output_tokens": 1.5}, "small.output_tokens: "),
    ({"large.cost_nanos": True}, "large.cost_nanos: "),
    ({"tokens.0.logprob": 0.5}, "tokens.0.logprob: input should be less than or equal to 0"),
    ({"tokens.0.alternatives": [["a"]]}, "tokens.0.alternatives.0.1: field required"),
    ({"score": 0.5}, "score: extra inputs are not permitted"),
]
NO_JSON = [
    ({"large.seconds": math.nan}, "large.seconds: input should be a finite number"),
    ({"scores.min_margin": math.inf}, "scores.min_margin: input should be a finite number"),
    ({"tokens.0.alternatives": [["a", -math.inf]]}, "tokens.0.alternatives.0.1: input should be a finite number"),
]
"""Python writes these, and the schema of a JSON value cannot tell."""


@pytest.mark.parametrize(("changes", "problem"), BAD_ROWS + NO_JSON)
def test_a_bad_row_is_refused_with_its_line_and_field(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    path = written(tmp_path, header_to_line(HEADER), row_to_line(row()), changed(row_to_line(row("2")), changes))
    with pytest.raises(ConfigurationError) as refused:
        read_run(path)
    assert str(refused.value).startswith(f"{path}:3: {problem}")


@pytest.mark.parametrize("changes", [changes for changes, _ in BAD_ROWS])
def test_the_published_schema_refuses_what_the_reader_refuses(changes: dict[str, Any]) -> None:
    assert not SCHEMA.is_valid(json.loads(changed(row_to_line(row()), changes)))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"version": 2}, "version: input should be 1"),
        ({"labels": "both"}, "labels: input should be 'expected' or 'large'"),
        ({"sampling.temperature": 3}, "sampling.temperature: input should be less than or equal to 2"),
        ({"created": "yesterday"}, "created: string should match pattern"),
        ({"currency": "dollars"}, "currency: string should match pattern"),
    ],
)
def test_a_bad_header_is_refused_by_both(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    line = changed(header_to_line(HEADER), changes)
    with pytest.raises(ConfigurationError, match=rf"run\.jsonl:1: {problem}"):
        read_run(written(tmp_path, line, row_to_line(row())))
    assert not SCHEMA.is_valid(json.loads(line))


def test_more_cached_tokens_than_tokens_are_refused(tmp_path: Path) -> None:
    line = changed(row_to_line(row()), {"small.cached_input_tokens": 17})
    with pytest.raises(ConfigurationError, match=r"run\.jsonl:2: small\.cached_input_tokens: more than input_tokens"):
        read_run(written(tmp_path, header_to_line(HEADER), line))


def test_an_id_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"run\.jsonl:3: id: q1 is there twice"):
        read_run(written(tmp_path, header_to_line(HEADER), row_to_line(row()), row_to_line(row())))


def test_a_file_without_a_header_a_row_or_anything_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"run\.jsonl:1: is no header: a run begins with"):
        read_run(written(tmp_path, row_to_line(row())))
    with pytest.raises(ConfigurationError, match="has a header and no row"):
        read_run(written(tmp_path, header_to_line(HEADER)))
    with pytest.raises(ConfigurationError, match="is empty"):
        read_run(written(tmp_path))
    with pytest.raises(ConfigurationError, match=r"absent\.jsonl: cannot be read, no such file"):
        read_run(tmp_path / "absent.jsonl")
    with pytest.raises(ConfigurationError, match="format: csv is none of auto, marginal-run, option-logits"):
        read_run(written(tmp_path), format="csv")


def test_a_line_that_is_no_json_is_refused_with_its_number(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"run\.jsonl:2: invalid JSON"):
        read_run(written(tmp_path, header_to_line(HEADER), "{", row_to_line(row())))


def test_a_plain_file_that_is_called_gz_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl.gz"
    path.write_text(header_to_line(HEADER))
    with pytest.raises(ConfigurationError, match=r"run\.jsonl\.gz: is no gzip file"):
        read_run(path)


def test_blank_lines_are_none_and_alternatives_come_the_surest_first(tmp_path: Path) -> None:
    line = changed(row_to_line(row()), {"tokens.0.alternatives": [["b", -2.0], ["a", -1.0]]})
    run = read_run(written(tmp_path, header_to_line(HEADER), "", line))
    assert [other.text for other in run.rows[0].tokens[0].alternatives] == ["a", "b"]


@pytest.mark.parametrize("impossible", [math.nan, math.inf, -math.inf, 0.25])
def test_impossible_evidence_is_written_as_none(path: Path, impossible: float) -> None:
    token = Token("a", impossible, (Alternative("a", -0.1), Alternative("b", impossible)))
    record(path, replace(row(), tokens=(token,)))
    assert read_run(path).rows[0].tokens == (Token("a"),)


def test_ten_thousand_rows_are_read_in_seconds(tmp_path: Path) -> None:
    token = Token("a", -0.1, tuple(Alternative(f"other {rank}", -0.1 - rank) for rank in range(20)))
    rest = row_to_line(replace(row(), tokens=(token,) * 5)).removeprefix('{"id":"q1"')
    path = written(tmp_path, header_to_line(HEADER), *(f'{{"id":"{number}"{rest}' for number in range(10_000)))
    started = time.process_time()
    assert len(read_run(path).rows) == 10_000
    assert time.process_time() - started < 10.0
