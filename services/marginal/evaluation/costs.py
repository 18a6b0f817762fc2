"""What a row costs under a cost model: the small answer kept, the small answer aborted early, the large answer.

* fixed: a small answer costs 1, a large one c. Aborted, the small one costs the share of its tokens that were seen;
  an answer of one token the share that is stated, 1 unless it is.
* time: seconds. Aborted, the small one takes its time to the first token and, of the rest of its time, the share of
  its tokens seen; all of its time when the time to the first token was not measured.
* tokens: nano-units at the run's own prices. Aborted, the small one costs its input and the tokens seen, at the price
  per output token that reproduces every recorded cost exactly; when none does, all of its cost.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from marginal.errors import ConfigurationError
from marginal.evaluation.replay import Floats, Ints
from marginal.evaluation.results import Row, TierResult

LEAST_RATIO = 1.01


class Unit(Enum):
    """What is counted."""

    FIXED = "fixed"
    TIME = "time"
    TOKENS = "tokens"


@dataclass(frozen=True, slots=True)
class CostModel:
    """A unit and, for fixed costs, how many small answers a large one costs."""

    unit: Unit
    ratio: float = 0.0

    @property
    def label(self) -> str:
        """A short name, e.g. `fixed 1:5`."""
        return f"fixed 1:{self.ratio:g}" if self.unit is Unit.FIXED else self.unit.value


@dataclass(frozen=True, slots=True, eq=False)
class Costs:
    """A cost model applied to rows; aborted after `seen` tokens a small answer costs `base` + `per_token` x `seen`."""

    model: CostModel
    small: Floats
    large: Floats
    base: Floats
    per_token: Floats

    @property
    def saves(self) -> bool:
        """Whether aborting at the first token would save anything."""
        return bool(np.any(self.aborted(np.ones(len(self.small), dtype=np.int64)) < self.small))

    def aborted(self, seen: Ints) -> Floats:
        """What the small answer of each row costs when it is aborted after that many tokens."""
        cost: Floats = np.minimum(self.small, self.base + self.per_token * seen)
        return cost

    @property
    def without_abort(self) -> "Costs":
        """The same with every small answer paid for in full."""
        return Costs(self.model, self.small, self.large, self.small, np.zeros_like(self.small))


def cost_models(rows: Sequence[Row], ratios: Sequence[float]) -> list[CostModel]:
    """The models that say something about these rows: tokens and time when recorded and the large tier costs more.

    Raises ConfigurationError for a ratio that is not above 1.
    """
    for ratio in ratios:
        if not LEAST_RATIO <= ratio < float("inf"):
            raise ConfigurationError(f"--cost-ratio: {ratio:g} is not above 1, the large tier must cost more")
    fixed = [CostModel(Unit.FIXED, ratio) for ratio in dict.fromkeys(ratios)]
    measured = [CostModel(unit) for unit in (Unit.TOKENS, Unit.TIME) if _tells(rows, unit)]
    return [*measured, *fixed]


def price(rows: Sequence[Row], model: CostModel, *, aborted_share: float = 1.0) -> Costs:
    """Prices every row; `aborted_share` in [0, 1] is for fixed costs and small answers of one token."""
    tokens = np.array([max(1, row.small.usage.output_tokens, len(row.tokens)) for row in rows], dtype=np.float64)
    zeros = np.zeros(len(rows))
    if model.unit is Unit.FIXED:
        many = tokens > 1
        small, large = np.ones(len(rows)), np.full(len(rows), model.ratio)
        return Costs(model, small, large, np.where(many, 0.0, aborted_share), np.where(many, 1.0 / tokens, 0.0))
    small, large = (_column([getattr(row, tier) for row in rows], model.unit) for tier in ("small", "large"))
    if model.unit is Unit.TIME:
        first = np.array([np.nan if (at := row.small.first_token_seconds) is None else at for row in rows])
        first = np.where(np.isnan(first), small, np.minimum(first, small))
        return Costs(model, small, large, first, (small - first) / tokens)
    each = output_price([row.small for row in rows])
    if each is None:
        return Costs(model, small, large, small, zeros)
    return Costs(model, small, large, small - each * tokens, zeros + each)


def output_price(results: Sequence[TierResult]) -> float | None:
    """The price of one output token that, with prices of input, cached input and the call, explains every cost.

    None when the costs leave it open (every answer as long as the next) or no such prices reproduce them.
    """
    usages = [result.usage for result in results]
    cost = np.array([result.cost_nanos for result in results], dtype=np.float64)
    out = np.array([usage.output_tokens for usage in usages], dtype=np.float64)
    others = np.array([(1, usage.input_tokens, usage.cached_input_tokens) for usage in usages], dtype=np.float64)
    rest = out - others @ np.linalg.lstsq(others, out, rcond=None)[0]
    if float(rest @ rest) < 1e-6 * max(1.0, float(out @ out)):
        return None
    each = float(np.round(rest @ cost / (rest @ rest)))
    left = cost - each * out
    unexplained = left - others @ np.linalg.lstsq(others, left, rcond=None)[0]
    return each if each >= 0.0 and bool(np.all(np.abs(unexplained) < 0.5)) else None


def _tells(rows: Sequence[Row], unit: Unit) -> bool:
    small, large = (_column([getattr(row, tier) for row in rows], unit).mean() for tier in ("small", "large"))
    return bool(0.0 < small * LEAST_RATIO < large)


def _column(results: Sequence[TierResult], unit: Unit) -> Floats:
    return np.array(
        [result.seconds if unit is Unit.TIME else result.cost_nanos for result in results], dtype=np.float64
    )
