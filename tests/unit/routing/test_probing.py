"""What probing finds out of models whose habits are known."""

import math

import pytest

from marginal.backends.scripted import Script, ScriptedModel
from marginal.errors import StreamInterrupted, TierUnavailable
from marginal.routing.evidence import WARMTH, Lack, probe
from marginal.routing.probing import STEPS, TIMES, examine
from marginal.tokens import Alternative, Generation, ModelDescription, Token

SURE = (0.8, 0.15, 0.05)


def token(*probabilities: float, temperature: float = 1.0) -> Token:
    divided = [probability ** (1.0 / temperature) for probability in probabilities]
    alternatives = tuple(Alternative(f"t{i}", math.log(one / sum(divided))) for i, one in enumerate(divided))
    return Token("t0", alternatives[0].logprob, alternatives)


def saying(*probabilities: float, length: int = 6, per_chunk: int = 1) -> ScriptedModel:
    return ScriptedModel(Script((token(*probabilities),) * length, tokens_per_chunk=per_chunk))


def sampling_first(*probabilities: float) -> ScriptedModel:
    """A model whose log-probabilities come after its temperature."""

    def script(asked: Generation) -> Script:
        return Script((token(*probabilities, temperature=asked.sampling.temperature or 1.0),) * 4)

    return ScriptedModel(script)


class Unsteady(ScriptedModel):
    """A model that never says the same twice."""

    def __init__(self) -> None:
        super().__init__(self._next)
        self._asked = 0

    def _next(self, _: Generation) -> Script:
        self._asked += 1
        sure = 0.5 + 0.02 * self._asked
        return Script((token(sure, 0.8 - sure, 0.2),) * 4)


class Nameless(ScriptedModel):
    """A model that answers but does not say what it is."""

    async def describe(self) -> ModelDescription:
        raise TierUnavailable("no list of models")


async def test_log_probabilities_that_no_temperature_moves_are_before_sampling() -> None:
    assert (await probe(saying(*SURE))).before_sampling is True


async def test_log_probabilities_that_a_temperature_divides_are_after_sampling() -> None:
    evidence = await probe(sampling_first(*SURE))
    assert evidence.proven
    assert evidence.before_sampling is False


@pytest.mark.parametrize("model", [saying(0.5, 0.5), sampling_first(0.5, 0.5), Unsteady()])
async def test_where_a_temperature_shows_nothing_it_is_not_claimed(model: ScriptedModel) -> None:
    assert (await probe(model)).before_sampling is None


async def test_a_seed_that_ends_the_answer_at_once_is_not_the_last_word() -> None:
    warm = 0

    def script(asked: Generation) -> Script:
        nonlocal warm
        warm += asked.sampling.temperature == WARMTH
        return Script(() if warm == 1 and asked.sampling.temperature else (token(*SURE),) * 4)

    assert (await probe(ScriptedModel(script))).before_sampling is True


async def test_a_model_without_evidence_is_asked_nothing_more() -> None:
    model = ScriptedModel(Script((Token("t"),) * 4))
    assert (await probe(model)).before_sampling is None
    assert len(model.runs) == 1


async def test_everything_that_can_be_seen_of_a_good_model_is_found() -> None:
    told: list[str] = []
    found = await examine(saying(*SURE), tell=told.append)
    assert found.answers
    assert found.evidence.proven
    assert found.evidence.before_sampling
    assert (found.lack, found.fault) == (None, None)
    assert (found.alternatives, found.largest_chunk, found.mean_chunk) == (3, 1, 1.0)
    assert found.first_token_ms is not None
    assert found.tokens_per_second is not None
    assert found.description is not None
    assert len(told) == STEPS


async def test_a_model_that_sends_several_tokens_at_once_is_found_out() -> None:
    found = await examine(saying(*SURE, length=7, per_chunk=3))
    assert (found.largest_chunk, found.mean_chunk) == (3, 7 / 3)


async def test_a_slow_first_token_is_timed() -> None:
    model = ScriptedModel(Script((token(*SURE),) * 3, first_delay_seconds=0.03, delay_seconds=0.03))
    found = await examine(model)
    assert found.first_token_ms is not None
    assert 30.0 <= found.first_token_ms < 300.0
    assert found.tokens_per_second is not None
    assert 5.0 < found.tokens_per_second < 100.0


@pytest.mark.parametrize(
    ("bad", "lack"),
    [
        (Token("t"), Lack.MISSING),
        (Token("t", math.nan, token(*SURE).alternatives), Lack.NOT_FINITE),
        (Token("t", 0.3, token(*SURE).alternatives), Lack.ABOVE_ZERO),
        (token(1.0), Lack.FEW),
        (Token("t", -0.1, (Alternative("t", -0.1), Alternative("u", -0.1))), Lack.SUM),
    ],
)
async def test_each_lack_is_told_apart_and_the_model_still_answers(bad: Token, lack: Lack) -> None:
    found = await examine(ScriptedModel(Script((bad,) * 4)))
    assert found.lack is lack
    assert found.answers
    assert found.evidence.shortfall is not None


async def test_a_model_without_text_does_not_answer() -> None:
    found = await examine(ScriptedModel(Script(())))
    assert (found.lack, found.answers) == (Lack.NO_TEXT, False)


async def test_a_model_that_fails_is_asked_once_and_nothing_is_raised() -> None:
    model = ScriptedModel(Script((), fault=TierUnavailable("nothing listens")))
    found = await examine(model)
    assert (found.fault, found.answers, len(model.runs)) == ("nothing listens", False, 1)


async def test_a_model_that_breaks_in_a_long_answer_is_still_described() -> None:
    model = ScriptedModel(Script((token(*SURE),) * 5, fault=StreamInterrupted("gone"), fault_at=5))
    found = await examine(model)
    assert found.answers
    assert found.largest_chunk == 1


async def test_a_model_that_does_not_say_what_it_is_can_be_good_all_the_same() -> None:
    model = Nameless(Script((token(*SURE),) * 4))
    found = await examine(model)
    assert (found.description, found.evidence.proven) == (None, True)
    assert len(model.runs) > TIMES
