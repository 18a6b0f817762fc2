"""Shadow: the large tier is asked too, after the caller has been served, and both answers are compared."""

import asyncio

import pytest

from evidence import sure
from marginal.errors import TierUnavailable
from marginal.policy.scores import SCORES
from marginal.policy.thresholds import Fixed
from marginal.routing.policies import ShadowRules
from marginal.routing.records import Outcome
from marginal.routing.requests import Mode
from marginal.routing.shadows import HOUR_SECONDS, compared
from marginal.routing.tiers import FAILURES_IN_A_ROW
from marginal.tokens import Tier
from unit.routing.cascade import LARGE, SURE, UNSURE, Cascade, criterion, script
from unit.routing.test_router import DOWN

SAME = (sure(0.9, text="Sure "), sure(0.9, text="of it."))


async def settled(cascade: Cascade) -> None:
    await asyncio.gather(*cascade.shadows.running)


async def test_the_caller_is_served_before_the_large_tier_is_asked() -> None:
    cascade = Cascade(mode=Mode.SHADOW, large=script(LARGE, delay=0.05))
    told = await cascade.ask()
    assert cascade.text == "sure of it"
    assert [attempt.outcome for attempt in told.attempts] == [Outcome.KEPT]
    assert cascade.recorder.records == []
    await settled(cascade)
    [record] = cascade.recorder.records
    assert [(each.tier, each.outcome.value) for each in record.attempts] == [
        (Tier.SMALL, "kept"),
        (Tier.LARGE, "shadow"),
    ]
    assert record.total_nanos > told.total_nanos
    assert cascade.recorder.told == [told]


@pytest.mark.parametrize(("large", "agrees"), [(SAME, True), (LARGE, False)], ids=["the same", "another"])
async def test_agreement_and_every_score_are_on_the_record_but_no_text(large: tuple, agrees: bool) -> None:
    cascade = Cascade(mode=Mode.SHADOW, large=script(large))
    await cascade.ask()
    await settled(cascade)
    comparison = cascade.recorder.records[0].comparison
    assert comparison is not None
    assert comparison.agrees is agrees
    assert set(comparison.scores) == set(SCORES)
    assert (comparison.small_text, comparison.large_text) == (None, None)
    assert cascade.shadows.by_policy["test"].agreed == agrees


async def test_texts_are_kept_when_the_policy_says_so() -> None:
    cascade = Cascade(mode=Mode.SHADOW, shadow=ShadowRules(texts=True))
    await cascade.ask()
    await settled(cascade)
    comparison = cascade.recorder.records[0].comparison
    assert comparison is not None
    assert (comparison.small_text, comparison.large_text) == ("sure of it", "large answer")


class TestWhoIsAsked:
    async def test_a_share_by_lot(self) -> None:
        for lot, shadowed in ((0.04, True), (0.06, False)):
            cascade = Cascade(mode=Mode.SHADOW, shadow=ShadowRules(share=0.05), lot=lot)
            await cascade.ask()
            await settled(cascade)
            assert (cascade.recorder.records[0].comparison is not None) is shadowed

    async def test_a_request_that_asks_for_it_always(self) -> None:
        cascade = Cascade(lot=0.99)
        await cascade.ask(mode=Mode.SHADOW)
        await settled(cascade)
        assert cascade.recorder.records[0].comparison is not None

    async def test_nothing_that_was_deferred(self) -> None:
        cascade = Cascade(mode=Mode.SHADOW, small=script(UNSURE))
        await cascade.ask()
        assert [each.outcome for each in cascade.recorder.records[0].attempts] == [Outcome.ABORTED, Outcome.KEPT]

    async def test_nothing_more_than_run_at_a_time(self) -> None:
        cascade = Cascade(mode=Mode.SHADOW, large=script(LARGE, delay=0.05), shadow=ShadowRules(concurrency=2))
        await asyncio.gather(*(cascade.ask() for _ in range(5)))
        await settled(cascade)
        assert sum(record.comparison is not None for record in cascade.recorder.records) == 2
        assert cascade.shadows.by_policy["test"].left_out == 3
        assert len(cascade.recorder.records) == 5

    async def test_nothing_past_the_budget_of_the_hour(self) -> None:
        told = await Cascade().ask()
        rules = ShadowRules(hourly_nanos=2 * told.always_large_nanos)
        cascade = Cascade(mode=Mode.SHADOW, shadow=rules)
        for _ in range(4):
            await cascade.ask()
            await settled(cascade)
        assert cascade.shadows.by_policy["test"].answered == 2
        cascade.clock.now += HOUR_SECONDS
        await cascade.ask()
        await settled(cascade)
        assert cascade.shadows.by_policy["test"].answered == 3

    async def test_no_tier_that_is_down(self) -> None:
        cascade = Cascade(mode=Mode.SHADOW, large=script((), DOWN))
        for _ in range(FAILURES_IN_A_ROW):
            await cascade.ask()
            await settled(cascade)
        await cascade.ask()
        assert cascade.shadows.by_policy["test"].left_out == 1
        assert [len(record.attempts) for record in cascade.recorder.records] == [2, 2, 2, 1]


