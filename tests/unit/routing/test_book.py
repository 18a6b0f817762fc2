"""What rules learn from, whose it is, and what is kept when policies change or a router starts again."""

import asyncio
import json
from dataclasses import replace

import pytest

from evidence import sure
from marginal.policy.deferral import Decision, Reason, Verdict
from marginal.policy.thresholds import Lesson, TargetRate
from marginal.routing.book import MOST_LEARNERS, Learner
from marginal.routing.policies import DegradeRules, Policies
from marginal.routing.records import CostRecord, DegradedReason
from marginal.routing.requests import Mode, OnDegrade
from marginal.routing.tiers import FAILURES_IN_A_ROW
from marginal.tokens import Tier
from unit.routing.cascade import LARGE, SURE, UNSURE, Cascade, criterion, script
from unit.routing.test_router import DOWN

KEEP, DEFER = Verdict.KEEP, Verdict.DEFER
RECORD = CostRecord("id", "", "default", "test", "1", "USD", None, (), 0)


class Listening:
    """A rule that remembers its lessons, and reckons with a cost of 7 for each."""

    value = 0.5

    def __init__(self) -> None:
        self.lessons: list[Lesson] = []
        self.settled: list[tuple[int | None, float]] = []

    def learn(self, lesson: Lesson) -> float:
        self.lessons.append(lesson)
        return 7.0

    def settle(self, lesson: Lesson, *, reckoned: float) -> None:
        self.settled.append((lesson.cost_nanos, reckoned))

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


class TestWhatIsALesson:
    def test_a_verdict_is_when_it_falls(self) -> None:
        learner, rule = listening()
        assert learner.judged(Decision(DEFER, Reason.SCORE, score=0.4), deferrable=True) == 7.0
        assert [lesson.decision.verdict for lesson in rule.lessons] == [DEFER]

    @pytest.mark.parametrize("reason", [Reason.NO_SCORE, Reason.MODE, Reason.SMALL_UNAVAILABLE])
    def test_one_without_a_score_or_with_its_tier_named_is_not(self, reason: Reason) -> None:
        learner, rule = listening()
        assert learner.judged(Decision(DEFER, reason), deferrable=True) is None
        assert rule.lessons == []

    @pytest.mark.parametrize("verdict", [KEEP, DEFER])
    def test_none_is_while_the_large_tier_is_out_of_reach(self, verdict: Verdict) -> None:
        learner, rule = listening()
        assert learner.judged(Decision(verdict, Reason.SCORE, score=0.4), deferrable=False) is None
        assert rule.lessons == []

    @pytest.mark.parametrize(
        ("ended", "settled"),
        [(record(DEFER), [(0, 7.0)]), (record(DEFER, degraded=True), []), (record(KEEP, error="Cancelled"), [])],
        ids=["answered", "degraded", "given up"],
    )
    def test_only_what_was_answered_settles_its_cost(self, ended: CostRecord, settled: list[object]) -> None:
        learner, rule = listening()
        learner.ended(ended, reckoned=7.0)
        assert rule.settled == settled

    async def test_an_outage_leaves_the_threshold_where_it_was(self) -> None:
        rule = TargetRate(0.3, start=0.5)
        cascade = Cascade(small=script(UNSURE), large=script(LARGE, DOWN), threshold=rule)
        for _ in range(FAILURES_IN_A_ROW):
            await cascade.ask()
        known = rule.value
        for _ in range(50):
            for answer in (SURE, UNSURE):
                cascade.small = script(answer)
                await cascade.ask()
        assert rule.value == known

    async def test_a_tier_that_hangs_does_not_drive_the_threshold_up(self) -> None:
        rule = TargetRate(0.3, start=0.5)
        hanging = script(LARGE, delay=10.0)
        cascade = Cascade(large=hanging, threshold=rule, degrade=DegradeRules(silence_seconds=0.2))
        cascade.replies = {f"{turn}": script(SURE if turn % 10 > 2 else UNSURE) for turn in range(200)}

        async def one(turn: int) -> None:
            await asyncio.sleep(turn * 0.001)
            await cascade.ask(prompt=f"{turn}")

        await asyncio.gather(*map(one, range(200)))
        assert rule.value == pytest.approx(0.5, abs=0.05)

    async def test_a_slow_large_tier_does_not_make_the_threshold_swing(self) -> None:
        rule = TargetRate(0.3, start=0.3)
        cascade = Cascade(large=script(LARGE, delay=0.3), threshold=rule)
        cascade.replies = {f"{turn}": script((sure((turn * 0.618) % 1.0),)) for turn in range(400)}
        seen: list[float] = []

        async def one(turn: int) -> None:
            await asyncio.sleep(turn * 0.002)
            await cascade.ask(prompt=f"{turn}")
            seen.append(rule.value)

        await asyncio.gather(*map(one, range(400)))
        assert max(seen) - min(seen) < 0.2

    async def test_an_override_leaves_the_threshold_where_it_was(self) -> None:
        rule = TargetRate(0.3, start=0.5)
        cascade = Cascade(threshold=rule)
        await cascade.ask(mode=Mode.LARGE_ONLY)
        await cascade.ask(mode=Mode.SMALL_ONLY)
        assert rule.value == 0.5

    @pytest.mark.parametrize("on_degrade", OnDegrade)
    async def test_too_little_time_for_the_large_tier_is_no_lesson(self, on_degrade: OnDegrade) -> None:
        rule = TargetRate(0.3, start=0.5)
        cascade = Cascade(threshold=rule, degrade=DegradeRules(large_floor_seconds=20.0))
        await cascade.ask(on_degrade=on_degrade)
        assert rule.value == 0.5

    async def test_the_cost_that_is_settled_is_what_all_attempts_cost(self) -> None:
        rule = Listening()
        cascade = Cascade(small=script(UNSURE), threshold=rule)  # type: ignore[arg-type]
        told = await cascade.ask()
        assert rule.settled == [(told.total_nanos, 7.0)]


def test_a_tally_is_of_what_the_criterion_judged() -> None:
    learner, _ = listening()
    learner.ended(replace(RECORD, decision=Decision(DEFER, Reason.MODE), always_large_nanos=10), reckoned=None)
    for ended in (
        replace(record(DEFER), always_large_nanos=4),
        replace(record(KEEP, degraded=True), always_large_nanos=2),
    ):
        assert ended.decision is not None
        learner.judged(ended.decision, deferrable=True)
        learner.ended(ended, reckoned=7.0)
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

    def test_the_tenant_that_nobody_saw_for_longest_makes_room(self) -> None:
        cascade = Cascade()
        policy = cascade.book.policy("")

        def learner(tenant: str) -> Learner:
            return cascade.book.learner(policy, task="", tenant=tenant)

        first, seen_again = learner("first"), learner("seen again")
        for number in range(MOST_LEARNERS - 1):
            learner("seen again")
            learner(f"tenant-{number}")
        assert learner("seen again") is seen_again
        assert learner("first") is not first


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
