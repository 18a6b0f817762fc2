"""A journal's size is divided among its files, and one that cannot be is refused by the option's name."""

from pathlib import Path

import pytest

from marginal.entrypoints.accounting import FILES, LEAST_BYTES, LedgerOptions, journal_rules
from marginal.errors import ConfigurationError
from marginal.ledger.journal import DEFAULT_RULES, PASSING_RULES


@pytest.mark.parametrize("size_bytes", [1, 15, LEAST_BYTES - 1])
def test_a_size_that_has_no_room_for_records_is_refused_by_name(size_bytes: int) -> None:
    with pytest.raises(ConfigurationError, match=f"--journal-bytes {size_bytes}: give 64000 at least"):
        journal_rules(LedgerOptions(Path("journal"), journal_bytes=size_bytes))


@pytest.mark.parametrize(
    ("size_bytes", "file_bytes"),
    [
        (0, DEFAULT_RULES.file_bytes),
        (LEAST_BYTES, LEAST_BYTES // FILES),
        (10**12, DEFAULT_RULES.file_bytes),
    ],
)
def test_a_bounded_journal_has_so_many_files(size_bytes: int, file_bytes: int) -> None:
    assert journal_rules(LedgerOptions(Path("journal"), journal_bytes=size_bytes)).file_bytes == file_bytes
    assert journal_rules(LedgerOptions(journal_bytes=size_bytes)) == PASSING_RULES
