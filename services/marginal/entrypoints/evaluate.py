"""`marginal evaluate`: recorded runs swept over all budgets, a report, and whether the cascade pays."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from shlex import join
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from marginal.entrypoints.cli_options import AsJson
from marginal.entrypoints.progress import counted
from marginal.entrypoints.wording import as_json, bulleted
from marginal.errors import ConfigurationError
from marginal.evaluation.conclusion import Conclusion, conclude, default_of, score_of
from marginal.evaluation.intervals import Interval
from marginal.evaluation.protocol import RULES, Evaluation, Protocol, Setting
from marginal.evaluation.replay import score_choice
from marginal.evaluation.runs import AUTO, FORMATS, read_run
from marginal.evaluation.sweep import steps, sweep
from marginal.policy.scores import SCORES

LINE_SECONDS = 4.0
RATIO = 5.0
SHOWN_RULES = 2
"""Rules in the table on the terminal; all of them are in the report."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


@app.command(
    epilog="[bold]Cost models[/]\n\n"
    "fixed: a small answer costs 1, a large one c (--cost-ratio). tokens and time: as recorded, where they are.\n\n"
    "Each is counted with every small answer paid in full, and with unsure ones aborted at the deciding token: in fixed"
    " costs the share of its tokens seen (of an answer of one token --aborted-share), in time up to that token, in"
    " tokens the input and the tokens seen.\n\n"
    "[bold]Examples[/]\n\n"
    "marginal evaluate home.jsonl.gz\n\n"
    "marginal evaluate mmlu_Yi-6B__Yi-34B.jsonl.gz --cost-ratio 4 --cost-ratio 10 --aborted-share 0.05\n\n"
    "marginal evaluate one.jsonl other.jsonl --scores first_token_margin --scores min_margin:8 --rules target_rate"
    " -o both.html"
)
def evaluate(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Recorded runs, see `marginal record`.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The report, HTML; figures as PNG go to a folder beside it.")
    ] = Path("report.html"),
    format: Annotated[  # noqa: A002 (as the option is called)
        str, typer.Option(help=f"How the runs are written: {', '.join(FORMATS)}.")
    ] = AUTO,
    cost_ratio: Annotated[
        list[float] | None,
        typer.Option(help="Fixed costs: a large answer costs so many small ones; repeatable.", show_default="5"),
    ] = None,
    budgets: Annotated[int, typer.Option(min=3, help="Budgets from the small tier's cost to the large one's.")] = 100,
    orders: Annotated[int, typer.Option(min=1, max=32, help="Orders of the stream that are averaged.")] = 3,
    holdout: Annotated[
        int | None,
        typer.Option(min=0, help="Rows held out at the start.", show_default="1,000 if there are 3,000"),
    ] = None,
    scores: Annotated[
        list[str] | None,
        typer.Option(help="NAME[:WINDOW[:QUANTILE]], repeatable; window 0 is the whole answer.", show_default="all"),
    ] = None,
    rules: Annotated[
        list[str] | None, typer.Option(help=f"{', '.join(RULES)}; repeatable.", show_default="all")
    ] = None,
    aborted_share: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            show_default="in full",
            help="Fixed costs: what an aborted small answer of one token costs. 0.05 says that answers have 20 tokens"
            " and are stopped at the first.",
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Weigh recorded runs: accuracy against cost for every score and rule, and whether the cascade pays."""
    protocol = Protocol(
        scores=tuple(map(score_choice, scores or SCORES)),
        rules=_rules(rules or list(RULES)),
        ratios=tuple(cost_ratio or (RATIO,)),
        budgets=budgets,
        orders=orders,
        holdout=holdout,
        aborted_share=aborted_share,
    )
    _refuse_to_overwrite(output, runs)
    evaluations = _evaluated(runs, protocol, format, Console(stderr=True, highlight=False))
    command = join(["marginal", *sys.argv[1:]]) if len(sys.argv) > 1 else "marginal evaluate"
    folder = _write(output, evaluations, command)
    console = Console(highlight=False)
    if json:
        figures = {"report": str(output), "figures": str(folder)}
        console.out(as_json(figures | {"runs": [_as_json(one) for one in evaluations]}), highlight=False)
        return
    for evaluation in evaluations:
        _show(evaluation, console)
    console.print(f"\nreport {output}, figures in {folder}", soft_wrap=True)


def _rules(named: Sequence[str]) -> tuple[str, ...]:
    for rule in named:
        if rule not in RULES:
            raise ConfigurationError(f"--rules: {rule} is no rule that can be swept, there are {', '.join(RULES)}")
    return tuple(rule for rule in RULES if rule in named)


def _refuse_to_overwrite(output: Path, runs: Sequence[Path]) -> None:
    if any(output.resolve() == run.resolve() for run in runs):
        raise ConfigurationError(f"--output: {output} is one of the runs")


def _evaluated(
    paths: Sequence[Path],
    protocol: Protocol,
    format_: str,
    progress: Console,
) -> list[Evaluation]:
    with counted(progress, total=steps(protocol) * len(paths), verb="swept") as tell:
        return [sweep(read_run(path, format=format_), protocol, tell=tell) for path in paths]


def _write(output: Path, evaluations: Sequence[Evaluation], command: str) -> Path:
    """Writes the page and the figures; says where the figures are. Raises ConfigurationError."""
    from marginal.evaluation import report  # slow, and wanted by no other command

    origin = report.Origin(command, version("marginal"))
    folder = output.with_name(f"{output.stem}-figures")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        output.write_text(report.render(evaluations, origin), "utf-8")
        for name, content in report.file_names(evaluations).items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise ConfigurationError(f"--output: {output} cannot be written, {error.strerror or 'no reason'}") from error
    return folder


def _show(evaluation: Evaluation, console: Console) -> None:
    """One table per run, and the conclusion in words."""
    header, found = evaluation.header, conclude(evaluation)
    held = f", {evaluation.held_out:,} held out" if evaluation.held_out else ""
    tiers = f"small only {evaluation.small_accuracy:.4f}, large only {evaluation.large_accuracy:.4f} right"
    console.print(
        f"\n[bold]{escape(header.small)} → {escape(header.large)}[/]  {evaluation.rows:,} rows{held}, {tiers}"
    )
    console.print(_table(evaluation))
    console.print()
    console.print(found.headline, style="bold", markup=False)
    console.print(bulleted(found.remarks))


def _table(evaluation: Evaluation) -> Table:
    """Normalised AUCs under every rule, of the chosen score and of the default."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    for heading in ("score", "rule"):
        table.add_column(heading, no_wrap=True)
    for heading in ("AUC", "95%", "points above random"):
        table.add_column(heading, justify="right", no_wrap=True)
    scores = list(dict.fromkeys(filter(None, (score_of(evaluation), default_of(evaluation)))))
    for setting in evaluation.settings:
        table.add_row(f"\n[bold]{setting.model.label}[/]{', early abort' if setting.early_abort else ''}")
        table.add_row("random", "", f"{setting.random_auc:.4f}", _range(setting.random_interval), "", style="dim")
        for score in scores:
            for rule in evaluation.protocol.rules:
                table.add_row(*_cells(setting, score, rule))
        table.add_row("oracle", "", f"{setting.oracle_auc:.4f}", "", "", style="dim")
    return table


def _cells(setting: Setting, score: str, rule: str) -> tuple[str, ...]:
    cell = setting.cell(score, rule)
    gain = f"{100 * cell.gain:+.1f} ({100 * cell.gain_interval.low:+.1f} to {100 * cell.gain_interval.high:+.1f})"
    return score, rule, f"{cell.auc:.4f}", _range(cell.auc_interval), gain


def _range(interval: Interval) -> str:
    return f"{interval.low:.4f}–{interval.high:.4f}"  # noqa: RUF001 (a range)


def _as_json(evaluation: Evaluation) -> dict[str, object]:
    """An evaluation as plain values, its conclusion first."""
    found: Conclusion = conclude(evaluation)
    values = asdict(evaluation)
    for setting in values["settings"]:
        setting["model"]["unit"] = setting["model"]["unit"].value
    return {
        "conclusion": asdict(found),
        "score": score_of(evaluation),
        "default_score": default_of(evaluation),
        **values,
    }
