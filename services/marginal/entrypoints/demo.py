"""`marginal demo`: the same questions asked of each tier alone and under policies, measured against random deferral."""

import asyncio
import time
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from marginal.entrypoints import inspection, reaching
from marginal.entrypoints.groups import together
from marginal.entrypoints.progress import Tell, counted
from marginal.entrypoints.wording import amounts, as_json, bulleted
from marginal.errors import ConfigurationError, InvalidRequest, MarginalError
from marginal.evaluation import reconcile
from marginal.evaluation.demo import Comparison, Measured, Reply, Row, measure
from marginal.evaluation.questions import Question, read_questions, section, spread
from marginal.policy.deferral import Verdict
from marginal.routing.requests import Mode
from marginal.tokens import Tier
from marginal.transport.router_client import RouterClient

POLICIES = ("default", "careful")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a demo asks: every question in every arm, `concurrency` at a time."""

    questions: tuple[Question, ...]
    policies: tuple[str, ...] = POLICIES
    concurrency: int = 4


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished demo: what was measured, over how many questions, in which currency."""

    measured: Measured
    questions: int
    concurrency: int
    currency: str

    def as_json(self) -> dict[str, object]:
        """The outcome as plain values."""
        return {
            "questions": self.questions,
            "concurrency": self.concurrency,
            "currency": self.currency,
            "failed": self.measured.failed,
            **self.measured.as_json(),
        }


@dataclass(frozen=True, slots=True)
class Arm:
    """One way of asking every question."""

    name: str
    mode: Mode
    policy: str


def questions(path: Path | None, *, bundled: str, limit: int, offset: int | None = None) -> tuple[Question, ...]:
    """Questions of a file, None for the one that is bundled, every task in its share. Raises ConfigurationError.

    With an `offset` those after the first so many that `marginal record` takes.
    """
    everything = read_questions(path or files("marginal.models").joinpath(bundled))
    if offset is None:
        return spread(everything, limit=limit)
    fresh = section(everything, offset=offset, limit=limit)
    if not fresh:
        raise ConfigurationError(f"--offset {offset} leaves none of the {len(everything)} questions")
    return fresh


async def run(target: str, plan: Plan, *, progress: Console) -> Outcome:
    """Asks everything and measures. Raises InvalidRequest when the router refuses a policy."""
    small = Arm("small-only", Mode.SMALL_ONLY, plan.policies[0])
    large = Arm("large-only", Mode.LARGE_ONLY, plan.policies[0])
    policies = [Arm(f"policy {policy}", Mode.AUTO, policy) for policy in plan.policies]
    arms = [small, large, *policies]
    currencies: set[str] = set()
    how = reaching.current()
    async with RouterClient(target, api_key=how.api_key, tls=how.tls) as client:
        with counted(progress, total=len(plan.questions) * len(arms)) as tell:
            replies = [await _ask_all(client, arm, plan, tell, currencies) for arm in arms]
    measured = measure(replies[0], replies[1], dict(zip(plan.policies, replies[2:], strict=True)))
    return Outcome(measured, len(plan.questions), plan.concurrency, "/".join(sorted(currencies)))


def show(outcome: Outcome, console: Console) -> None:
    """Writes the one table and what was seen, in words."""
    measured = outcome.measured
    console.print()
    console.print(_table(outcome))
    console.print()
    remarks = [Text(_remark(comparison, outcome.questions)) for comparison in measured.comparisons]
    degraded = sum(row.degraded for row in measured.rows)
    if degraded:
        words = "answers in all are degraded: the small tier's, though the large one was wanted."
        remarks.append(Text(f"{degraded} {words}", "yellow"))
    if measured.failed:
        remarks.append(Text(f"{measured.failed} requests failed; they count as not right.", "bold red"))
    console.print(bulleted(remarks))


def _remark(comparison: Comparison, questions: int) -> str:
    left_out = questions - comparison.requests
    partial = f" {left_out} questions are left out: a tier alone gave them no answer of its own." if left_out else ""
    return f"{comparison.sentence}{partial}"


