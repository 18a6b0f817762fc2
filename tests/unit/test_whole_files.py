"""A file is written whole or not at all."""

from pathlib import Path

import pytest

from marginal.whole_files import write_whole

NOT_UTF_8 = "\ud800"


def test_what_was_there_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for text in ("before", "after"):
        write_whole(path, text)
    assert path.read_text("utf-8") == "after"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_leaves_what_was_there_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, "before")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, NOT_UTF_8)
    assert path.read_text("utf-8") == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_secret_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, "secret", mode=0o600)
    assert path.stat().st_mode & 0o777 == 0o600
