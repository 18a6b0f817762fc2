from collections.abc import Iterator

import pytest

from unit.telemetry.spans import MemoryLog, MemoryTracing


@pytest.fixture
def memory() -> Iterator[MemoryTracing]:
    memory = MemoryTracing()
    yield memory
    memory.tracing.shutdown()


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()
