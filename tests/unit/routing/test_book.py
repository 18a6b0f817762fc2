"""What rules learn from, whose it is, and what is kept when policies change or a router starts again."""

import json
from dataclasses import replace

import pytest

from marginal.errors import TierUnavailable
from marginal.policy.deferral import Decision, Reason, Verdict
from marginal.policy.thresholds import Lesson, TargetRate
from marginal.routing.book import MOST_LEARNERS, Learner
from marginal.routing.policies import Policies
from marginal.routing.records import CANCELLED, CostRecord, DegradedReason
from marginal.routing.requests import Mode, OnDegrade
from marginal.tokens import Tier
from unit.routing.cascade import LARGE, SURE, UNSURE, Cascade, criterion, script
from unit.routing.test_router import DOWN

KEEP, DEFER = Verdict.KEEP, Verdict.DEFER
RECORD = CostRecord("id", "", "default", "test", "1", "USD", None, (), 0)


class Listening:
    """A rule that remembers its lessons."""

    value = 0.5

    def __init__(self) -> None:
        self.lessons: list[Lesson] = []

    def learn(self, lesson: Lesson) -> None:
        self.lessons.append(lesson)

    def state(self) -> dict[str, float]:
        return {"lessons": float(len(self.lessons))}

    def restore(self, state: dict[str, float]) -> None:
        assert state == self.state()


def record(verdict: Verdict, *, degraded: bool = False, error: str | None = None) -> CostRecord:
    why = DegradedReason.LARGE_UNAVAILABLE if degraded else None
    return replace(RECORD, decision=Decision(verdict, Reason.SCORE, score=0.4), degraded=why, error=error)


def listening() -> tuple[Learner, Listening]:
    rule = Listening()
    return Learner(criterion(lambda: rule)), rule  # type: ignore[arg-type, return-value]


def learnt(*records: CostRecord) -> list[Verdict]:
    learner, rule = listening()
    for each in records:
        learner.learn(each)
    return [lesson.decision.verdict for lesson in rule.lessons]


class TestWhatIsALesson:
    def test_a_request_that_was_judged_and_answered_is(self) -> None:
        assert learnt(record(KEEP), record(DEFER)) == [KEEP, DEFER]

    def test_one_that_its_caller_gave_up_is_too(self) -> None:
        assert learnt(record(DEFER, error=CANCELLED)) == [DEFER]

    @pytest.mark.parametrize("reason", [Reason.NO_SCORE, Reason.MODE, Reason.SMALL_UNAVAILABLE])
    def test_one_without_a_score_or_with_its_tier_named_is_not(self, reason: Reason) -> None:
        assert learnt(replace(RECORD, decision=Decision(DEFER, reason)), RECORD) == []

    def test_a_degraded_one_is_not_and_neither_are_keeps_until_a_deferral_is_served_again(self) -> None:
        outage = (record(KEEP), record(DEFER, degraded=True), record(KEEP), record(DEFER, degraded=True), record(KEEP))
        assert learnt(*outage, record(DEFER), record(KEEP)) == [KEEP, DEFER, KEEP]

    def test_a_deferral_that_failed_holds_the_rule_like_a_degraded_one(self) -> None:
        assert learnt(record(DEFER, error="TierUnavailable"), record(KEEP)) == []

    async def test_an_outage_leaves_the_threshold_where_it_was(self) -> None:
        rule = TargetRate(0.3, start=0.5)
        cascade = Cascade(small=script(UNSURE), large=script(LARGE, DOWN), threshold=rule)
        await cascade.ask()
        for _ in range(50):
            cascade.small = script(SURE)
            await cascade.ask()
            cascade.small = script(UNSURE)
            await cascade.ask()
        assert rule.value == 0.5

    async def test_an_override_leaves_the_threshold_where_it_was(self) -> None:
        rule = TargetRate(0.3, start=0.5)
        cascade = Cascade(threshold=rule)
        await cascade.ask(mode=Mode.LARGE_ONLY)
        await cascade.ask(mode=Mode.SMALL_ONLY)
        assert rule.value == 0.5

    async def test_refusing_to_degrade_is_no_lesson(self) -> None:
        rule = TargetRate(0.3, start=0.5)
        cascade = Cascade(small=script(UNSURE), large=script(LARGE, DOWN), threshold=rule)
        with pytest.raises(TierUnavailable):
            await cascade.ask(on_degrade=OnDegrade.FAIL)
        assert rule.value == 0.5

    async def test_the_cost_of_a_lesson_is_what_all_attempts_cost(self) -> None:
        rule = Listening()
        cascade = Cascade(small=script(UNSURE), threshold=rule)  # type: ignore[arg-type]
        told = await cascade.ask()
        assert [lesson.cost_nanos for lesson in rule.lessons] == [told.total_nanos]


