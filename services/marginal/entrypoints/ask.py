"""`marginal ask`: one question, its answer as it comes, and how it was answered."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from marginal.entrypoints import reaching
from marginal.entrypoints.wording import DEGRADED, amounts, as_json, margin_style, printable, why
from marginal.routing.records import Attempt
from marginal.routing.requests import Mode, OnDegrade
from marginal.tokens import FinishReason, Tier
from marginal.transport.router_client import Answer, Piece, RouterClient

MODEL_WIDTH = 20
"""A model named by its file must not squeeze the figures."""


@dataclass(frozen=True, slots=True)
class Asking:
    """A question with everything the caller may say about it."""

    prompt: str
    choices: tuple[str, ...]
    policy: str
    task: str
    mode: Mode
    on_degrade: OnDegrade
    max_tokens: int | None
    timeout_seconds: float


async def ask(target: str, asking: Asking, *, console: Console, json: bool) -> None:
    """Asks the router at `target` and writes the answer. Raises MarginalError."""
    text: list[str] = []
    colours = console.is_terminal and not json
    how = reaching.current()
    try:
        async with (
            RouterClient(target, api_key=how.api_key, tls=how.tls) as client,
            aclosing(_events(client, asking, margins=colours)) as events,
        ):
            async for event in events:
                if isinstance(event, Answer):
                    answer = event
                    continue
                text.append(event.text)
                if not json:
                    console.print(_coloured(event), end="", soft_wrap=True)
                    console.file.flush()
    finally:
        if text and not json:
            console.print()
    if json:
        console.out(as_json(answer_as_json("".join(text), answer)), highlight=False)
        return
    console.print()
    console.print(summary(answer))
    console.print()
    console.print(attempts_table(answer))


def _events(client: RouterClient, asking: Asking, *, margins: bool) -> AsyncGenerator[Piece | Answer, None]:
    return client.ask(
        asking.prompt,
        choices=asking.choices,
        policy=asking.policy,
        task=asking.task,
        mode=asking.mode,
        on_degrade=asking.on_degrade,
        max_tokens=asking.max_tokens,
        margins=margins,
        timeout_seconds=asking.timeout_seconds,
    )


def answer_as_json(text: str, answer: Answer) -> dict[str, object]:
    """The whole answer as plain values."""
    saved = answer.always_large_nanos - answer.total_nanos
    decision = asdict(answer.decision) | {
        "verdict": answer.decision.verdict.value,
        "reason": answer.decision.reason.value,
        "gap": answer.decision.gap.value if answer.decision.gap else None,
        "policy": answer.policy,
        "policy_version": answer.policy_version,
    }
    return {
        "request_id": answer.request_id,
        "text": text,
        "tier": answer.tier.value,
        "finish": answer.finish.value,
        "decision": decision,
        "degraded": answer.degraded.value if answer.degraded else None,
        "attempts": [_attempt_as_json(attempt) for attempt in answer.attempts],
        "currency": answer.currency,
        "total_nanos": answer.total_nanos,
        "always_large_nanos": answer.always_large_nanos,
        "saved_nanos": saved,
        "saved_share": saved / answer.always_large_nanos if answer.always_large_nanos else None,
        "trace_id": answer.trace_id or None,
    }


def summary(answer: Answer) -> Table:
    """Which tier answered, why, what that saved, and where to look further."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("tier", _tier(answer))
    grid.add_row("why", why(answer.decision))
    if answer.degraded:
        grid.add_row("degraded", Text(f"{DEGRADED[answer.degraded]}: this is the small answer", "yellow"))
    grid.add_row("policy", f"{answer.policy} ({answer.policy_version})" if answer.policy_version else answer.policy)
    grid.add_row(*_saved(answer))
    grid.add_row("trace", answer.trace_id or "off")
    return grid


def attempts_table(answer: Answer) -> Table:
    """Every attempt with its tokens and its cost, the total, and what always-large would have cost."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    for heading in ("attempt", "model", "outcome"):
        table.add_column(heading, no_wrap=True, max_width=MODEL_WIDTH)
    for heading in ("tokens in", "out", "cost", "ms"):
        table.add_column(heading, justify="right", no_wrap=True)
    costs = [*(attempt.cost_nanos for attempt in answer.attempts), answer.total_nanos, answer.always_large_nanos]
    *each, total, always_large = amounts(costs, answer.currency)
    for attempt, cost in zip(answer.attempts, each, strict=True):
        table.add_row(*_attempt_cells(attempt, cost))
    table.add_row("total", "", "", "", "", total, "", style="bold")
    table.add_row("always-large", "", "", "", "", always_large, "", style="dim")
    return table


def _saved(answer: Answer) -> tuple[str, str]:
    """What the answer cost less, or more, than the large tier alone would have."""
    saved = answer.always_large_nanos - answer.total_nanos
    if not saved:
        return "saved", "nothing against always-large"
    [amount] = amounts([abs(saved)], answer.currency)
    share = f", {abs(saved) / answer.always_large_nanos:.0%}" if answer.always_large_nanos else ""
    return (
        ("saved", f"{amount}{share} less than always-large")
        if saved >= 0
        else ("extra", f"{amount}{share} more than always-large")
    )


def _tier(answer: Answer) -> str:
    [*_, model] = [attempt.model for attempt in answer.attempts if attempt.tier is answer.tier] or [""]
    cut = ", cut at the most tokens allowed" if answer.finish is FinishReason.LENGTH else ""
    return f"{answer.tier.value} ({model}){cut}" if model else f"{answer.tier.value}{cut}"


def _coloured(piece: Piece) -> Text:
    """Tokens of the small tier in the colour of their margin; text of the large one as it is."""
    if piece.tier is Tier.LARGE or not piece.margins:
        return Text(printable(piece.text))
    return Text.assemble(*((printable(text), margin_style(margin)) for text, margin in piece.margins))


def _attempt_cells(attempt: Attempt, cost: str) -> tuple[str, ...]:
    usage = attempt.usage
    return (
        attempt.tier.value,
        attempt.model,
        attempt.outcome.value,
        str(usage.input_tokens),
        str(usage.output_tokens),
        cost,
        f"{1_000 * attempt.seconds:.1f}",
    )


def _attempt_as_json(attempt: Attempt) -> dict[str, object]:
    return {
        "tier": attempt.tier.value,
        "model": attempt.model,
        "outcome": attempt.outcome.value,
        **asdict(attempt.usage),
        "cost_nanos": attempt.cost_nanos,
        "milliseconds": 1_000 * attempt.seconds,
    }
