"""One Valkey for all tests of ledgers."""

from collections.abc import Iterator

import pytest

from engines.valkey import DURABLE, ValkeyProcess


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[ValkeyProcess]:
    """A server that survives its restarts; whoever uses it empties it first."""
    with ValkeyProcess(*DURABLE) as server:
        yield server
