"""How threshold rules hold a budget when the traffic changes: the same requests in constructed orders.

`budget` is the paper's rule over the whole history, with its reserve rules; `target_rate` and `spend_rate` are the
controllers, which start knowing nothing; `fixed` has the threshold that defers the wanted share of rows held out. None
looks ahead. Every rule is compared with `budget` given exactly what the rule spent, so at equal spend.

Orders that are not shuffled are sorted by the score plus normal noise: constructed drift, no recorded one.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from marginal.errors import ConfigurationError
from marginal.evaluation.costs import CostModel, Costs, Unit, cost_models, price
from marginal.evaluation.replay import Floats, Ints, ScoreChoice, answers, replay
from marginal.evaluation.results import Run
from marginal.policy.deferral import Decision, Reason, Verdict
from marginal.policy.horizon import Horizon, Route
from marginal.policy.thresholds import Fixed, Lesson, SpendRate, TargetRate, Threshold

SHUFFLED, EASY_TO_HARD, HARD_TO_EASY = "shuffled", "easy to hard", "hard to easy"
ORDERS = (SHUFFLED, EASY_TO_HARD, HARD_TO_EASY)
RULES = ("budget", "target_rate", "spend_rate", "fixed")

HELD_OUT = 1000
"""Rows that calibrate, as in the paper's release; at most a fifth of those there are."""

SETTLING = 500
"""Requests after which shares are counted; at most half of the stream."""

NANOS = 1_000_000_000
"""What the rules count as one small answer, to have whole numbers."""

_KEPT, _DEFERRED = (Decision(verdict, Reason.SCORE) for verdict in (Verdict.KEEP, Verdict.DEFER))


@dataclass(frozen=True, slots=True)
class Plan:
    """What to compare: budgets per request in mean small answers, `seeds` draws of every order, `noise` on places."""

    choice: ScoreChoice
    budgets: tuple[float, ...]
    seeds: int
    noise: float
    step: float
    cost_ratio: float | None


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule did in one order at one budget, in the mean over the seeds.

    `spend` is relative to the budget; `share` of requests deferred after the first SETTLING, `target` what it aims at,
    `share_error` the furthest of any seed; `gain` in accuracy over `budget` at the spend of this rule, `least_gain` the
    least of any seed.
    """

    order: str
    budget: float
    rule: str
    accuracy: float
    spend: float
    share: float
    target: float
    share_error: float
    gain: float
    least_gain: float


@dataclass(frozen=True, slots=True)
class Drift:
    """All findings; `requests` of them are a stream, `held_out` calibrate, `left_out` have no score or label."""

    findings: tuple[Finding, ...]
    requests: int
    held_out: int
    left_out: int
    cost_model: CostModel
    large_ratio: float


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """Requests in their order: places of their scores, who is right, and costs in mean small answers.

    `kept` and `deferred` are what a request costs that the small tier was asked, `large` one that it was not; `guess`
    is what an answer by nobody scores.
    """

    places: Floats
    small_right: Floats
    large_right: Floats
    guess: Floats
    kept: Floats
    deferred: Floats
    large: Floats

    def take(self, which: Ints) -> "Stream":
        """These requests in this order."""
        return Stream(*(getattr(self, name)[which] for name in Stream.__slots__))


@dataclass(frozen=True, slots=True)
class Passage:
    """What a rule did on one stream: accuracy, spend per request, and the share deferred once it has settled."""

    accuracy: float
    spend: float
    share: float


def drift(run: Run, plan: Plan, *, tell: Callable[[str], None] = lambda _: None) -> Drift:
    """Runs every rule in every order at every budget; `tell` is called `passages(plan)` times, with what is passed.

    Raises ConfigurationError for too few rows, costs that are not known, and a budget that buys nothing or everything.
    """
    stream, left_out, costs = _stream(run, plan)
    ratio = float(stream.large.mean() / stream.kept.mean())
    for budget in plan.budgets:
        if not 1.0 < budget < 1.0 + ratio:
            raise ConfigurationError(
                f"--budget {budget:g}: must be above 1, a small answer, and below {1.0 + ratio:.3g}, both"
            )
    held_out = min(HELD_OUT, len(stream.places) // 5)
    findings = []
    for order in ORDERS:
        drawn = [_drawn(stream, order, held_out, plan.noise, seed) for seed in range(plan.seeds)]
        for budget in plan.budgets:
            target = min(1.0, (budget - 1.0) / ratio)
            for rule in RULES:
                passed = []
                for calibration, ordered in drawn:
                    passage = _run(rule, ordered, budget, target, plan.step, calibration)
                    same = passage if rule == "budget" else pass_budget(ordered, passage.spend)
                    passed.append((passage, passage.accuracy - same.accuracy))
                    tell(f"{order}, {rule}")
                findings.append(_finding(order, budget, rule, target, passed))
    return Drift(tuple(findings), len(stream.places) - held_out, held_out, left_out, costs.model, ratio)


def passages(plan: Plan) -> int:
    """How many streams are run through."""
    return len(ORDERS) * len(plan.budgets) * len(RULES) * plan.seeds


def pass_budget(stream: Stream, budget: float) -> Passage:
    """The paper's rule with its reserve rules over a stream; `budget` per request, in mean small answers."""
    requests = len(stream.places)
    horizon = Horizon(
        budget,
        small_cost=float(stream.kept.mean()),
        large_cost=float(stream.large.mean()),
        requests=requests,
        large_is_better=bool(stream.large_right.mean() > stream.small_right.mean()),
    )
    right, spent, deferrals = 0.0, 0.0, []
    for place, small, large, guess, kept, deferred, directly in _requests(stream):
        route = horizon.route
        if route is Route.EXHAUSTED:
            right, cost, by_large = right + guess, 0.0, False
        elif route is Route.LARGE_DIRECTLY:
            right, cost, by_large = right + large, directly, True
            horizon.pay(cost)
        else:
            by_large = horizon.score(place, cost=kept)
            right, cost = right + (large if by_large else small), deferred if by_large else kept
            horizon.pay(cost - kept)
        spent += cost
        deferrals.append(by_large)
        horizon.passed()
    return Passage(right / requests, spent / requests, _settled(deferrals))


