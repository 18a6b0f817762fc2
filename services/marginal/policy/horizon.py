"""The paper's reserve rules: what to do with what is left of a total budget when the number of requests is known.

A live service has no such horizon and applies the threshold alone. Source: guillemram97/margin_llms,
utils_method.make_cascade.
"""

from enum import Enum

from marginal.policy.scales import UNIT, Scale
from marginal.policy.thresholds import Budget


class Route(Enum):
    """How the next request is to be answered."""

    EXHAUSTED = "exhausted"
    """By nobody: the release scores a random guess, 1 in the number of classes."""
    SMALL_ONLY = "small_only"
    """By the small tier, its score remembered: no more is left than the small tier costs for the rest."""
    LARGE_DIRECTLY = "large_directly"
    """By the large tier, the small one not asked: what is left pays it for all the rest."""
    CASCADE = "cascade"
    """By the small tier, and by the large one when the score is below the threshold and what is left pays it."""


class Horizon:
    """Spends `requests` times `budget` over a stream of that many requests, by the `Budget` rule within the reserves.

    Costs are in the budget's unit. For every request in order: read `route`; for SMALL_ONLY and CASCADE call `score`
    with what the small tier costs and its score, whose answer is whether to defer; `pay` what the large tier costs.
    """

    def __init__(
        self,
        budget: float,
        *,
        small_cost: float,
        large_cost: float,
        requests: int,
        large_is_better: bool = True,
        scale: Scale = UNIT,
    ) -> None:
        """`small_cost` and `large_cost` are the expected ones, which the rules reckon with; `scale` is the score's."""
        self.rule = Budget(budget, small_cost=small_cost, large_cost=large_cost, scale=scale)
        self.remaining = budget * requests
        self._left = requests
        self._small_cost = small_cost
        self._large_cost = large_cost
        self._large_is_better = large_is_better

    @property
    def route(self) -> Route:
        """How the next request is to be answered."""
        if self.remaining < self._small_cost:
            return Route.EXHAUSTED
        if self.remaining - self._left * self._small_cost <= 0:
            return Route.SMALL_ONLY
        if self._large_is_better and self.remaining - self._left * self._large_cost >= 0:
            return Route.LARGE_DIRECTLY
        return Route.CASCADE

    def score(self, score: float, *, cost: float) -> bool:
        """Pays the small tier, remembers the score, and says whether to defer."""
        may_defer, threshold = self.route is Route.CASCADE, self.rule.value
        self.rule.remember(score)
        self.pay(cost)
        return may_defer and score < threshold and self.remaining - self._large_cost >= 0

    def pay(self, cost: float) -> None:
        """Takes a cost from what remains."""
        self.remaining -= cost

    def passed(self) -> None:
        """The request is done."""
        self._left -= 1
