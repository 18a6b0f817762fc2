"""The commands of `marginal` that learn from traffic: record it, and more to come."""

import asyncio
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from marginal.entrypoints import record as recording
from marginal.entrypoints import record_plan, record_report
from marginal.entrypoints.cli_options import STATE_DIR, AsJson, StateDir
from marginal.entrypoints.services import LARGE, SMALL
from marginal.entrypoints.wording import as_json
from marginal.evaluation import results
from marginal.evaluation.run_writer import RunWriter
from marginal.evaluation.runs import read_run
from marginal.evaluation.shadow_log import read_shadow_logs
from marginal.tokens import Sampling, Tier

INTERRUPTED = 130

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")

GraderName = Literal["exact", "normalised", "choice", "numeric"]
Labels = Literal["expected", "large"]
Output = Annotated[Path, typer.Option("--output", "-o", help="The run to write; compressed when it ends in .gz.")]
TierTarget = Annotated[str | None, typer.Option(help="The tier, HOST:PORT.", show_default="by `marginal up`")]


@app.command(
    epilog="[bold]Examples[/]\n\n"
    "marginal record home -o home.jsonl\n\n"
    "marginal record home --limit 700 -o calibrate.jsonl.gz\n\n"
    "marginal record home --offset 700 -o test.jsonl.gz\n\n"
    "marginal record mine.jsonl --labels large --grader normalised --small small:50052 --large large:50053"
    " -o mine.jsonl.gz"
)
def record(
    questions: Annotated[
        str,
        typer.Argument(
            help="A file with a JSON object a line: id, task, request, answer, and maybe choices; or a pair's name,"
            " for its bundled questions."
        ),
    ],
    output: Output,
    small: TierTarget = None,
    large: TierTarget = None,
    grader: Annotated[
        GraderName,
        typer.Option(
            help="What is right: the same text; the same words; the same option, as in (B); the same last number."
        ),
    ] = "exact",
    labels: Annotated[
        Labels, typer.Option(help="Compare with the expected answers, or with whatever the large tier answers.")
    ] = "expected",
    offset: Annotated[
        int,
        typer.Option(
            min=0,
            help="Leave out this many first: in a fixed order that has every task in its share wherever it is cut, so"
            " that --limit 700 and --offset 700 share no question.",
        ),
    ] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Ask this many at most.", show_default="all")] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="Ask only questions of this task; may be given several times.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 256,
    texts: Annotated[bool, typer.Option("--texts", help="Keep the answers' texts in the run.")] = False,
    concurrency: Annotated[int, typer.Option(min=1, help="Questions under way at a time.")] = 8,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds an answer may take.")] = 120.0,
    policy_file: Annotated[
        Path | None,
        typer.Option(envvar="MARGINAL_POLICY_FILE", help="For its prices.", show_default="that of `marginal up`"),
    ] = None,
    state_dir: StateDir = STATE_DIR,
    json: AsJson = False,
) -> None:
    """Ask both tiers the same questions directly; grade the answers and keep them, with all evidence, as a run.

    Interrupted, the same command goes on where it ended. A question that fails twice is left out: exit code 1.
    """
    priced = record_plan.prices(policy_file, state_dir)
    plan = recording.Plan(
        questions=record_plan.questions(
            questions, answers=labels == results.EXPECTED, tasks=task or (), offset=offset, limit=limit
        ),
        targets={
            Tier.SMALL: record_plan.target(small, state_dir, SMALL, option="--small"),
            Tier.LARGE: record_plan.target(large, state_dir, LARGE, option="--large"),
        },
        prices=priced.prices,
        currency=priced.currency,
        grader=grader,
        labels=labels,
        sampling=Sampling(max_tokens=max_tokens),
        concurrency=concurrency,
        timeout_seconds=timeout,
        texts=texts,
        output=output,
    )
    progress = Console(stderr=True, highlight=False)
    try:
        recorded = asyncio.run(recording.record(plan, progress=progress))
    except KeyboardInterrupt:
        progress.print(f"interrupted; the same command goes on with {output}", soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None
    if recorded.asked or recorded.resumed:
        _report(output, resumed=recorded.resumed, failed=recorded.failed, json=json)
    raise typer.Exit(1 if recorded.failed else 0)


@app.command(
    epilog="[bold]Examples[/]\n\n"
    "marginal record-shadow .marginal/router.log -o shadow.jsonl\n\n"
    "marginal record-shadow router-*.log.gz -o shadow.jsonl.gz --json"
)
def record_shadow(
    logs: Annotated[list[Path], typer.Argument(help="Logs of routers, JSON lines; compressed when they end in .gz.")],
    output: Output,
    policy: Annotated[str | None, typer.Option(help="The policy, where the logs are of several.")] = None,
    json: AsJson = False,
) -> None:
    """Make a run of a router's log: requests sampled for shadow, kept and deferred ones. Nothing is asked.

    Right is what the large tier answered: of a deferred request only its score is known, which was too low.

    The same command again adds what is new in the logs.
    """
    header, rows = read_shadow_logs(logs, created=recording.now(), policy=policy)
    with RunWriter(output, header) as run:
        new = [row for row in rows if row.id not in run.done]
        for row in new:
            run.append(row)
    _report(output, resumed=len(rows) - len(new), failed=0, json=json)


def _report(output: Path, *, resumed: int, failed: int, json: bool) -> None:
    summary = record_report.summarise(read_run(output), output, resumed=resumed, failed=failed)
    console = Console(highlight=False)
    if json:
        console.out(as_json(summary.as_json()), highlight=False)
    else:
        console.print(record_report.table(summary))
