"""What a sweep is asked for and what it finds: values only."""

from collections.abc import Mapping
from dataclasses import dataclass

from marginal.evaluation.costs import CostModel
from marginal.evaluation.intervals import Interval
from marginal.evaluation.replay import ScoreChoice
from marginal.evaluation.resampling import RESAMPLES
from marginal.evaluation.results import Header
from marginal.evaluation.views import View

HELD_OUT = 1_000
LEAST_TO_HOLD_OUT = 3_000
"""Rows from which on the first 1,000 are held out."""

LEAST_ROWS = 40

QUALITIES = (0.95, 0.98, 0.99, 1.0)
"""Shares of the large tier's accuracy for which the least cost is told."""

BUDGET, TARGET_RATE, SPEND_RATE, FIXED = "budget", "target_rate", "spend_rate", "fixed"
RULES: Mapping[str, str] = {
    BUDGET: "the paper's rule: the quantile of all scores so far, within its reserves",
    TARGET_RATE: "which holds the share deferred",
    SPEND_RATE: "which holds the mean cost",
    FIXED: "one threshold for all rows",
}


@dataclass(frozen=True, slots=True)
class Protocol:
    """What to sweep; `holdout` None holds out 1,000 rows where there are 3,000, `aborted_share` is for fixed costs."""

    scores: tuple[ScoreChoice, ...]
    rules: tuple[str, ...] = tuple(RULES)
    ratios: tuple[float, ...] = (5.0,)
    budgets: int = 100
    orders: int = 3
    holdout: int | None = None
    aborted_share: float | None = None
    resamples: int = RESAMPLES


@dataclass(frozen=True, slots=True)
class Saving:
    """The least cost, relative to always-large, at which `quality` times the large tier's accuracy is reached."""

    quality: float
    cost: float
    interval: Interval
    random: float


@dataclass(frozen=True, slots=True)
class Cell:
    """One score under one rule: accuracy at every budget with its 95 % band, its AUC, its gain over the random line."""

    score: str
    rule: str
    accuracy: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    auc: float
    auc_interval: Interval
    gain: float
    gain_interval: Interval
    savings: tuple[Saving, ...]


@dataclass(frozen=True, slots=True)
class Setting:
    """One cost model with or without early abort: what the tiers cost on average, the budgets, the lines, the cells."""

    model: CostModel
    early_abort: bool
    small_cost: float
    large_cost: float
    budgets: tuple[float, ...]
    random_auc: float
    random_interval: Interval
    oracle: tuple[float, ...]
    oracle_auc: float
    cells: tuple[Cell, ...]

    def cell(self, score: str, rule: str) -> Cell:
        """The cell of a score and a rule that were swept."""
        return next(cell for cell in self.cells if (cell.score, cell.rule) == (score, rule))


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything measured on one run; `chosen` is the score that was best on the held-out rows, if there are any.

    `alike` has for every score swept the others that say the same of every row. `gap_interval` is the large tier's
    accuracy minus the small one's.
    """

    name: str
    header: Header
    protocol: Protocol
    rows: int
    held_out: int
    left_out: int
    small_accuracy: float
    large_accuracy: float
    gap_interval: Interval
    agreement_oracle: float
    chosen: str | None
    alike: Mapping[str, tuple[str, ...]]
    views: tuple[View, ...]
    settings: tuple[Setting, ...]
