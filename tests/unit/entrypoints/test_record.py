"""How a question becomes a row: both tiers asked at once, once more after a failure, graded by the labels wanted."""

from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import pytest

from evidence import sure
from marginal.entrypoints.record import Asking, Plan
from marginal.errors import BackendProtocol, InvalidRequest, MarginalError, TierUnavailable
from marginal.evaluation.questions import Question
from marginal.pricing import MICROS_PER_HOUR, Price
from marginal.tokens import Chunk, Evidence, FinishReason, Generation, ModelDescription, Sampling, Tier, Token, Usage

QUESTION = Question("1", "quiz", "which river?", "Ebro", ("Ebro", "Etna"))
PLAN = Plan(
    questions=(QUESTION,),
    targets={},
    prices={Tier.SMALL: Price(10_000_000, 100_000_000), Tier.LARGE: Price(100_000_000, 1_000_000_000)},
    currency="USD",
    grader="normalised",
    labels="expected",
    sampling=Sampling(max_tokens=8),
    concurrency=1,
    timeout_seconds=5.0,
    texts=True,
    output=Path("run.jsonl"),
)


class Answering:
    """A tier that fails as often as told, then answers."""

    def __init__(self, *tokens: Token, failures: tuple[MarginalError, ...] = (), ends: bool = True) -> None:
        self.asked: list[Generation] = []
        self._tokens = tokens
        self._failures = list(failures)
        self._ends = ends

    async def describe(self) -> ModelDescription:
        return ModelDescription("fake", 512, 20, Evidence(None))

    async def generate(self, generation: Generation, *, timeout: float | None = None) -> AsyncGenerator[Chunk, None]:
        assert timeout == PLAN.timeout_seconds
        self.asked.append(generation)
        if self._failures:
            raise self._failures.pop(0)
        yield Chunk(self._tokens, Usage(5, len(self._tokens)))
        if self._ends:
            yield Chunk((), Usage(5, len(self._tokens)), FinishReason.STOP)


def asking(small: Answering, large: Answering, *, plan: Plan = PLAN) -> Asking:
    return Asking(plan, 20, {Tier.SMALL: small, Tier.LARGE: large}, again_after_seconds=0.0)


async def test_both_tiers_are_asked_and_only_the_small_one_for_evidence() -> None:
    small, large = Answering(sure(0.5, text="Ebro")), Answering(Token("the ebro."))
    row = await asking(small, large).row(QUESTION)
    assert [(one.alternatives, one.choices, one.sampling.max_tokens) for one in (*small.asked, *large.asked)] == [
        (20, QUESTION.choices, 8),
        (0, QUESTION.choices, 8),
    ]
    assert (row.small.correct, row.large.correct, row.agrees) == (True, True, True)
    assert (row.small.text, row.large.text) == ("Ebro", "the ebro.")
    assert (row.small.cost_nanos, row.large.cost_nanos) == (150, 1_500)
    assert row.tokens == (sure(0.5, text="Ebro"),)
    assert row.choices == QUESTION.choices
    assert "mean_margin" in row.scores


async def test_a_tier_that_is_paid_by_the_hour_is_paid_for_the_time_it_took() -> None:
    plan = replace(PLAN, prices=PLAN.prices | {Tier.LARGE: Price(hour_nanos=MICROS_PER_HOUR)})
    row = await asking(Answering(sure(0.5)), Answering(Token("Ebro")), plan=plan).row(QUESTION)
    assert row.large.cost_nanos == pytest.approx(row.large.seconds * 1e6, abs=1)


async def test_the_large_answer_is_the_label_when_wanted() -> None:
    small, large = Answering(sure(0.5, text="Etna")), Answering(Token("Etna"))
    row = await asking(small, large, plan=replace(PLAN, labels="large", texts=False)).row(
        replace(QUESTION, answer=None)
    )
    assert (row.small.correct, row.large.correct, row.agrees) == (True, True, True)
    assert row.small.text is None


async def test_a_small_answer_without_evidence_has_no_score() -> None:
    row = await asking(Answering(Token("Ebro")), Answering(Token("Ebro"))).row(QUESTION)
    assert row.scores == {}


async def test_a_failed_question_is_asked_once_more() -> None:
    small, large = Answering(sure(0.5)), Answering(Token("Ebro"), failures=(TierUnavailable("gone"),))
    assert (await asking(small, large).row(QUESTION)).large.correct
    assert (len(small.asked), len(large.asked)) == (2, 2)


async def test_a_question_that_fails_twice_has_failed() -> None:
    large = Answering(failures=(TierUnavailable("gone"), TierUnavailable("gone for good")))
    with pytest.raises(TierUnavailable, match="gone for good"):
        await asking(Answering(sure(0.5)), large).row(QUESTION)


async def test_a_question_that_cannot_be_asked_is_not_asked_again() -> None:
    large = Answering(failures=(InvalidRequest("messages", "is too long"),))
    with pytest.raises(InvalidRequest):
        await asking(Answering(sure(0.5)), large).row(QUESTION)
    assert len(large.asked) == 1


async def test_an_answer_that_stops_without_an_end_is_no_answer() -> None:
    with pytest.raises(BackendProtocol, match="the large model ended its answer without saying why"):
        await asking(Answering(sure(0.5)), Answering(Token("Eb"), ends=False)).row(QUESTION)