def pass_rule(stream: Stream, rule: Threshold) -> Passage:
    """A threshold rule over a stream; it learns from every request as it ends, its costs in nano-small-answers."""
    right, spent, deferrals = 0.0, 0.0, []
    for place, small, large, _, kept, deferred, _ in _requests(stream):
        by_large = place < rule.value
        cost = deferred if by_large else kept
        rule.learn(Lesson(_DEFERRED if by_large else _KEPT, round(cost * NANOS)))
        right += large if by_large else small
        spent += cost
        deferrals.append(by_large)
    return Passage(right / len(deferrals), spent / len(deferrals), _settled(deferrals))


def _run(rule: str, stream: Stream, budget: float, target: float, step: float, calibration: Stream) -> Passage:
    if rule == "budget":
        return pass_budget(stream, budget)
    if rule == "target_rate":
        return pass_rule(stream, TargetRate(target, step=step))
    if rule == "spend_rate":
        kept, deferred = (float(costs.mean()) * NANOS for costs in (calibration.kept, calibration.deferred))
        return pass_rule(stream, SpendRate(budget * NANOS, kept_nanos=kept, deferred_nanos=deferred, step=step))
    return pass_rule(stream, Fixed(float(np.quantile(calibration.places, target))))


def _stream(run: Run, plan: Plan) -> tuple[Stream, int, Costs]:
    """Every row that has a score and both labels, as it was recorded."""
    known = answers(run)
    models = cost_models(known.rows, [] if plan.cost_ratio is None else [plan.cost_ratio])
    wanted = Unit.TOKENS if plan.cost_ratio is None else Unit.FIXED
    model = next((model for model in models if model.unit is wanted), None)
    if model is None:
        raise ConfigurationError(f"{run.name}: has no costs of which the large tier's are higher: give --cost-ratio")
    costs, replayed = price(known.rows, model), replay(known.rows, plan.choice)
    scored = np.flatnonzero(replayed.scored)
    if len(scored) < 100:
        raise ConfigurationError(f"{run.name}: {len(scored)} rows with {plan.choice.label} are too few, 100 are needed")
    unit = costs.small.mean()
    stream = Stream(
        places=replayed.places,
        small_right=known.small,
        large_right=known.large,
        guess=known.guess,
        kept=costs.small / unit,
        deferred=(costs.aborted(replayed.seen) + costs.large) / unit,
        large=costs.large / unit,
    )
    return stream.take(scored), known.left_out + len(known.rows) - len(scored), costs


def _drawn(stream: Stream, order: str, held_out: int, noise: float, seed: int) -> tuple[Stream, Stream]:
    """Rows that calibrate and a stream of the others in an order."""
    draw = np.random.default_rng(seed)
    shuffled = draw.permutation(len(stream.places))
    calibration, rest = stream.take(shuffled[:held_out]), stream.take(shuffled[held_out:])
    if order == SHUFFLED:
        return calibration, rest
    hard_first = np.argsort(rest.places + draw.normal(0.0, noise, len(rest.places)), kind="stable")
    return calibration, rest.take(hard_first if order == HARD_TO_EASY else hard_first[::-1])


def _requests(stream: Stream) -> Iterator[tuple[float, ...]]:
    return zip(*(getattr(stream, name).tolist() for name in Stream.__slots__), strict=True)


def _settled(deferrals: Sequence[bool]) -> float:
    late = deferrals[min(SETTLING, len(deferrals) // 2) :]
    return sum(late) / len(late)


def _finding(order: str, budget: float, rule: str, target: float, passed: Sequence[tuple[Passage, float]]) -> Finding:
    runs, gains = [passage for passage, _ in passed], [gain for _, gain in passed]
    count = len(runs)
    return Finding(
        order=order,
        budget=budget,
        rule=rule,
        accuracy=math.fsum(one.accuracy for one in runs) / count,
        spend=math.fsum(one.spend for one in runs) / count / budget,
        share=math.fsum(one.share for one in runs) / count,
        target=target,
        share_error=max(abs(one.share - target) for one in runs),
        gain=math.fsum(gains) / count,
        least_gain=min(gains),
    )
