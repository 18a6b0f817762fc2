"""A threshold is of the sampling that it was calibrated at: requests that are sampled otherwise are counted."""

from dataclasses import replace

import pytest

from marginal.policy.thresholds import Fixed
from marginal.routing.overview import Source, overview
from marginal.routing.policies import CalibratedAt
from marginal.routing.requests import Mode
from marginal.tokens import Sampling
from unit.routing.cascade import Cascade, criterion

GREEDY, WARM = CalibratedAt(0.0), CalibratedAt(0.7, 0.9)
"""Requests of a cascade are greedy."""


def calibrated(at: CalibratedAt | None) -> Cascade:
    return Cascade(tasks={"maths": replace(criterion(lambda: Fixed(0.5)), calibrated_at=at)})


async def other_share(cascade: Cascade, *, mode: Mode = Mode.AUTO) -> float:
    for _ in range(4):
        await cascade.ask(task="maths", mode=mode)
    criteria = overview(cascade.book, cascade.shadows, Source("test", 0.0)).policies[0].criteria
    [tenant] = criteria[1].tenants
    return tenant.tally.other_sampling_share


@pytest.mark.parametrize(
    ("at", "sampling", "fits"),
    [
        (GREEDY, Sampling(temperature=0.0), True),
        (GREEDY, Sampling(temperature=0.0, top_p=0.5), True),
        (GREEDY, Sampling(temperature=0.1), False),
        (WARM, Sampling(temperature=0.7, top_p=0.9), True),
        (WARM, Sampling(temperature=0.7), False),
        (WARM, Sampling(temperature=0.0, top_p=0.9), False),
    ],
)
def test_a_sampling_fits_when_it_draws_in_the_same_way(at: CalibratedAt, sampling: Sampling, fits: bool) -> None:
    assert at.fits(sampling) is fits


@pytest.mark.parametrize(("at", "share"), [(WARM, 1.0), (GREEDY, 0.0), (None, 0.0)])
async def test_requests_that_are_sampled_otherwise_are_counted(at: CalibratedAt | None, share: float) -> None:
    assert await other_share(calibrated(at)) == share


@pytest.mark.parametrize(("before", "share"), [(True, 0.0), (False, 1.0), (None, 1.0)])
async def test_log_probabilities_known_to_be_before_sampling_are_the_same_at_any(
    before: bool | None, share: float
) -> None:
    cascade = calibrated(WARM)
    for tier in cascade.tiers.values():
        tier.before_sampling = before
    assert await other_share(cascade) == share


async def test_a_request_whose_tier_was_named_used_no_threshold() -> None:
    assert await other_share(calibrated(WARM), mode=Mode.LARGE_ONLY) == 0.0


async def test_the_record_of_a_request_says_that_it_was_sampled_otherwise() -> None:
    cascade = calibrated(WARM)
    for task, mode in (("maths", Mode.AUTO), ("maths", Mode.SMALL_ONLY), ("", Mode.AUTO)):
        await cascade.ask(task=task, mode=mode)
    assert [record.other_sampling for record in cascade.recorder.records] == [True, False, False]


async def test_the_overview_says_at_what_sampling_a_criterion_was_calibrated() -> None:
    cascade = calibrated(WARM)
    own, maths = overview(cascade.book, cascade.shadows, Source("test", 0.0)).policies[0].criteria
    assert (own.calibrated_at, maths.calibrated_at) == (None, WARM)
