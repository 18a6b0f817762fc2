"""Runs made up for the tests of the evaluation: how sure the small model is has to do with how often it is right."""

import random

from evidence import sure
from marginal.evaluation.results import Header, Row, Run, TierResult
from marginal.tokens import Sampling, Token, Usage

INPUT_NANOS, OUTPUT_NANOS = 50, 200
LARGE_TIMES = 10


def header(*, small: str = "small", large: str = "large", labels: str = "expected") -> Header:
    return Header(small, large, "USD", "exact", labels, Sampling(), 20, "2026-11-24T18:00:00Z")


def made_row(number: int, *margins: float, small: bool, large: bool, priced: bool = True) -> Row:
    """A row whose small answer has a token per margin; its time is 10 ms and 2 ms a token, after 4 ms the first."""
    tokens: tuple[Token, ...] = tuple(map(sure, margins))
    used = Usage(10 + number % 7, max(1, len(margins)))
    nanos = used.input_tokens * INPUT_NANOS + used.output_tokens * OUTPUT_NANOS
    seconds = 0.010 + 0.002 * used.output_tokens
    return Row(
        id=str(number),
        task="made up",
        small=TierResult(small, used, nanos * priced, seconds * priced, 0.004 if priced else None),
        large=TierResult(large, used, LARGE_TIMES * nanos * priced, 3 * seconds * priced),
        tokens=tokens,
    )


def made_run(
    rows: int = 400,
    *,
    tokens: int = 1,
    seed: int = 7,
    informative: bool = True,
    priced: bool = True,
    name: str = "made",
) -> Run:
    """A run in which the small model is right with its least margin for a probability, or else at even odds."""
    drawing = random.Random(seed)  # noqa: S311 (no secret)
    made = []
    for number in range(rows):
        margins = [drawing.random() ** 0.5 for _ in range(tokens + (number % 3 if tokens > 1 else 0))]
        chance = min(margins) if informative else 0.5
        made.append(
            made_row(number, *margins, small=drawing.random() < chance, large=drawing.random() < 0.9, priced=priced)
        )
    return Run(header(), tuple(made), name)
