"""The command `marginal up`: its options, and what happens once all is ready."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from marginal.entrypoints import demo as demonstration
from marginal.entrypoints.cli_options import (
    LIMIT,
    ROUTER,
    STATE_DIR,
    AsJson,
    LargeEndpoint,
    LargeEngine,
    LargeEngineModel,
    LargeKeyFile,
    Limit,
    OwnEngine,
    PairName,
    Questions,
    SmallEndpoint,
    SmallEngine,
    SmallEngineModel,
    SmallKeyFile,
    StateDir,
    UpExporter,
)
from marginal.entrypoints.engine_options import Given, in_front_of, of_tier
from marginal.entrypoints.engines import EngineKind, risk
from marginal.entrypoints.services import Plan
from marginal.entrypoints.up import Up, what_next
from marginal.models import catalogue
from marginal.models.catalogue import Pair
from marginal.telemetry.tracing import Exporter
from marginal.tokens import Tier

EXAMPLES = (
    "[bold]Examples[/]\n\n"
    "marginal up\n\n"
    "marginal up --demo\n\n"
    "marginal up --pair qwen2.5-coder --listen 0.0.0.0:50051\n\n"
    "marginal up --small-model ./small.gguf --large-model ./large.gguf --policy-file policies.toml\n\n"
    "marginal up --small-endpoint http://127.0.0.1:8080 --demo"
)


def up(
    pair: PairName = "home",
    small_model: Annotated[
        str | None, typer.Option(help="Instead of the pair's small model: a name or a file.")
    ] = None,
    large_model: Annotated[
        str | None, typer.Option(help="Instead of the pair's large model: a name or a file.")
    ] = None,
    small_endpoint: SmallEndpoint = None,
    small_engine: SmallEngine = None,
    small_engine_model: SmallEngineModel = None,
    small_api_key_file: SmallKeyFile = None,
    large_endpoint: LargeEndpoint = None,
    large_engine: LargeEngine = None,
    large_engine_model: LargeEngineModel = None,
    large_api_key_file: LargeKeyFile = None,
    listen: Annotated[
        str, typer.Option(envvar="MARGINAL_LISTEN", help="Where the router listens, HOST:PORT.")
    ] = ROUTER,
    small_listen: Annotated[
        str | None, typer.Option(help="The small tier's address.", show_default="free port")
    ] = None,
    large_listen: Annotated[
        str | None, typer.Option(help="The large tier's address.", show_default="free port")
    ] = None,
    policy_file: Annotated[
        Path | None, typer.Option(envvar="MARGINAL_POLICY_FILE", help="Policies and prices; bundled ones by default.")
    ] = None,
    state_dir: StateDir = STATE_DIR,
    trace_exporter: Annotated[UpExporter, typer.Option(help="Where spans go.")] = UpExporter.FILE,
    otlp_endpoint: Annotated[
        str | None, typer.Option(envvar="MARGINAL_OTLP_ENDPOINT", help="Collector for --trace-exporter otlp.")
    ] = None,
    admin_listen: Annotated[
        str | None, typer.Option(help="The router's address for operators.", show_default="free port")
    ] = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="Run the demo once ready; end after it without a terminal.")
    ] = False,
    questions: Questions = None,
    limit: Limit = LIMIT,
    json: AsJson = False,
) -> None:
    """Start the two models and the router, and serve until ctrl-C.

    A tier runs its model in process, or stands in front of an engine that you run already.
    """
    named = catalogue.pair(pair)
    engines = {
        Tier.SMALL: in_front_of(
            Tier.SMALL, _given(small_model, small_endpoint, small_engine, small_engine_model, small_api_key_file)
        ),
        Tier.LARGE: in_front_of(
            Tier.LARGE, _given(large_model, large_endpoint, large_engine, large_engine_model, large_api_key_file)
        ),
    }
    plan = Plan(
        pair=Pair(small_model or named.small, large_model or named.large),
        listen=listen,
        small_listen=small_listen,
        large_listen=large_listen,
        policy_file=policy_file,
        state_dir=state_dir,
        exporter=Exporter(trace_exporter.value),
        otlp_endpoint=otlp_endpoint,
        admin_listen=admin_listen,
        small_engine=engines[Tier.SMALL],
        large_engine=engines[Tier.LARGE],
    )
    asked = demonstration.questions(questions, bundled=named.questions, limit=limit) if demo else None
    measured = demonstration.Plan(asked) if asked else None
    console, progress = Console(highlight=False), Console(stderr=True, highlight=False)
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    for tier, engine in engines.items():
        if engine is not None and (danger := risk(engine)) is not None:
            progress.print(f"warning: {of_tier(tier, danger)}", style="bold yellow", markup=False, soft_wrap=True)

    async def afterwards(target: str) -> bool:
        well = True
        if measured is not None:
            well = await demonstration.conduct(
                target, measured, state_dir, console=console, progress=progress, json=json
            )
        if interactive and not json:
            at = () if target == ROUTER else ("--target", target)
            there = () if state_dir == STATE_DIR else ("--state-dir", str(state_dir))
            console.print(what_next(at, there), highlight=False)
        return well

    services = Up(plan, console=console, progress=progress, json=json)
    well = asyncio.run(services.run(afterwards, end_after_task=demo and not interactive))
    raise typer.Exit(0 if well else 1)


def _given(
    model: str | None,
    endpoint: list[str] | None,
    engine: OwnEngine | None,
    engine_model: str | None,
    api_key_file: Path | None,
) -> Given:
    return Given(
        kind=EngineKind.EMBEDDED if engine is None else EngineKind(engine.value),
        model=model,
        endpoint=tuple(endpoint or ()),
        engine_model=engine_model,
        api_key_file=api_key_file,
    )