async def _ask_all(client: RouterClient, arm: Arm, plan: Plan, tell: Tell, currencies: set[str]) -> list[Reply]:
    """The replies in the order of the questions."""
    slots = asyncio.Semaphore(plan.concurrency)

    async def within_slots(question: Question) -> Reply:
        async with slots:
            reply = await _reply(client, arm, question, currencies)
        tell(arm.name)
        return reply

    async with together() as group:
        tasks = [group.create_task(within_slots(question)) for question in plan.questions]
    return [task.result() for task in tasks]


async def _reply(client: RouterClient, arm: Arm, question: Question, currencies: set[str]) -> Reply:
    started = time.perf_counter()
    try:
        text, answer = await client.complete(question.request, mode=arm.mode, policy=arm.policy)
    except (ConfigurationError, InvalidRequest):
        raise
    except MarginalError as error:
        return Reply(correct=False, seconds=time.perf_counter() - started, error=type(error).__name__)
    currencies.add(answer.currency)
    return Reply(
        correct=question.graded(text),
        deferred=answer.decision.verdict is Verdict.DEFER,
        called_large=any(attempt.tier is Tier.LARGE for attempt in answer.attempts),
        degraded=answer.degraded is not None,
        cost_nanos=answer.total_nanos,
        seconds=time.perf_counter() - started,
    )


async def conduct(
    target: str, plan: Plan, state_dir: Path | None, *, console: Console, progress: Console, json: bool
) -> bool:
    """Runs the demo and shows it, reconciled with the logs in `state_dir`; says whether every request was answered."""
    outcome = await run(target, plan, progress=progress)
    found = await asyncio.to_thread(inspection.reconciliation, state_dir) if state_dir else None
    if json:
        reconciliation = reconcile.as_json(found) if found else None
        console.out(as_json(outcome.as_json() | {"reconciliation": reconciliation}), highlight=False)
    else:
        show(outcome, console)
        if found:
            console.print(bulleted([inspection.difference(found)]))
    return outcome.measured.failed == 0


def _table(outcome: Outcome) -> Table:
    rows = outcome.measured.rows
    ways = len({(row.arm, row.policy) for row in rows if row.arm != "random deferral"})
    gap = 1 if outcome.measured.failed else 2
    table = Table(
        title=f"{outcome.questions} questions, each asked in {ways} ways, {outcome.concurrency} at a time",
        title_justify="left", title_style="bold", box=None, padding=(0, gap, 0, 0), pad_edge=False,
    )  # fmt: skip
    table.add_column("\nanswered by", no_wrap=True)
    for heading in ("\naccuracy", "95%\ninterval", "\ndeferred", "cost per\n1,000", "mean\nms", "\ndegraded"):
        table.add_column(heading, justify="right", no_wrap=True)
    if outcome.measured.failed:
        table.add_column("\nfailed", justify="right", no_wrap=True, style="bold red")
    costs = amounts([row.cost_nanos_per_1000 for row in rows], outcome.currency, significant=3)
    for row, cost in zip(rows, costs, strict=True):
        table.add_row(*_cells(row, cost)[: len(table.columns)], style=_STYLES.get(row.arm, ""))
    return table


_NAMES = {"marginal": "Marginal, {}", "random deferral": "  random, same share"}
_STYLES = {"marginal": "bold", "random deferral": "dim"}


def _cells(row: Row, cost: str) -> list[str]:
    interval, milliseconds = row.accuracy_interval, 1_000 * row.mean_seconds
    return [
        _NAMES.get(row.arm, row.arm).format(row.policy),
        f"{row.accuracy:.1%}",
        f"{100 * interval.low:.1f}–{100 * interval.high:.1f}",  # noqa: RUF001 (a range)
        f"{row.deferral_share:.1%}",
        cost,
        f"{milliseconds:.1f}" if milliseconds < 1_000 else f"{milliseconds:.0f}",
        "" if row.arm == "random deferral" else str(row.degraded),
        "" if row.arm == "random deferral" else str(row.failed),
    ]
