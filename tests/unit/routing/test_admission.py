"""What is asked of a request before anything is spent, and what a request may then do."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest

from marginal.backends.scripted import Script, ScriptedModel
from marginal.errors import (
    BudgetExceeded,
    CostLimited,
    DeadlineTooShort,
    InvalidRequest,
    MarginalError,
    NotAllowed,
    Overloaded,
    RateLimited,
    TierUnavailable,
)
from marginal.pricing import Price
from marginal.routing.concurrency import AdaptiveLimit, LimitRules
from marginal.routing.holds import Window
from marginal.routing.records import CANCELLED, DegradedReason, Outcome
from marginal.routing.requests import Criticality, Mode, OnDegrade
from marginal.routing.tenants import TenantRules
from marginal.routing.terms import Step
from marginal.routing.waiting import Places, WaitingRules
from marginal.routing.worst_case import worst_case
from marginal.tokens import Chunk, Generation, Message, Role, Tier
from unit.routing.cascade import LARGE, PRICES, SURE, UNSURE, Cascade, script

INPUT_NANOS = 1
"""What a token of the prompt costs at the small tier of a Cascade."""


class TestTheHold:
    async def test_covers_whatever_a_request_can_lead_to(self) -> None:
        cascade = Cascade(small=script(UNSURE), large=script(LARGE, TierUnavailable("gone")))
        record = await cascade.ask(max_tokens=8)
        (asked,) = cascade.ledger.asked
        assert [attempt.tier for attempt in record.attempts] == [Tier.SMALL, Tier.LARGE, Tier.SMALL]
        assert record.total_nanos <= asked.full_nanos
        assert asked.small_nanos < asked.full_nanos

    async def test_is_that_of_one_tier_when_the_mode_names_it(self) -> None:
        cascade = Cascade()
        await cascade.ask(mode=Mode.SMALL_ONLY)
        (asked,) = cascade.ledger.asked
        assert asked.full_nanos == asked.small_nanos

    async def test_is_settled_with_what_was_spent(self) -> None:
        cascade = Cascade()
        record = await cascade.ask()
        assert cascade.ledger.settled == [record]
        assert record.admitted_at == 1_000.0

    async def test_is_marked_with_the_worst_of_each_attempt_before_it_is_made(self) -> None:
        kept, deferred = Cascade(), Cascade(small=script(UNSURE))
        await kept.ask()
        record, (asked,) = await deferred.ask(), deferred.ledger.asked
        assert kept.ledger.marks == {"request-1": asked.small_nanos}
        assert record.total_nanos <= deferred.ledger.marks["request-1"] <= asked.full_nanos

    async def test_is_settled_when_the_request_fails(self) -> None:
        cascade = Cascade(small=script(SURE * 3, TierUnavailable("gone"), fault_at=5))
        with pytest.raises(MarginalError):
            await cascade.ask()
        (settled,) = cascade.ledger.settled
        assert settled.error == "StreamInterrupted"

    async def test_of_a_caller_who_leaves_while_it_is_made_is_settled_at_nothing(self) -> None:
        cascade = Cascade()
        cascade.ledger.refusal = asyncio.CancelledError()  # type: ignore[assignment]
        with pytest.raises(asyncio.CancelledError):
            await cascade.ask()
        (settled,) = cascade.ledger.settled
        assert (settled.total_nanos, settled.error) == (0, CANCELLED)

    async def test_counts_characters_as_a_tokenizer_may_turn_them(self) -> None:
        plain, growing = Cascade(), Cascade()
        await plain.ask(prompt="x" * 3)
        await growing.ask(prompt="\ufdfa")
        (small,), (large,) = plain.ledger.asked, growing.ledger.asked
        assert large.small_nanos - small.small_nanos == 30 * INPUT_NANOS

    async def test_of_a_comparison_lasts_as_long_as_that_may(self) -> None:
        hourly = Price(hour_nanos=3_600_000)
        tiers = Cascade().tiers
        policy = replace(Cascade().book.policies.by_name["test"], prices=dict.fromkeys(Tier, hourly))
        generation = Generation((Message(Role.USER, "?"),))
        short, compared = (
            worst_case(policy, generation, mode=mode, tiers=tiers, seconds=1.0) for mode in (Mode.AUTO, Mode.SHADOW)
        )
        assert short.large == 1_000
        assert compared.large == 1_000 * policy.shadow.timeout_seconds


class TestRefusals:
    @pytest.mark.parametrize(
        ("rules", "refused"),
        [
            (TenantRules(policies=frozenset({"other"})), NotAllowed),
            (TenantRules(concurrency=0), RateLimited),
            (TenantRules(per_second=0.0, burst=0), RateLimited),
        ],
        ids=lambda value: value.__name__ if isinstance(value, type) else "",
    )
    async def test_leave_no_hold_and_no_record(self, rules: TenantRules, refused: type[MarginalError]) -> None:
        cascade = Cascade(rules=rules)
        if refused is RateLimited and rules.per_second == 0.0:
            await cascade.ask()
            cascade.ledger.asked.clear()
            cascade.ledger.settled.clear()
            cascade.recorder.records.clear()
        with pytest.raises(refused):
            await cascade.ask()
        assert (cascade.ledger.asked, cascade.ledger.settled, cascade.recorder.records) == ([], [], [])

    async def test_of_a_deadline_that_no_tier_could_meet(self) -> None:
        cascade = Cascade()
        with pytest.raises(DeadlineTooShort):
            await cascade.ask(seconds=0.001)
        assert cascade.ledger.asked == []

    async def test_of_a_tier_without_room_come_before_the_hold(self) -> None:
        cascade = Cascade(small=script(SURE, delay=0.2))
        one = LimitRules(initial=1, minimum=1, maximum=1)
        cascade.tiers[Tier.SMALL].places = Places(AdaptiveLimit(one), WaitingRules(per_place=0.0))
        first = asyncio.create_task(cascade.ask())
        await asyncio.sleep(0.05)
        with pytest.raises(Overloaded):
            await cascade.ask()
        await first
        assert len(cascade.ledger.asked) == 1

    async def test_by_the_ledger_leave_no_record(self) -> None:
        cascade = Cascade()
        cascade.ledger.refusal = BudgetExceeded("hour", reset_seconds=60.0)
        with pytest.raises(BudgetExceeded):
            await cascade.ask()
        assert cascade.recorder.records == []


class TestMaxCost:
    async def test_that_does_not_cover_the_large_tier_keeps_the_small_answer_degraded(self) -> None:
        cascade = Cascade(small=script(UNSURE))
        record = await cascade.ask(max_nanos=10_000)
        assert (record.tier, record.degraded) == (Tier.SMALL, DegradedReason.COST_LIMIT)
        assert record.total_nanos <= 10_000
        assert [outcome for _, outcome, _ in cascade.outcomes] == ["kept"]

    async def test_refuses_when_the_caller_insists_on_the_large_tier(self) -> None:
        cascade = Cascade(small=script(UNSURE))
        with pytest.raises(CostLimited):
            await cascade.ask(max_nanos=10_000, on_degrade=OnDegrade.FAIL)

    async def test_refuses_when_even_the_small_tier_could_cost_more(self) -> None:
        cascade = Cascade()
        with pytest.raises(CostLimited, match="max_cost"):
            await cascade.ask(max_nanos=100)
        assert cascade.ledger.asked == []

    async def test_of_another_currency_is_the_callers_mistake(self) -> None:
        with pytest.raises(InvalidRequest, match="max_cost"):
            await Cascade().ask(max_nanos=10**9, max_currency="EUR")


class TestABudgetForTheSmallTierOnly:
    async def test_refuses_a_request_that_insists_on_the_large_tier_and_names_the_window(self) -> None:
        cascade = Cascade(small=script(UNSURE))
        cascade.ledger.blocked, cascade.ledger.lacking = DegradedReason.BUDGET, Window.HOUR
        with pytest.raises(BudgetExceeded) as refused:
            await cascade.ask(on_degrade=OnDegrade.FAIL)
        assert refused.value.window == "hour"
        assert refused.value.reset_seconds == 3600.0 - 1_000.0

    async def test_answers_an_unsure_request_small_and_says_why(self) -> None:
        cascade = Cascade(small=script(UNSURE))
        cascade.ledger.blocked = DegradedReason.BUDGET
        record = await cascade.ask()
        assert (record.tier, record.degraded) == (Tier.SMALL, DegradedReason.BUDGET)
        assert record.total_nanos <= cascade.ledger.asked[0].small_nanos

    async def test_leaves_a_sure_answer_as_it_is(self) -> None:
        cascade = Cascade()
        cascade.ledger.blocked = DegradedReason.BUDGET
        assert (await cascade.ask()).degraded is None

    async def test_answers_small_when_the_large_tier_was_named(self) -> None:
        cascade = Cascade()
        cascade.ledger.blocked = DegradedReason.BUDGET
        record = await cascade.ask(mode=Mode.LARGE_ONLY)
        assert (record.tier, record.degraded) == (Tier.SMALL, DegradedReason.BUDGET)

    async def test_does_not_bypass_a_small_tier_that_is_down(self) -> None:
        cascade = Cascade(small=script(SURE, TierUnavailable("gone")))
        cascade.ledger.blocked = DegradedReason.BUDGET
        with pytest.raises(TierUnavailable, match="budget"):
            await cascade.ask()
        assert {attempt.tier for attempt in cascade.recorder.attempts} == {Tier.SMALL}

    async def test_is_not_spent_on_shadows(self) -> None:
        cascade = Cascade()
        cascade.ledger.blocked = DegradedReason.BUDGET
        record = await cascade.ask(mode=Mode.SHADOW)
        await cascade.shadows.drained(1.0)
        assert [attempt.outcome for attempt in record.attempts] == [Outcome.KEPT]
        assert {attempt.tier for attempt in cascade.recorder.attempts} == {Tier.SMALL}


async def test_a_tenant_defers_no_more_than_its_share() -> None:
    cascade = Cascade(small=script(UNSURE), rules=TenantRules(deferral_share=0.0))
    record = await cascade.ask()
    assert (record.tier, record.degraded) == (Tier.SMALL, DegradedReason.DEFERRAL_CAP)


async def test_a_sheddable_request_does_not_bypass_a_small_tier_that_is_down() -> None:
    cascade = Cascade(small=script(SURE, TierUnavailable("gone")))
    with pytest.raises(TierUnavailable, match="sheddable"):
        await cascade.ask(criticality=Criticality.SHEDDABLE)


class Endless(ScriptedModel):
    """Writes on, however many tokens were asked for."""

    def generate(self, generation: Generation, *, timeout: float | None = None) -> AsyncGenerator[Chunk, None]:
        asked = replace(generation, sampling=replace(generation.sampling, max_tokens=1_000))
        return super().generate(asked, timeout=timeout)


@pytest.mark.parametrize("per_chunk", [1, 3])
async def test_a_model_that_does_not_stop_is_cut_off_where_it_was_told_to(per_chunk: int) -> None:
    cascade = Cascade()
    endless = Script(SURE * 100, input_tokens=10, tokens_per_chunk=per_chunk)
    cascade.tiers[Tier.SMALL].model = Endless(lambda _: endless)
    record = await cascade.ask(max_tokens=5, mode=Mode.SMALL_ONLY)
    (attempt,) = record.attempts
    assert sum(len(delta.tokens) for delta in cascade.deltas) == attempt.usage.output_tokens == 5
    assert record.total_nanos <= cascade.ledger.asked[0].full_nanos
    assert PRICES[Tier.SMALL].cost(attempt.usage) == record.total_nanos
    assert attempt.usage.counted


class Boastful(ScriptedModel):
    """Claims a hundred times the tokens that it wrote."""

    async def generate(self, generation: Generation, *, timeout: float | None = None) -> AsyncGenerator[Chunk, None]:
        async for chunk in super().generate(generation, timeout=timeout):
            yield replace(chunk, usage=replace(chunk.usage, output_tokens=100 * chunk.usage.output_tokens))


async def test_tokens_that_are_only_claimed_are_not_paid_beyond_what_was_asked_for() -> None:
    cascade = Cascade()
    cascade.tiers[Tier.SMALL].model = Boastful(lambda _: script(SURE))
    record = await cascade.ask(max_tokens=5, mode=Mode.SMALL_ONLY)
    (attempt,) = record.attempts
    assert (attempt.usage.output_tokens, attempt.usage.counted) == (5, True)
    assert record.total_nanos <= cascade.ledger.asked[0].full_nanos


async def test_the_steps_of_a_deferred_request_are_told_in_order() -> None:
    cascade = Cascade(small=script(UNSURE))
    await cascade.ask()
    assert cascade.steps == list(Step)
