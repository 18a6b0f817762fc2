"""What the demo measures: the same questions answered by each tier alone and under policies, against random deferral.

Every question is asked in every arm, so everything is compared question by question. Random deferral needs no asking:
it sends a share of the requests to the large tier by lot, so its expectation follows from the two single-tier arms, and
it pays only the tier it asks. Intervals are 95 %: Wilson's for an accuracy, the percentile bootstrap over questions for
a difference and for random deferral. A failed request counts as not right; a degraded one as the answer it got.
"""

import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from marginal.evaluation.intervals import Interval, percentiles, wilson

RESAMPLES = 1_000
LEVEL_POINTS = 2.0
"""An interval that stays so close to zero is called level."""

SEED = 2024


@dataclass(frozen=True, slots=True)
class Reply:
    """How one question was answered in one arm; `error` is the reason's name when it was not."""

    correct: bool
    deferred: bool = False
    called_large: bool = False
    degraded: bool = False
    cost_nanos: int = 0
    seconds: float = 0.0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: shares in [0, 1], cost in nano-units per 1,000 requests, seconds to the whole answer."""

    arm: str
    policy: str | None
    requests: int
    accuracy: float
    accuracy_interval: Interval
    deferral_share: float
    cost_nanos_per_1000: int
    mean_seconds: float
    degraded: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """A policy against random deferral at the same share and against the large tier alone.

    Differences are in points of accuracy, over the `requests` that have a genuine answer of both tiers to compare.
    """

    policy: str
    requests: int
    deferral_share: float
    calls_to_large_share: float
    gain_over_random_points: float
    gain_interval: Interval
    gap_to_large_points: float
    gap_interval: Interval
    cost_of_large_only: float | None
    degraded: int = 0
    failed: int = 0

    @property
    def sentence(self) -> str:
        """What was seen, in words."""
        gain, gap = self.gain_over_random_points, self.gap_to_large_points
        random_deferral = _in_words(
            self.gain_interval,
            above=f"beats random deferral at that share by {gain:.1f} points",
            below=f"is {-gain:.1f} points worse than random deferral at that share",
            between=f"is not clearly different from random deferral at that share, {gain:+.1f} points",
        )
        narrow = max(abs(self.gap_interval.low), abs(self.gap_interval.high)) <= LEVEL_POINTS
        same = "level with" if narrow else "not clearly different from"
        large_only = _in_words(
            self.gap_interval,
            above=f"{gap:.1f} points above large-only",
            below=f"{-gap:.1f} points below large-only",
            between=f"{same} large-only, {gap:+.1f} points",
        )
        cost = "" if self.cost_of_large_only is None else f" and {self.cost_of_large_only:.0%} of its cost"
        outage = ""
        if self.degraded:
            outage += f" {self.degraded} of its answers are degraded; random deferral is reckoned as if none would be."
        if self.failed:
            outage += f" {self.failed} of its requests failed; random deferral is reckoned as if none would."
        return (
            f"{self.policy} deferred {self.deferral_share:.1%} and {random_deferral};"
            f" it is {large_only}, with {self.calls_to_large_share:.1%} of its calls{cost}.{outage}"
        )


@dataclass(frozen=True, slots=True)
class Measured:
    """The whole outcome of a demo."""

    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...]

    @property
    def failed(self) -> int:
        """Requests that got no answer."""
        return sum(row.failed for row in self.rows)

    def as_json(self) -> dict[str, object]:
        """The table as plain values."""
        return {
            "rows": [asdict(row) for row in self.rows],
            "comparisons": [asdict(comparison) | {"sentence": comparison.sentence} for comparison in self.comparisons],
        }


def measure(
    small: Sequence[Reply], large: Sequence[Reply], policies: Mapping[str, Sequence[Reply]], *, seed: int = SEED
) -> Measured:
    """Builds the table from the replies to the same questions, at least one, in the same order in every arm."""
    rows = [_measured("small-only", None, small)]
    comparisons = []
    for policy, replies in policies.items():
        rows.append(_measured("marginal", policy, replies))
        trios = [trio for trio in zip(replies, small, large, strict=True) if _comparable(*trio[1:])]
        if trios:
            resampled = _resample(trios, seed=seed)
            rows.append(_random_deferral(policy, trios, resampled))
            comparisons.append(_compare(policy, trios, resampled))
    rows.append(_measured("large-only", None, large))
    return Measured(tuple(rows), tuple(comparisons))


Trio = tuple[Reply, Reply, Reply]
"""The replies to one question: under the policy, by the small tier alone, by the large tier alone."""


@dataclass(frozen=True, slots=True)
class _Shares:
    """Shares of the same questions: right under the policy, by the small and by the large tier, and deferred."""

    policy: float
    small: float
    large: float
    deferred: float

    @property
    def random(self) -> float:
        """Expected accuracy when as many requests are deferred by lot."""
        return self.small + self.deferred * (self.large - self.small)


def _comparable(small: Reply, large: Reply) -> bool:
    """Whether both single-tier arms got their own tier's answer: without it nothing is known of random deferral."""
    return small.error is None and large.error is None and not large.degraded


