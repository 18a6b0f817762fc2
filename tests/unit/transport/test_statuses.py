import grpc
import pytest

from marginal.errors import InvalidRequest, KeyReused, MarginalError, ModelFault, RateLimited, Refused, Repeated
from marginal.transport.statuses import INTERNAL, OUTSIDE


def kinds(root: type[MarginalError]) -> set[type[MarginalError]]:
    """Every error that can cross the wire; programs may have ones of their own."""
    below = (kind for kind in root.__subclasses__() if kind.__module__ == root.__module__)
    return {root}.union(*map(kinds, below))


ABSTRACT = {MarginalError, ModelFault, Refused, Repeated}


def test_every_error_of_ours_has_a_deliberate_status() -> None:
    assert kinds(MarginalError) - ABSTRACT == set(OUTSIDE)


def test_every_reason_is_told_apart() -> None:
    reasons = [outside.reason for outside in OUTSIDE.values()] + [INTERNAL.reason]
    assert len(reasons) == len(set(reasons))


def test_only_the_callers_mistakes_blame_the_caller() -> None:
    blaming = {kind for kind, outside in OUTSIDE.items() if outside.code is grpc.StatusCode.INVALID_ARGUMENT}
    assert blaming == {InvalidRequest, KeyReused}


@pytest.mark.parametrize("kind", sorted(OUTSIDE, key=lambda kind: kind.__name__))
def test_a_hint_to_retry_comes_only_where_time_mends_it(kind: type[MarginalError]) -> None:
    outside, mended = OUTSIDE[kind], {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED}
    assert outside.retry_seconds is None or outside.code in mended or kind is RateLimited
