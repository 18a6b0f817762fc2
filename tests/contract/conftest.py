"""Opens the models under contract, one after the other."""

from collections.abc import AsyncIterator

import pytest

from contract.subjects import ROWS, Subject
from marginal.routing.ports import LanguageModel


@pytest.fixture(scope="session", params=ROWS.values(), ids=ROWS.keys())
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    async with request.param() as opened:
        yield opened


@pytest.fixture(scope="session")
def model(subject: Subject) -> LanguageModel:
    return subject.model