def _shares(patterns: Mapping[tuple[bool, bool, bool, bool], int]) -> _Shares:
    total = sum(patterns.values())
    return _Shares(*(sum(count for pattern, count in patterns.items() if pattern[part]) / total for part in range(4)))


def _patterns(trios: Sequence[Trio]) -> list[tuple[bool, bool, bool, bool]]:
    return [(policy.correct, small.correct, large.correct, policy.deferred) for policy, small, large in trios]


def _resample(trios: Sequence[Trio], *, seed: int) -> list[_Shares]:
    """The shares in each bootstrap resample of the questions."""
    drawing = random.Random(seed)  # noqa: S311 (statistics, no secret)
    patterns = _patterns(trios)
    return [_shares(Counter(drawing.choices(patterns, k=len(patterns)))) for _ in range(RESAMPLES)]


def _measured(arm: str, policy: str | None, replies: Sequence[Reply]) -> Row:
    total, correct = len(replies), sum(reply.correct for reply in replies)
    answered = [reply for reply in replies if reply.error is None]
    return Row(
        arm,
        policy,
        total,
        correct / total,
        wilson(correct, of=total),
        sum(reply.deferred for reply in replies) / total,
        round(sum(reply.cost_nanos for reply in replies) * 1_000 / total),
        math.fsum(reply.seconds for reply in answered) / len(answered) if answered else 0.0,
        degraded=sum(reply.degraded for reply in replies),
        failed=total - len(answered),
    )


def _random_deferral(policy: str, trios: Sequence[Trio], resampled: Sequence[_Shares]) -> Row:
    """What deferring by lot, as often as the policy did, is expected to give."""
    shares = _shares(Counter(_patterns(trios)))

    def expected(of: Callable[[Reply], float]) -> float:
        small = math.fsum(of(trio[1]) for trio in trios) / len(trios)
        large = math.fsum(of(trio[2]) for trio in trios) / len(trios)
        return small + shares.deferred * (large - small)

    return Row(
        "random deferral",
        policy,
        len(trios),
        shares.random,
        percentiles([resample.random for resample in resampled]),
        shares.deferred,
        round(1_000 * expected(lambda reply: reply.cost_nanos)),
        expected(lambda reply: reply.seconds),
    )


def _compare(policy: str, trios: Sequence[Trio], resampled: Sequence[_Shares]) -> Comparison:
    shares = _shares(Counter(_patterns(trios)))

    def gain(one: _Shares) -> float:
        return 100.0 * (one.policy - one.random)

    def gap(one: _Shares) -> float:
        return 100.0 * (one.policy - one.large)

    large_cost = sum(large.cost_nanos for _, _, large in trios)
    return Comparison(
        policy,
        len(trios),
        shares.deferred,
        sum(reply.called_large for reply, _, _ in trios) / len(trios),
        gain(shares),
        percentiles(list(map(gain, resampled))),
        gap(shares),
        percentiles(list(map(gap, resampled))),
        sum(reply.cost_nanos for reply, _, _ in trios) / large_cost if large_cost else None,
        degraded=sum(reply.degraded for reply, _, _ in trios),
        failed=sum(reply.error is not None for reply, _, _ in trios),
    )


def _in_words(interval: Interval, *, above: str, below: str, between: str) -> str:
    words = above if interval.low > 0 else below if interval.high < 0 else between
    return f"{words} (95% interval {interval.low:+.1f} to {interval.high:+.1f})"
