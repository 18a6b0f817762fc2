"""`marginal costs`: what requests have cost, one by one and in sums, against the logs, and what may still be spent."""

import csv
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from marginal.entrypoints import cost_sources, inspection, reaching
from marginal.entrypoints.budgets_shown import budgets_as_rows, budgets_shown
from marginal.entrypoints.cli_options import STATE_DIR, AsJson, StateDir
from marginal.entrypoints.costs_shown import (
    costs_as_json,
    costs_as_rows,
    costs_shown,
    moment_shown,
)
from marginal.entrypoints.record_shown import record_as_json, record_as_rows, record_shown
from marginal.entrypoints.running import admin_address
from marginal.entrypoints.wording import as_json
from marginal.errors import ConfigurationError, InvalidRequest
from marginal.evaluation import reconcile as reconciling
from marginal.routing.spending import CostQuery, CostSummary, Grouping
from marginal.transport.admin import get_cost, list_budgets, list_costs

EXAMPLES = (
    "[bold]Examples[/]\n\n"
    "marginal costs\n\n"
    "marginal costs --by day --since 7d --tenant acme\n\n"
    "marginal costs --by task --since 2026-11 --until 2026-12 --csv > november.csv\n\n"
    "marginal costs --journal router-0/ --journal router-1/ --json\n\n"
    "marginal costs --router 127.0.0.1:50054"
)

app = typer.Typer(help="What requests have cost, and what may still be spent.", rich_markup_mode="rich")

Journal = Annotated[
    list[Path] | None,
    typer.Option(
        "--journal",
        metavar="DIR",
        help="A router's journal directory; may be given several times.",
        show_default="that of `marginal up`",
    ),
]
Router = Annotated[
    str,
    typer.Option(
        "--router",
        "--admin",
        metavar="ADDRESS",
        help="Ask a running router instead, at its admin address.",
        show_default=False,
    ),
]
AsCsv = Annotated[bool, typer.Option("--csv", help="Comma-separated values with a header; money in nano-units.")]


@app.callback(invoke_without_command=True, epilog=EXAMPLES)
def costs(
    context: typer.Context,
    by: Annotated[Grouping, typer.Option(help="What each row is for.")] = Grouping.TENANT,
    since: Annotated[
        str, typer.Option(help="Admitted from then on: 24h, 7d, 2026-11-01 or 2026-11, of UTC.", show_default="ever")
    ] = "",
    until: Annotated[str, typer.Option(help="Admitted before then, in the same forms.", show_default="now")] = "",
    tenant: Annotated[str, typer.Option(help="Only this tenant.", show_default="all")] = "",
    policy: Annotated[str, typer.Option(help="Only this policy.", show_default="all")] = "",
    journal: Journal = None,
    router: Router = "",
    state_dir: StateDir = STATE_DIR,
    csv: AsCsv = False,
    json: AsJson = False,
) -> None:
    """Sum up what requests have cost, by tenant, policy, task or day."""
    if context.invoked_subcommand is not None:
        _refuse_options_before(context)
        return
    _one_form(csv=csv, json=json)
    now = time.time()
    query = CostQuery(
        by,
        cost_sources.moment(since, now, option="--since"),
        cost_sources.moment(until, now, option="--until"),
        tenant,
        policy,
    )
    summary = _summary(query, journal, router, state_dir)
    console = Console(highlight=False)
    if json:
        console.out(as_json(costs_as_json(summary)), highlight=False)
    elif csv:
        _print_csv(costs_as_rows(summary))
    elif summary.totals:
        console.print(costs_shown(summary, width=console.width))
    else:
        console.print(_nothing(query), soft_wrap=True)


@app.command(
    epilog="[bold]Examples[/]\n\nmarginal costs show b39d47efcde44adc9f5b8bb59b955834\n\n"
    "marginal costs show b39d47efcde44adc9f5b8bb59b955834 --router 127.0.0.1:50054 --json"
)
def show(
    request_id: Annotated[str, typer.Argument(help="The request's id, as its answer and its cost record have it.")],
    journal: Journal = None,
    router: Router = "",
    state_dir: StateDir = STATE_DIR,
    csv: AsCsv = False,
    json: AsJson = False,
) -> None:
    """Show one request: every attempt with its tokens, price and cost, the decision, and what it came to."""
    _one_form(csv=csv, json=json)
    if router:
        line = cost_sources.from_router(router, get_cost(router, request_id, tls=reaching.current().tls))
    else:
        directories = cost_sources.journals(journal, state_dir)
        found = cost_sources.read_record(directories, request_id, progress=_progress())
        if found is None:
            where = ", ".join(map(str, directories))
            raise InvalidRequest("request_id", f"there is no record of {request_id!r} in {where}, see `marginal costs`")
        line = found
    console = Console(highlight=False)
    if json:
        console.out(as_json(record_as_json(line)), highlight=False)
    elif csv:
        _print_csv(record_as_rows(line))
    else:
        console.print(record_shown(line))


