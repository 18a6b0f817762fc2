"""Decisions, amounts and margins as people read them."""

import json
from collections.abc import Iterable, Mapping, Sequence

from rich.color import Color
from rich.console import RenderableType
from rich.style import Style
from rich.table import Table

from marginal.policy.deferral import Decision, Reason, Verdict
from marginal.policy.evidence import Gap
from marginal.pricing import NANOS_PER_UNIT
from marginal.routing.records import DegradedReason

SYMBOLS: Mapping[str, str] = {"USD": "$", "EUR": "€", "GBP": "£"}
MOST_DECIMALS = 9
LEAST_DECIMALS = 2

DEGRADED: Mapping[DegradedReason, str] = {
    DegradedReason.LARGE_UNAVAILABLE: "the large tier was not to be had",
    DegradedReason.DEADLINE: "too little of the deadline was left for the large tier",
}

GAPS: Mapping[Gap | None, str] = {
    Gap.MISSING: "a token came without log-probabilities",
    Gap.TRUNCATED: "a token came with too few alternatives",
    Gap.NOT_FINITE: "a log-probability was not finite",
    Gap.OUTSIDE_CHOICES: "the answer begins none of the choices",
    Gap.NO_CONTENT: "no token in the window has a letter or a digit",
    Gap.NO_TOKENS: "the answer is empty",
}

BOUNDED = "; one of the choices was not listed and counted with the most it can have"


def amounts(nanos: Sequence[float], currency: str, *, significant: int | None = None) -> list[str]:
    """Amounts of one column with the same number of decimals.

    Exact by default; with `significant` the smallest amount that is not 0 keeps that many digits.
    """
    decimals = max((_decimals(one, significant) for one in nanos), default=LEAST_DECIMALS)
    symbol = SYMBOLS.get(currency, f"{currency} " if currency else "")
    return [f"{'-' if one < 0 else ''}{symbol}{abs(one) / NANOS_PER_UNIT:.{decimals}f}" for one in nanos]


def why(decision: Decision) -> str:
    """What the decision rests on, e.g. `min_margin 0.982 ≥ threshold 0.830: kept at token 4`."""
    verdict = "kept" if decision.verdict is Verdict.KEEP else "deferred"
    if decision.reason is Reason.MODE:
        return f"the mode named the {'small' if decision.verdict is Verdict.KEEP else 'large'} tier"
    if decision.reason is Reason.SMALL_UNAVAILABLE:
        return "the small tier was not to be had"
    if decision.score is None or decision.threshold is None:
        return f"no score, {GAPS.get(decision.gap, 'evidence was missing')}: {verdict}"
    kept = decision.verdict is Verdict.KEEP
    score, bound = _three(decision.score, decision.threshold), ("≥ " if kept else "≤ ") if decision.censored else ""
    tokens = "token" if decision.tokens_seen == 1 else "tokens"
    return (
        f"{decision.score_name} {bound}{score[0]} {'≥' if kept else '<'} threshold {score[1]}:"
        f" {verdict} after {decision.tokens_seen} {tokens}{BOUNDED if decision.bounded else ''}"
    )


def margin_style(margin: float | None) -> Style:
    """From red (margin 0, unsure) over yellow to green (margin 1, sure); dim without a margin."""
    if margin is None:
        return Style(dim=True)
    sure = min(1.0, max(0.0, margin))
    return Style(color=Color.from_rgb(220 * min(1.0, 2 - 2 * sure), 200 * min(1.0, 2 * sure), 40))


def bulleted(lines: Iterable[RenderableType]) -> Table:
    """Lines with a dot before each, their continuations indented."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    for line in lines:
        grid.add_row("·", line)
    return grid


def printable(text: str) -> str:
    """A model's text without control characters: on a terminal they would be commands."""
    return "".join(one if one.isprintable() or one in "\n\t" else "\N{REPLACEMENT CHARACTER}" for one in text)


def as_json(value: object) -> str:
    """One object on one line."""
    return json.dumps(value, ensure_ascii=False)


def _decimals(nanos: float, significant: int | None) -> int:
    """Decimals this amount needs."""
    if significant is None:
        digits = f"{abs(round(nanos)) % NANOS_PER_UNIT:0{MOST_DECIMALS}d}".rstrip("0")
        return max(LEAST_DECIMALS, len(digits))
    if not nanos:
        return LEAST_DECIMALS
    exponent = int(f"{abs(nanos) / NANOS_PER_UNIT:e}".partition("e")[2])
    return min(MOST_DECIMALS, max(LEAST_DECIMALS, significant - 1 - exponent))


def _three(score: float, threshold: float) -> tuple[str, str]:
    """Both with three decimals, or with as many as it takes to tell them apart."""
    for decimals in range(3, 12):
        texts = f"{score:.{decimals}f}", f"{threshold:.{decimals}f}"
        if texts[0] != texts[1] or score == threshold:
            return texts
    return texts
