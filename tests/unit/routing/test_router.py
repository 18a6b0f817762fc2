import asyncio

import pytest

from evidence import blind, sure
from marginal.errors import DeadlineExceeded, InvalidRequest, Overloaded, StreamInterrupted, TierUnavailable
from marginal.policy.deferral import Reason
from marginal.routing.policies import BypassRules, DegradeRules
from marginal.routing.records import DegradedReason
from marginal.routing.requests import Delta, Mode, OnDegrade
from marginal.routing.tiers import FAILURES_IN_A_ROW
from marginal.tokens import EarlyStop, FinishReason, Tier, Usage
from unit.routing.cascade import INPUT_TOKENS, LARGE, PRICES, UNSURE, Cascade, script

SMALL, BIG = Tier.SMALL, Tier.LARGE
DOWN = TierUnavailable("down")


async def test_a_confident_small_model_answers() -> None:
    cascade = Cascade()
    record = await cascade.ask()
    assert cascade.text == "sure of it"
    assert (record.tier, record.finish, record.degraded) == (SMALL, FinishReason.STOP, None)
    assert cascade.outcomes == [(SMALL, "kept", 3)]


async def test_an_uncertain_prefix_defers_and_the_large_model_answers() -> None:
    cascade = Cascade(small=script(UNSURE))
    record = await cascade.ask()
    assert cascade.text == "large answer"
    assert record.tier is BIG
    assert cascade.outcomes == [(SMALL, "aborted", 2), (BIG, "kept", 2)]


async def test_a_deferral_stops_the_small_model_at_the_deciding_token() -> None:
    cascade = Cascade(small=script(UNSURE))
    await cascade.ask()
    assert cascade.small_model.generated == 2


async def test_the_small_tier_is_told_the_rule_it_is_judged_by() -> None:
    cascade = Cascade()
    await cascade.ask()
    assert cascade.small_model.runs[0].generation.early_stop == EarlyStop("min_margin", 3, 0.5)


async def test_evidence_is_asked_of_the_small_tier_only_and_no_more_than_the_score_needs() -> None:
    cascade = Cascade(small=script(UNSURE))
    await cascade.ask()
    await cascade.ask(choices=("so", "not"))
    assert [run.generation.alternatives for run in cascade.small_model.runs] == [2, 20]
    assert {run.generation.alternatives for run in cascade.large_model.runs} == {0}


async def test_nothing_of_the_small_answer_is_sent_before_the_verdict() -> None:
    cascade = Cascade(small=script((sure(0.9, text="a"),) * 5))
    await cascade.ask()
    assert [len(delta.tokens) for delta in cascade.deltas] == [3, 1, 1]


async def test_an_answer_comes_from_one_tier_only() -> None:
    for small in (script(), script(UNSURE)):
        cascade = Cascade(small=small)
        await cascade.ask()
        assert len({delta.tier for delta in cascade.deltas}) == 1


async def test_every_attempt_is_charged_at_its_own_price() -> None:
    cascade = Cascade(small=script(UNSURE))
    record = await cascade.ask()
    small, large = (attempt.cost_nanos for attempt in record.attempts)
    assert small == 100 + INPUT_TOKENS * 1 + 2 * 10
    assert large == 1000 + INPUT_TOKENS * 20 + 2 * 200
    assert record.total_nanos == small + large
    assert record.always_large_nanos == large


async def test_a_kept_answer_says_what_the_large_tier_would_have_cost() -> None:
    record = await Cascade().ask()
    assert record.always_large_nanos == PRICES[BIG].cost(Usage(INPUT_TOKENS, 3))


async def test_a_call_that_failed_before_its_first_token_costs_nothing() -> None:
    record = await Cascade(small=script(UNSURE), large=script(LARGE, DOWN)).ask()
    assert [attempt.cost_nanos > 0 for attempt in record.attempts] == [True, False, True]


async def test_the_record_is_made_before_the_caller_has_it() -> None:
    cascade = Cascade()
    assert await cascade.ask() is cascade.recorder.records[0]


