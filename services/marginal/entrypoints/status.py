"""`marginal status`: how a release in Kubernetes is, or the services of `marginal up`, and what is wrong with it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from marginal.cluster import api as kubernetes
from marginal.cluster.api import Api
from marginal.cluster.port_forward import forwarded
from marginal.cluster.release import Release, Workload, find_release
from marginal.entrypoints import reaching
from marginal.entrypoints.cli_options import STATE_DIR, AsJson, StateDir
from marginal.entrypoints.running import admin_address, listed
from marginal.entrypoints.status_facts import Status
from marginal.entrypoints.status_shown import status_as_json, status_shown
from marginal.entrypoints.wording import as_json
from marginal.errors import ConfigurationError, MarginalError
from marginal.routing.overview import Overview
from marginal.routing.spending import BudgetStates
from marginal.tokens import Tier
from marginal.transport import model_servicer, router_servicer
from marginal.transport.admin import list_budgets, list_policies
from marginal.transport.router_client import wait_until_serving
from marginal.transport.scaler import demand_at
from marginal.transport.tls import ClientTls

ADMIN_PORT, SCALER_PORT = 50054, 50055
ASK_SECONDS = 5.0
AGAIN_SECONDS = 2.0
NEEDS_TLS = "it speaks TLS, say `marginal --tls-ca FILE status`, and --tls-cert and --tls-key where callers show theirs"
Look = Callable[[], Awaitable[Status]]

UP = {
    "router": ("router", router_servicer.SERVICE),
    "small-model": ("small", model_servicer.SERVICE),
    "large-model": ("large", model_servicer.SERVICE),
}

CLUSTER = "Kubernetes"
Kubeconfig = Annotated[
    Path | None,
    typer.Option(
        envvar="KUBECONFIG", help="Where the cluster is.", show_default="~/.kube/config", rich_help_panel=CLUSTER
    ),
]
Context = Annotated[
    str, typer.Option(help="A context of the kubeconfig.", show_default="its current one", rich_help_panel=CLUSTER)
]
Namespace = Annotated[
    str, typer.Option("--namespace", "-n", help="The namespace.", show_default="the context's", rich_help_panel=CLUSTER)
]
ReleaseName = Annotated[
    str, typer.Option(help="The Helm release.", show_default="the namespace's only one", rich_help_panel=CLUSTER)
]
EXAMPLES = (
    "[bold]Examples[/]\n\nmarginal status\n\nmarginal status -n llm --watch\n\n"
    "marginal status --context production -n llm --release marginal --json"
)

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command(epilog=EXAMPLES)
def status(
    kubeconfig: Kubeconfig = None,
    context: Context = "",
    namespace: Namespace = "",
    release: ReleaseName = "",
    state_dir: StateDir = STATE_DIR,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every two seconds, until ctrl-C.")] = False,
    json: AsJson = False,
) -> None:
    """Show replicas, scalers, live thresholds, spend, demand, warnings, and what is wrong in one sentence.

    Of the services of a `marginal up` when there is one, else of a release in Kubernetes, whose router is reached
    through the API server. With --watch and --json, one object a line.
    """
    local = not (context or namespace or release) and (state_dir / "services.json").exists()

    @asynccontextmanager
    async def way() -> AsyncIterator[Look]:
        if local:
            yield lambda: _local(state_dir)
            return
        async with kubernetes.opened(kubeconfig, context) as api:
            yield lambda: _in_cluster(api, namespace or api.namespace, release)

    with suppress(KeyboardInterrupt):
        asyncio.run(_show(way, watch=watch, json=json))


async def _show(way: Callable[[], AbstractAsyncContextManager[Look]], *, watch: bool, json: bool) -> None:
    console = Console(highlight=False)
    async with aclosing(_looks(way)) as seen:
        if watch and not json:
            with Live(console=console, auto_refresh=False) as live:
                async for status in seen:
                    live.update(status_shown(status), refresh=True)
        async for status in seen:
            if json:
                console.out(as_json(status_as_json(status)), highlight=False)
                console.file.flush()
            else:
                console.print(status_shown(status))
            if not watch:
                return


async def _looks(way: Callable[[], AbstractAsyncContextManager[Look]]) -> AsyncGenerator[Status, None]:
    """Looks again and again by one way, and by another once that has failed: with what credentials are by then.

    When a look fails, what was seen last comes again, with the reason. Raises MarginalError when the first fails.
    """
    last: Status | None = None
    while True:
        try:
            async with way() as look:
                while True:
                    last = await look()
                    yield last
                    await asyncio.sleep(AGAIN_SECONDS)
        except MarginalError as error:
            if last is None:
                raise
            yield replace(last, away=str(error))
        await asyncio.sleep(AGAIN_SECONDS)


async def _in_cluster(api: Api, namespace: str, name: str) -> Status:
    found = await find_release(api, namespace, name)
    overview, budgets, unreachable = await _operated(api, found)
    return Status(
        f"release {found.name} in namespace {found.namespace}",
        found.version,
        found.workloads,
        overview,
        budgets,
        await _demand(api, found),
        found.warnings,
        unreachable,
        found.unread,
    )


async def _operated(api: Api, found: Release) -> tuple[Overview | None, BudgetStates | None, str]:
    """What a router tells its operator, by a port-forward."""
    if not found.router_pod:
        return None, None, "you may not read pods" if "pods" in found.unread else "no router is ready"
    if found.tls and reaching.current().tls is None:
        return None, None, NEEDS_TLS
    service = next((one.name for one in found.workloads if one.component == "router"), None)
    if service is None:  # its Deployment is deleted, and its pods not yet
        return None, None, "the release has no router"
    async with forwarded(api, found.namespace, found.router_pod, ADMIN_PORT) as way:
        overview, budgets, unreachable = await _asked(way.address, f"{service}.{found.namespace}.svc")
        return overview, budgets, way.refused if unreachable and way.refused else unreachable


async def _asked(address: str, name: str = "") -> tuple[Overview | None, BudgetStates | None, str]:
    """`name` is whom a certificate must be for, where that is not the address and --tls-name says nothing else."""
    given = reaching.current().tls
    tls = ClientTls(given.certificates, name=given.name or name) if given else None
    overview = None
    try:
        overview = await list_policies(address, tls=tls, timeout_seconds=ASK_SECONDS)
        return overview, await list_budgets(address, tls=tls, timeout_seconds=ASK_SECONDS), ""
    except MarginalError as error:
        return overview, None, str(error)


async def _demand(api: Api, found: Release) -> dict[Tier, float]:
    """What is wanted of the tiers; nothing where the router serves no scaler."""
    if not any(one.scaler == "keda" for one in found.workloads) or not found.router_pod:
        return {}
    async with forwarded(api, found.namespace, found.router_pod, SCALER_PORT) as way:
        try:
            return {tier: await demand_at(way.address, tier, timeout_seconds=ASK_SECONDS) for tier in Tier}
        except MarginalError:
            return {}


async def _local(state_dir: Path) -> Status:
    """The services that `marginal up` wrote down. Raises ConfigurationError when it did not."""
    try:
        services = [(str(one["service"]), str(one["address"])) for one in listed(state_dir)]
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigurationError(f"{state_dir}: what `marginal up` wrote there cannot be read") from None
    known = [(*UP[name], name, address) for name, address in services if name in UP]
    ready = await asyncio.gather(*(_serves(address, service) for _, service, _, address in known))
    overview, budgets, unreachable = await _asked(admin_address(state_dir))
    workloads = [
        Workload(component, name, int(is_ready), 1)
        for (component, _, name, _), is_ready in zip(known, ready, strict=True)
    ]
    where = f"`marginal up` in {state_dir}"
    return Status(where, version("marginal"), tuple(workloads), overview, budgets, unreachable=unreachable)


async def _serves(address: str, service: str) -> bool:
    try:
        await wait_until_serving(address, service, timeout_seconds=1.0, tls=reaching.current().tls)
    except MarginalError:
        return False
    return True
