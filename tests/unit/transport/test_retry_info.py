"""How long an engine asks to be left alone travels with the error."""

import pytest

from contract.subjects import Subject, remote
from marginal.backends.scripted import Script, ScriptedModel
from marginal.errors import Overloaded
from marginal.tokens import Generation, Message, Role


@pytest.mark.parametrize(("asked", "told"), [(7.5, 7.5), (None, 1.0)])
async def test_seconds_to_wait_cross_the_wire_and_the_table_has_some_otherwise(
    asked: float | None, told: float
) -> None:
    model = ScriptedModel(Script((), fault=Overloaded("full", retry_seconds=asked)))
    async with remote(Subject(model, lambda: model.generated), allowance=0) as subject:
        with pytest.raises(Overloaded) as caught:
            [chunk async for chunk in subject.model.generate(Generation((Message(Role.USER, "hi"),)))]
    assert caught.value.retry_seconds == told