async def test_modes_name_the_tier() -> None:
    cascade = Cascade(small=script(UNSURE))
    record = await cascade.ask(mode=Mode.SMALL_ONLY)
    assert cascade.text == "not so sure"
    assert record.decision is not None
    assert record.decision.reason is Reason.MODE
    cascade = Cascade()
    assert (await cascade.ask(mode=Mode.LARGE_ONLY)).tier is BIG
    assert cascade.outcomes == [(BIG, "kept", 2)]


async def test_an_unknown_policy_is_the_callers_mistake() -> None:
    with pytest.raises(InvalidRequest, match=r"policy: .*test"):
        await Cascade().ask(policy="other")


async def test_without_evidence_the_policy_says_which_tier() -> None:
    assert (await Cascade(small=script((blind(),))).ask()).tier is BIG
    kept = await Cascade(small=script((blind(),)), defer_without_score=False).ask()
    assert kept.tier is SMALL
    assert kept.decision is not None
    assert kept.decision.score is None


async def test_an_answer_without_a_score_stops_where_that_shows_and_is_charged_so_far() -> None:
    cascade = Cascade(small=script((sure(0.9), blind(), sure(0.9), sure(0.9))))
    await cascade.ask()
    assert cascade.outcomes == [(SMALL, "aborted", 2), (BIG, "kept", 2)]
    assert cascade.small_model.generated == 2


async def test_an_empty_small_answer_is_deferred() -> None:
    assert (await Cascade(small=script(())).ask()).tier is BIG


async def known_down() -> Cascade:
    """A cascade that knows its large tier to be down."""
    cascade = Cascade(small=script(UNSURE), large=script(LARGE, DOWN))
    for _ in range(FAILURES_IN_A_ROW):
        await cascade.ask()
    return cascade


class TestWhenTheLargeTierIsDown:
    async def test_the_small_answer_is_served_degraded(self) -> None:
        cascade = Cascade(small=script(UNSURE), large=script(LARGE, DOWN))
        record = await cascade.ask()
        assert cascade.text == "not so sure"
        assert record.degraded is DegradedReason.LARGE_UNAVAILABLE
        assert cascade.outcomes == [(SMALL, "aborted", 2), (BIG, "failed", 0), (SMALL, "kept", 3)]

    async def test_a_caller_may_ask_to_fail_instead(self) -> None:
        cascade = Cascade(small=script(UNSURE), large=script(LARGE, DOWN))
        with pytest.raises(TierUnavailable, match="on_degrade is FAIL"):
            await cascade.ask(on_degrade=OnDegrade.FAIL)
        assert cascade.recorder.records[0].error == "TierUnavailable"

    async def test_a_refusal_to_degrade_is_not_held_against_the_small_tier(self) -> None:
        cascade = await known_down()
        cascade.recorder.attempts.clear()
        with pytest.raises(TierUnavailable, match="on_degrade is FAIL"):
            await cascade.ask(on_degrade=OnDegrade.FAIL)
        assert cascade.outcomes == [(SMALL, "aborted", 2)]

    async def test_once_it_is_known_small_answers_are_not_cut_short_for_nothing(self) -> None:
        cascade = await known_down()
        cascade.recorder.attempts.clear()
        record = await cascade.ask()
        assert record.degraded is DegradedReason.LARGE_UNAVAILABLE
        assert cascade.outcomes == [(SMALL, "kept", 3)]

    async def test_one_failure_is_not_held_against_it(self) -> None:
        cascade = Cascade(small=script(UNSURE), large=script(LARGE, DOWN))
        await cascade.ask()
        cascade.large = script(LARGE)
        assert (await cascade.ask()).tier is BIG

    async def test_one_request_at_a_time_finds_out_whether_it_is_back(self) -> None:
        cascade = await known_down()
        cascade.recorder.attempts.clear()
        cascade.clock.now += DegradeRules().retry_seconds
        await asyncio.gather(*(cascade.ask() for _ in range(5)))
        assert sum(tier is BIG for tier, _, _ in cascade.outcomes) == 1

    async def test_it_is_asked_again_after_a_while(self) -> None:
        cascade = await known_down()
        cascade.large = script(LARGE)
        cascade.clock.now += DegradeRules().retry_seconds
        assert (await cascade.ask()).tier is BIG

    async def test_a_confident_answer_is_not_degraded(self) -> None:
        cascade = await known_down()
        cascade.small = script()
        assert (await cascade.ask()).degraded is None

    async def test_with_the_small_one_down_too_it_fails_and_says_so(self) -> None:
        cascade = Cascade(small=script((), DOWN), large=script((), DOWN))
        with pytest.raises(TierUnavailable):
            await cascade.ask()
        assert cascade.outcomes == [(SMALL, "failed", 0), (BIG, "failed", 0)]