def test_a_tally_is_of_what_the_criterion_judged() -> None:
    learner, _ = listening()
    learner.learn(replace(RECORD, decision=Decision(DEFER, Reason.MODE), always_large_nanos=10))
    learner.learn(replace(record(DEFER), always_large_nanos=4))
    learner.learn(replace(record(KEEP, degraded=True), always_large_nanos=2))
    tally = learner.tally
    assert learner.requests == 2
    assert (tally.deferral_share, tally.degraded_share, tally.always_large_nanos) == (0.5, 0.5, 3.0)


class TestWhoseItIs:
    async def test_a_flood_of_one_tenant_does_not_move_the_threshold_of_another(self) -> None:
        cascade = Cascade()
        policies = _moving(cascade, fingerprint="a")
        cascade.book.replace(policies)
        quiet = cascade.book.learner(policies.by_name["test"], task="", tenant="quiet")
        before = quiet.threshold.value
        for _ in range(100):
            await cascade.ask(tenant="flood")
        flood = cascade.book.learner(policies.by_name["test"], task="", tenant="flood")
        assert flood.threshold.value != before
        assert quiet.threshold.value == before

    async def test_a_task_with_a_criterion_of_its_own_learns_apart(self) -> None:
        strict = criterion(lambda: TargetRate(0.9), fingerprint="strict")
        cascade = Cascade(tasks={"arithmetic": strict}, small=script(SURE))
        assert (await cascade.ask(task="arithmetic")).decision.threshold == pytest.approx(0.9)
        assert (await cascade.ask(task="weather")).decision.threshold == 0.5
        assert (await cascade.ask()).task == ""

    def test_tenants_that_nobody_saw_for_long_make_room(self) -> None:
        cascade = Cascade()
        policy = cascade.book.policy("")
        first = cascade.book.learner(policy, task="", tenant="first")
        for number in range(MOST_LEARNERS):
            cascade.book.learner(policy, task="", tenant=f"tenant-{number}")
        assert cascade.book.learner(policy, task="", tenant="first") is not first


def _moving(cascade: Cascade, *, fingerprint: str, start: float = 0.5) -> Policies:
    policy = cascade.book.policy("")
    own = criterion(lambda: TargetRate(0.3, start=start), fingerprint=fingerprint)
    return Policies({"test": replace(policy, criterion=own, version="2")}, "test")


class TestWhatIsKept:
    async def test_a_changed_policy_with_the_same_criterion_goes_on_learning(self) -> None:
        cascade = Cascade()
        cascade.book.replace(_moving(cascade, fingerprint="a"))
        await cascade.ask()
        cascade.book.replace(_moving(cascade, fingerprint="a"))
        moved = (await cascade.ask()).decision.threshold
        cascade.book.replace(_moving(cascade, fingerprint="b"))
        assert moved != 0.5
        assert (await cascade.ask()).decision.threshold == 0.5

    async def test_a_request_under_way_ends_under_the_policy_it_began_with(self) -> None:
        cascade = Cascade()
        before = cascade.book.policy("")
        cascade.book.replace(_moving(cascade, fingerprint="a"))
        assert before.version == "1"
        assert (await cascade.ask()).policy_version == "2"

    async def test_what_was_learnt_is_there_after_a_restart(self) -> None:
        one = Cascade()
        one.book.replace(_moving(one, fingerprint="a"))
        for _ in range(10):
            await one.ask(tenant="acme")
        kept = json.loads(json.dumps(one.book.snapshot()))
        other = Cascade()
        other.book.replace(_moving(other, fingerprint="a"))
        assert other.book.restore(kept) == 1
        policy = other.book.policy("")
        assert other.book.learner(policy, task="", tenant="acme").threshold.value == pytest.approx(
            one.book.learner(one.book.policy(""), task="", tenant="acme").threshold.value
        )

    def test_what_was_learnt_under_another_criterion_is_not_restored(self) -> None:
        cascade = Cascade()
        saved = {"policy": "test", "task": "", "tenant": "x", "fingerprint": "old", "state": {"place": 0.1}}
        assert cascade.book.restore([saved, {**saved, "policy": "gone"}, {**saved, "task": "gone"}]) == 0


class TestModes:
    @pytest.mark.parametrize(
        ("mode", "asked", "tier"),
        [
            (Mode.SMALL_ONLY, Mode.AUTO, Tier.SMALL),
            (Mode.SMALL_ONLY, Mode.LARGE_ONLY, Tier.SMALL),
            (Mode.LARGE_ONLY, Mode.AUTO, Tier.LARGE),
            (Mode.LARGE_ONLY, Mode.SMALL_ONLY, Tier.LARGE),
            (Mode.AUTO, Mode.LARGE_ONLY, Tier.LARGE),
            (Mode.SHADOW, Mode.LARGE_ONLY, Tier.LARGE),
            (Mode.SHADOW, Mode.AUTO, Tier.SMALL),
        ],
    )
    async def test_a_kill_switch_stands_above_the_request(self, mode: Mode, asked: Mode, tier: Tier) -> None:
        assert (await Cascade(mode=mode, lot=0.99).ask(mode=asked)).tier is tier
