"""marginal: starts the services on this machine, asks them, and shows what they did and what it cost."""

import asyncio
import sys
from typing import Annotated

import typer
from rich.console import Console, RenderableType

from marginal.entrypoints import ask as asking
from marginal.entrypoints import (
    calibrate,
    costs,
    drift,
    evaluate,
    inspection,
    keys,
    learning,
    policy,
    probe,
    reaching,
    status,
    up_command,
)
from marginal.entrypoints import demo as demonstration
from marginal.entrypoints.cli_options import (
    LIMIT,
    MODES,
    ROUTER,
    STATE_DIR,
    AsJson,
    Choices,
    Concurrency,
    DemoStateDir,
    Limit,
    ModeOption,
    Offset,
    PairName,
    PolicyNames,
    Questions,
    StateDir,
    Target,
)
from marginal.entrypoints.wording import as_json
from marginal.errors import ConfigurationError, DeadlineExceeded, MarginalError, TierUnavailable
from marginal.evaluation import traces, waterfall
from marginal.models import catalogue
from marginal.routing.requests import OnDegrade
from marginal.transport import router_servicer
from marginal.transport.certificates import CertificateFiles
from marginal.transport.router_client import wait_until_serving

READY_SECONDS = 3.0

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True, rich_markup_mode="rich")
app.add_typer(policy.app, name="policy")
app.add_typer(keys.app, name="keys")
app.add_typer(costs.app, name="costs")


@app.callback()
def marginal(
    api_key_file: reaching.ApiKeyFile = None,
    tls_ca: reaching.TlsCa = None,
    tls_name: reaching.TlsName = "",
    tls_cert: reaching.TlsCert = None,
    tls_key: reaching.TlsKey = None,
) -> None:
    """Answers with a small model and defers to a large one only when the small model is unsure."""
    reaching.reaching(api_key_file, CertificateFiles(tls_cert, tls_key, tls_ca), tls_name)


app.command(epilog=up_command.EXAMPLES)(up_command.up)


@app.command(
    epilog="[bold]Examples[/]\n\n"
    'marginal ask "wake me at half past six on thursday"\n\n'
    'marginal ask "which is larger, 4 kilos or 5500 grams" --policy careful\n\n'
    "echo dim the bedroom light to 30 percent | marginal ask - --json"
)
def ask(
    question: Annotated[str, typer.Argument(help="The question; - reads it from standard input.")],
    choices: Choices = "",
    policy: Annotated[str, typer.Option(help="A policy of the router; its default when not given.")] = "",
    task: Annotated[str, typer.Option(help="The request's task label; some have a rule of their own.")] = "",
    mode: Annotated[
        ModeOption, typer.Option(help="Which tier answers; auto lets the policy decide.")
    ] = ModeOption.AUTO,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens to generate.")] = None,
    on_degrade: Annotated[
        OnDegrade, typer.Option(help="When the large tier cannot be had: serve the small answer, or fail.")
    ] = OnDegrade.SERVE,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds the answer may take.")] = 60.0,
    target: Target = ROUTER,
    json: AsJson = False,
) -> None:
    """Ask one question; show the answer, which tier gave it and why, and what it cost."""
    wanted = asking.Asking(
        prompt=sys.stdin.read().strip() if question == "-" else question,
        choices=tuple(choice.strip() for choice in choices.split(",") if choice.strip()),
        policy=policy,
        task=task,
        mode=MODES[mode],
        on_degrade=on_degrade,
        max_tokens=max_tokens,
        timeout_seconds=timeout,
    )
    console, _ = _consoles()

    async def ask_it() -> None:
        await _router_at(target)
        try:
            await asking.ask(target, wanted, console=console, json=json)
        except DeadlineExceeded:
            raise DeadlineExceeded(f"no whole answer within {timeout:g} s: allow more with --timeout") from None

    asyncio.run(ask_it())


@app.command(
    epilog="[bold]Examples[/]\n\n"
    "marginal demo\n\n"
    "marginal demo --limit 1000 --policy default --policy first-token\n\n"
    "marginal demo --questions mine.jsonl --json"
)
def demo(
    pair: PairName = "home",
    questions: Questions = None,
    limit: Limit = LIMIT,
    offset: Offset = None,
    policy: PolicyNames = list(demonstration.POLICIES),  # noqa: B006 (typer copies it)
    concurrency: Concurrency = 4,
    target: Target = ROUTER,
    state_dir: DemoStateDir = None,
    json: AsJson = False,
) -> None:
    """Ask held-out questions with known answers; measure accuracy and cost against random deferral."""
    asked = demonstration.questions(questions, bundled=catalogue.pair(pair).questions, limit=limit, offset=offset)
    plan = demonstration.Plan(asked, tuple(dict.fromkeys(policy)), concurrency)

    async def measure() -> bool:
        await _router_at(target)
        kept = state_dir or (STATE_DIR if target == ROUTER else None)
        console, progress = _consoles()
        return await demonstration.conduct(target, plan, kept, console=console, progress=progress, json=json)

    raise typer.Exit(0 if asyncio.run(measure()) else 1)


@app.command(
    epilog="[bold]Examples[/]\n\nmarginal trace last\n\nmarginal trace 4bf92f3577b34da6a3ce929d0e0e4736 --json"
)
def trace(
    trace_id: Annotated[str, typer.Argument(help="The trace id an answer came with; last is the last request's.")],
    state_dir: StateDir = STATE_DIR,
    json: AsJson = False,
) -> None:
    """Show one request as a tree of spans over the three services."""
    found = inspection.trace(trace_id, state_dir)
    _print(traces.as_json(found) if json else waterfall.Waterfall(found))


for further in (learning.app, evaluate.app, calibrate.app, drift.app, probe.app, status.app):
    app.add_typer(further)


def main() -> None:
    """Runs the command line; an error is one sentence and exit code 1."""
    try:
        app()
    except MarginalError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(1) from None


async def _router_at(target: str) -> None:
    try:
        await wait_until_serving(
            target, router_servicer.SERVICE, timeout_seconds=READY_SECONDS, tls=reaching.current().tls
        )
    except TierUnavailable:
        if reaching.current().tls:
            raise  # it may well be there, and not be who it should: the error says which
        raise ConfigurationError(
            f"no router is ready at {target}: start one with `marginal up`, or name another with --target"
        ) from None


def _print(what: RenderableType | dict[str, object]) -> None:
    console, _ = _consoles()
    if isinstance(what, dict):
        console.out(as_json(what), highlight=False)
    else:
        console.print(what)


def _consoles() -> tuple[Console, Console]:
    """For results, and for what happens meanwhile."""
    return Console(highlight=False), Console(stderr=True, highlight=False)


if __name__ == "__main__":
    main()