async def test_a_shadow_that_fails_is_on_the_record_and_costs_the_caller_nothing() -> None:
    cascade = Cascade(mode=Mode.SHADOW, large=script(LARGE, TierUnavailable("gone"), fault_at=1))
    told = await cascade.ask()
    await settled(cascade)
    [record] = cascade.recorder.records
    assert told.error is None
    assert record.comparison is None
    assert (record.attempts[-1].outcome, record.attempts[-1].error) == (Outcome.SHADOW, "TierUnavailable")


async def test_a_router_that_stops_ends_its_shadows_and_leaves_their_records() -> None:
    cascade = Cascade(mode=Mode.SHADOW, large=script(LARGE, delay=5.0))
    await cascade.ask()
    await asyncio.sleep(0.01)
    await cascade.shadows.drained(0.02)
    [record] = cascade.recorder.records
    assert record.attempts[-1].outcome is Outcome.SHADOW
    assert cascade.large_model.active == 0


async def test_a_router_that_stops_lets_its_shadows_end_in_time() -> None:
    cascade = Cascade(mode=Mode.SHADOW, large=script(LARGE, delay=0.02))
    await cascade.ask()
    await cascade.shadows.drained(5.0)
    assert cascade.recorder.records[0].comparison is not None


async def test_a_shadow_asks_for_no_evidence_and_never_stops_early() -> None:
    cascade = Cascade(mode=Mode.SHADOW)
    await cascade.ask()
    await settled(cascade)
    asked = cascade.large_model.runs[-1].generation
    assert (asked.alternatives, asked.early_stop) == (0, None)


async def test_what_is_asked_for_by_hand_is_no_part_of_the_sample() -> None:
    cascade = Cascade(lot=0.99)
    for mode, policy_mode in ((Mode.SHADOW, Mode.AUTO), (Mode.AUTO, Mode.SHADOW)):
        cascade = Cascade(mode=policy_mode)
        await cascade.ask(mode=mode)
        await settled(cascade)
        assert cascade.recorder.records[0].sampled is (policy_mode is Mode.SHADOW)


async def test_a_shadow_costs_its_hour_what_it_really_cost() -> None:
    cascade = Cascade(mode=Mode.SHADOW)
    told = await cascade.ask()
    await settled(cascade)
    [record] = cascade.recorder.records
    assert cascade.shadows.by_policy["test"].hour_nanos == record.total_nanos - told.total_nanos


async def test_an_hour_that_turns_meanwhile_is_not_credited_with_the_last_one() -> None:
    cascade = Cascade(mode=Mode.SHADOW, large=script(LARGE, delay=0.05), shadow=ShadowRules(concurrency=2))
    await cascade.ask()
    cascade.clock.now += HOUR_SECONDS
    await cascade.ask()
    await settled(cascade)
    assert cascade.shadows.by_policy["test"].hour_nanos >= 0


async def test_the_threshold_does_not_learn_what_shadows_cost() -> None:
    cascade = Cascade(mode=Mode.SHADOW)
    told = await cascade.ask()
    await settled(cascade)
    [(_, learner)] = cascade.book.learners("test")
    assert learner.tally.spend_nanos == told.total_nanos


async def test_a_caller_who_waits_for_the_whole_answer_keeps_it_when_the_shadow_fails() -> None:
    cascade = Cascade(mode=Mode.SHADOW, large=script(LARGE, DOWN, fault_at=1), waits_for_the_whole=True)
    await cascade.ask()
    await settled(cascade)
    assert cascade.text == "sure of it"


def test_case_white_space_and_a_full_stop_are_no_disagreement() -> None:
    own = criterion(lambda: Fixed(0.5))
    assert compared(SURE, SAME, criterion=own).agrees
    assert not compared(SURE, LARGE, criterion=own).agrees


def test_the_policys_own_score_is_over_its_window_and_the_others_over_the_whole_answer() -> None:
    answer = (*SURE, sure(0.1))
    scores = compared(answer, LARGE, criterion=criterion(lambda: Fixed(0.5))).scores
    assert scores["min_margin"] == pytest.approx(0.9)
    assert scores["mean_margin"] == pytest.approx(0.7)
