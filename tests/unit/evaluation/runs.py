"""Runs that tests write and read."""

from marginal.evaluation.results import Header, Row, TierResult
from marginal.tokens import Alternative, Sampling, Token, Usage

HEADER = Header("home-small", "home-large", "USD", "exact", "expected", Sampling(), 20, "2026-11-24T18:00:00Z")
TOKENS = (
    Token("5500", -0.1, (Alternative("5500", -0.1), Alternative("five", -2.5))),
    Token(" g"),
)
SMALL = TierResult(True, Usage(16, 6, 4), 1_200, 0.012, 0.004, "5500 g")
LARGE = TierResult(False, Usage(16, 6), 20_000, 0.03)


def row(id_: str = "q1") -> Row:
    """A row with everything that a row can have."""
    return Row(
        id=id_,
        task="arithmetic",
        small=SMALL,
        large=LARGE,
        tokens=TOKENS,
        scores={"min_margin": 0.2, "mean_logprob": -1.5},
        choices=("A", "B"),
        agrees=False,
    )