async def test_too_little_time_for_the_large_tier_serves_the_small_answer_degraded() -> None:
    cascade = Cascade(small=script(UNSURE), degrade=DegradeRules(large_floor_seconds=2.0))
    record = await cascade.ask(seconds=1.0)
    assert record.degraded is DegradedReason.DEADLINE
    assert cascade.outcomes == [(SMALL, "kept", 3)]


async def test_a_tier_that_stays_silent_is_given_up() -> None:
    rules = DegradeRules(silence_seconds=0.02)
    cascade = Cascade(small=script(UNSURE), large=script(LARGE, delay=5.0), degrade=rules)
    record = await cascade.ask()
    assert record.degraded is DegradedReason.LARGE_UNAVAILABLE
    assert cascade.large_model.active == 0


async def test_a_slow_large_tier_leaves_half_of_the_time_for_the_small_answer() -> None:
    cascade = Cascade(small=script(UNSURE), large=script(LARGE, delay=5.0))
    record = await cascade.ask(seconds=0.2)
    assert record.degraded is DegradedReason.LARGE_UNAVAILABLE
    assert cascade.text == "not so sure"


async def test_a_callers_haste_is_not_held_against_a_tier() -> None:
    cascade = Cascade(small=script(UNSURE), large=script(LARGE, delay=0.1))
    for _ in range(FAILURES_IN_A_ROW):
        await cascade.ask(seconds=0.1)
    assert (await cascade.ask()).tier is BIG


async def test_a_tier_that_is_full_is_not_taken_to_be_down() -> None:
    cascade = Cascade(small=script(UNSURE), large=script(LARGE, Overloaded("full")))
    for _ in range(FAILURES_IN_A_ROW):
        assert (await cascade.ask()).degraded is DegradedReason.OVERLOADED
    cascade.large = script(LARGE)
    assert (await cascade.ask()).tier is BIG


async def test_the_deadline_ends_a_request_and_is_on_its_record() -> None:
    cascade = Cascade(small=script(delay=5.0))
    with pytest.raises(DeadlineExceeded):
        await cascade.ask(mode=Mode.SMALL_ONLY, seconds=0.05)
    assert cascade.recorder.records[0].error == "DeadlineExceeded"
    assert cascade.small_model.active == 0


class TestWhenTheSmallTierIsDown:
    async def test_a_silent_one_is_given_up_in_time_for_the_large_tier(self) -> None:
        assert (await Cascade(small=script(delay=5.0)).ask(seconds=0.2)).tier is BIG

    async def test_once_it_is_known_it_is_not_waited_for(self) -> None:
        cascade = Cascade(small=script((), DOWN))
        for _ in range(FAILURES_IN_A_ROW):
            await cascade.ask()
        cascade.recorder.attempts.clear()
        await cascade.ask()
        assert cascade.outcomes == [(BIG, "kept", 2)]

    async def test_a_bypass_of_rate_zero_lets_nothing_by(self) -> None:
        with pytest.raises(TierUnavailable, match="bypass"):
            await Cascade(small=script((), DOWN), bypass=BypassRules(per_second=0.0)).ask()

    async def test_a_caller_who_waits_for_the_whole_answer_gets_the_large_one(self) -> None:
        midway = script((sure(0.9, text="a"),) * 5, DOWN, fault_at=4)
        cascade = Cascade(small=midway, waits_for_the_whole=True)
        assert (await cascade.ask()).tier is BIG
        assert cascade.text == "large answer"

    async def test_the_large_tier_answers_within_the_bypass(self) -> None:
        record = await Cascade(small=script((), DOWN)).ask()
        assert record.tier is BIG
        assert record.decision is not None
        assert record.decision.reason is Reason.SMALL_UNAVAILABLE

    async def test_the_bypass_is_bounded_and_fills_again(self) -> None:
        cascade = Cascade(small=script((), DOWN), bypass=BypassRules(per_second=2.0))
        await cascade.ask()
        await cascade.ask()
        with pytest.raises(TierUnavailable, match="bypass"):
            await cascade.ask()
        cascade.clock.now += 1.0
        assert (await cascade.ask()).tier is BIG

    async def test_the_bypass_bounds_what_goes_on_at_once(self) -> None:
        rules = BypassRules(concurrency=1, per_second=100.0)
        cascade = Cascade(small=script((), DOWN), large=script(LARGE, delay=0.05), bypass=rules)
        results = await asyncio.gather(*(cascade.ask() for _ in range(3)), return_exceptions=True)
        assert sum(isinstance(result, TierUnavailable) for result in results) == 2


