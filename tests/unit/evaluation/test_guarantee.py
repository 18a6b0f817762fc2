import itertools
import math
import random

import numpy as np
import pytest

from marginal.evaluation.guarantee import PLACES, certify, p_value, upper_limit
from marginal.policy.scales import LINEAR, LOGIT, LOGPROB, UNIT, Scale


def chance(worse: int, better: int, of: int, up: float, down: float) -> float:
    """The probability of exactly these losses among `of`."""
    neither = of - worse - better
    ways = math.comb(of, worse) * math.comb(of - worse, better)
    return float(ways * up**worse * down**better * (1.0 - up - down) ** neither)


def outcomes(of: int) -> list[tuple[int, int]]:
    return [(worse, better) for worse in range(of + 1) for better in range(of + 1 - worse)]


@pytest.mark.parametrize("epsilon", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("of", [1, 7, 25])
def test_the_p_value_is_small_as_seldom_as_it_says_whatever_the_truth(of: int, epsilon: float) -> None:
    """By enumerating every outcome under many true probabilities that lose epsilon or more."""
    values = {outcome: p_value(*outcome, of=of, epsilon=epsilon, beta=0.005) for outcome in outcomes(of)}
    for down, more in itertools.product(np.linspace(0.0, (1.0 - epsilon) / 2.0, 12), (0.0, 0.01, 0.1)):
        up = down + epsilon + more
        if up + down > 1.0:
            continue
        for level in (0.01, 0.05, 0.1, 0.2, 0.5):
            small = math.fsum(chance(*outcome, of, up, down) for outcome in values if values[outcome] <= level)
            assert small <= level + 1e-9


@pytest.mark.parametrize("better", [0, 3, 10])
def test_the_p_value_is_the_greatest_over_the_nuisance(better: int) -> None:
    of, epsilon, beta = 40, 0.3, 0.01
    for worse in range(10 + better):
        limit, total = upper_limit(better, of=of, beta=beta), worse - better
        if limit > (1.0 - epsilon) ** 2 / 4.0:
            continue
        greatest = max(
            math.fsum(
                chance(*outcome, of, down + epsilon, down)
                for outcome in outcomes(of)
                if outcome[0] - outcome[1] <= total
            )
            for down in np.linspace(0.0, limit, 21)
        )
        assert p_value(worse, better, of=of, epsilon=epsilon, beta=beta) >= min(1.0, beta + greatest) - 1e-12


def test_the_upper_limit_is_clopper_and_pearsons() -> None:
    assert upper_limit(0, of=10, beta=0.05) == pytest.approx(1.0 - 0.05 ** (1 / 10))
    assert upper_limit(3, of=10, beta=0.05) == pytest.approx(0.6066, abs=1e-4)
    assert upper_limit(10, of=10, beta=0.05) == 1.0


def drawn(number: int, seed: int) -> tuple[list[float], list[bool], list[bool]]:
    """Scores spread evenly; the small model is right as often as it is sure, the large one in 8 of 10."""
    draw = random.Random(seed)  # noqa: S311 (a repeatable stream)
    scores = [draw.random() for _ in range(number)]
    return scores, [draw.random() < score for score in scores], [draw.random() < 0.8 for _ in scores]


def risk(threshold: float) -> float:
    """What keeping from a threshold on loses in truth: the integral of 0.8 - score."""
    return 0.8 * (1.0 - threshold) - (1.0 - threshold**2) / 2.0


def test_the_promise_is_broken_at_most_as_often_as_it_says() -> None:
    epsilon, delta = 0.05, 0.1
    broken, kept = [], []
    for seed in range(60):
        certificate = certify(*drawn(800, seed), epsilon=epsilon, delta=delta)
        broken.append(certificate.threshold is not None and risk(certificate.threshold) > epsilon)
        kept.append(certificate.kept)
    assert sum(broken) <= delta * len(broken)
    assert np.mean(kept) > 0.45  # 57 % could be kept, were the truth known


def test_too_few_labels_promise_nothing_and_say_how_many_it_takes() -> None:
    scores, small, large = drawn(30, 1)
    certificate = certify(scores, small, large, epsilon=0.05)
    assert certificate.threshold is None
    assert certificate.kept == 0.0
    assert certificate.needed is not None
    assert certificate.sentence.startswith("at most 0.05 less accurate than always-large, with probability 0.9, cannot")
    assert f"from 30 labels: it takes about {certificate.needed} like these" in certificate.sentence
    times = math.ceil(certificate.needed / 30)
    assert certify(scores * times, small * times, large * times, epsilon=0.05).threshold is not None
    fewer = times // 2
    assert certify(scores * fewer, small * fewer, large * fewer, epsilon=0.05).threshold is None


def test_a_score_that_is_wrong_where_it_is_surest_is_never_enough() -> None:
    certificate = certify([1.0] * 50, [False] * 50, [True] * 50, epsilon=0.05)
    assert certificate.threshold is None
    assert certificate.needed is None
    assert "cannot be promised by this score" in certificate.sentence


def test_answers_given_up_are_deferred() -> None:
    scores, small, large = drawn(2000, 3)
    known: list[bool | None] = [None if score < 0.7 else right for score, right in zip(scores, small, strict=True)]
    certificate = certify(scores, known, large, epsilon=0.4)
    assert certificate.threshold is not None
    assert certificate.threshold == pytest.approx(0.7, abs=0.011)
    assert certify(scores, small, large, epsilon=0.4).threshold == 0.0
    assert "certified on 2000 labels" in certificate.sentence


@pytest.mark.parametrize("scale", [UNIT, LOGIT, LOGPROB, LINEAR])
def test_every_scale_is_tested_from_its_sure_end_to_its_other(scale: Scale) -> None:
    assert all(one > other for one, other in itertools.pairwise(PLACES))
    sure = [scale.at(0.999999)] * 400
    certificate = certify(sure, [True] * 400, [True] * 400, epsilon=0.05, scale=scale)
    assert certificate.threshold == scale.keep_all


@pytest.mark.parametrize("wrong", [{"epsilon": 0.0}, {"epsilon": 0.1, "delta": 1.0}])
def test_an_impossible_promise_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="epsilon and delta must be inside"):
        certify([0.5], [True], [True], **wrong)  # type: ignore[arg-type]


def test_labels_must_be_there_for_every_score() -> None:
    for labels in ([True, False], []):
        with pytest.raises(ValueError, match="with a score and both labels for each"):
            certify([0.5] * len(labels[:1]), labels, labels, epsilon=0.05)