@app.command(
    epilog="[bold]Examples[/]\n\nmarginal costs budgets\n\nmarginal costs budgets --tenant acme --json\n\n"
    "marginal costs budgets --router 127.0.0.1:50054"
)
def budgets(
    tenant: Annotated[str, typer.Option(help="Only this tenant.", show_default="all")] = "",
    router: Annotated[
        str,
        typer.Option(
            "--router",
            "--admin",
            envvar="MARGINAL_ADMIN",
            help="The router's admin address.",
            show_default="that of `marginal up`, or :50054",
        ),
    ] = "",
    state_dir: StateDir = STATE_DIR,
    csv: AsCsv = False,
    json: AsJson = False,
) -> None:
    """Show what tenants have spent in the hour, day and month of now, and what they may still spend."""
    _one_form(csv=csv, json=json)
    address = router or admin_address(state_dir)
    found = cost_sources.from_router(address, list_budgets(address, tenant=tenant, tls=reaching.current().tls))
    console = Console(highlight=False)
    if json:
        console.out(as_json({"budgets": budgets_as_rows(found), "left_out": found.left_out}), highlight=False)
    elif csv:
        _print_csv(budgets_as_rows(found))
    elif found.states:
        console.print(budgets_shown(found))
    else:
        console.print(
            "Nobody has spent anything this month, and nobody has a budget: give some in the router's --tenants-file.",
            soft_wrap=True,
        )


@app.command(
    epilog="[bold]Examples[/]\n\nmarginal costs reconcile\n\n"
    "marginal costs reconcile --journal router-0/ --journal router-1/ --logs models/ --json"
)
def reconcile(
    journal: Journal = None,
    logs: Annotated[
        Path | None, typer.Option(help="Where the model services' logs are.", show_default="those of `up`")
    ] = None,
    state_dir: StateDir = STATE_DIR,
    json: AsJson = False,
) -> None:
    """Compare the cost records with the tokens that the model services logged; exit code 1 when they differ."""
    directories = cost_sources.journals(journal, state_dir) if journal or logs else ()
    found = inspection.reconcile(logs or state_dir, directories)
    console = Console(highlight=False)
    if json:
        console.out(as_json(reconciling.as_json(found)), highlight=False)
    else:
        console.print(reconciling.table(found))
    raise typer.Exit(0 if found.balanced else 1)


def _summary(query: CostQuery, journal: Sequence[Path] | None, router: str, state_dir: Path) -> CostSummary:
    if not router:
        return cost_sources.read_costs(cost_sources.journals(journal, state_dir), query, progress=_progress())
    if journal:
        raise ConfigurationError("--journal and --router: give one of the two")
    return cost_sources.from_router(router, list_costs(router, query, tls=reaching.current().tls))


def _nothing(query: CostQuery) -> str:
    said = [
        *([f"since {moment_shown(query.since)}"] if query.since is not None else []),
        *([f"before {moment_shown(query.until)}"] if query.until is not None else []),
        *([f"of tenant {query.tenant}"] if query.tenant else []),
        *([f"under policy {query.policy}"] if query.policy else []),
    ]
    if said:
        return f"There is no cost record {' '.join(said)}: ask for more, or see `marginal costs` for all there are."
    return "There is no cost record yet: ask something with `marginal ask`."


def _print_csv(rows: Sequence[Mapping[str, object]]) -> None:
    if rows:
        writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _one_form(*, csv: bool, json: bool) -> None:
    if csv and json:
        raise ConfigurationError("--csv and --json: give one of the two")


def _refuse_options_before(context: typer.Context) -> None:
    """What stands before a further command would be passed over."""
    for parameter in context.command.params:
        if parameter.name and _was_given(context, parameter.name):
            option, command = parameter.opts[0], context.invoked_subcommand
            raise ConfigurationError(f"{option}: give it after `{command}`, as `marginal costs {command} {option} ...`")


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _progress() -> Console:
    return Console(stderr=True, highlight=False)