async def test_a_failure_before_the_commit_point_is_invisible() -> None:
    cascade = Cascade(small=script(fault=DOWN, fault_at=2))
    assert (await cascade.ask()).tier is BIG
    assert cascade.text == "large answer"
    assert cascade.outcomes == [(SMALL, "failed", 2), (BIG, "kept", 2)]


async def test_a_failure_after_the_commit_point_ends_the_stream_and_switches_nothing() -> None:
    cascade = Cascade(small=script((sure(0.9, text="a"),) * 5, DOWN, fault_at=4))
    with pytest.raises(StreamInterrupted):
        await cascade.ask()
    assert cascade.text == "aaaa"
    assert cascade.outcomes == [(SMALL, "failed", 4)]


async def test_a_caller_who_waits_for_the_whole_answer_never_sees_a_broken_one() -> None:
    broken = script(LARGE, DOWN, fault_at=1)
    cascade = Cascade(small=script(UNSURE), large=broken, waits_for_the_whole=True)
    record = await cascade.ask()
    assert cascade.text == "not so sure"
    assert record.degraded is DegradedReason.LARGE_UNAVAILABLE
    assert cascade.outcomes == [(SMALL, "aborted", 2), (BIG, "failed", 1), (SMALL, "kept", 3)]
    assert record.total_nanos == sum(attempt.cost_nanos for attempt in record.attempts)


async def test_a_deadline_on_the_way_is_its_own_error() -> None:
    cascade = Cascade(small=script(fault=DeadlineExceeded("late")))
    with pytest.raises(DeadlineExceeded):
        await cascade.ask()
    assert cascade.recorder.records[0].error == "DeadlineExceeded"


@pytest.mark.parametrize("mode", [Mode.AUTO, Mode.LARGE_ONLY])
async def test_a_caller_who_leaves_stops_both_tiers_and_leaves_one_record(mode: Mode) -> None:
    cascade = Cascade(small=script(UNSURE, delay=0.01), large=script(LARGE, delay=5.0))
    asking = asyncio.create_task(cascade.ask(mode=mode))
    await asyncio.sleep(0.05)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert (cascade.small_model.active, cascade.large_model.active) == (0, 0)
    assert [record.error for record in cascade.recorder.records] == ["Cancelled"]
    assert cascade.outcomes[-1] == (BIG, "aborted", 0)


async def test_a_caller_who_cannot_be_sent_to_stops_the_generation() -> None:
    cascade = Cascade()

    async def broken(_: Delta) -> None:
        raise ConnectionResetError

    cascade.send = broken  # type: ignore[method-assign]
    with pytest.raises(ConnectionResetError):
        await cascade.ask()
    assert cascade.small_model.active == 0
    assert [record.error for record in cascade.recorder.records] == ["ConnectionResetError"]


async def test_several_tokens_in_a_message_are_judged_one_by_one() -> None:
    cascade = Cascade()
    cascade.small = script(UNSURE)
    object.__setattr__(cascade.small, "tokens_per_chunk", 3)
    assert (await cascade.ask()).tier is BIG
