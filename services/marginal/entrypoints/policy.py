"""`marginal policy`: checks policy files, and shows what is in force in a running router with what it has learnt."""

import asyncio
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from marginal.entrypoints import reaching
from marginal.entrypoints.cli_options import STATE_DIR, AsJson, StateDir
from marginal.entrypoints.price_words import prices_as_json, prices_in_words
from marginal.entrypoints.running import admin_address
from marginal.entrypoints.wording import amounts, as_json, bulleted
from marginal.errors import ConfigurationError, InvalidRequest, ModelFault
from marginal.policy.means import LATEST
from marginal.routing.overview import CriterionOverview, Overview, PolicyOverview, TenantOverview
from marginal.routing.policies import Policies
from marginal.routing.requests import Mode
from marginal.settings import read_policies
from marginal.transport.admin import list_policies

app = typer.Typer(no_args_is_help=True, help="Check policy files, and show what a running router has in force.")

MODES = {Mode.AUTO: "auto", Mode.SHADOW: "shadow", Mode.SMALL_ONLY: "SMALL ONLY", Mode.LARGE_ONLY: "LARGE ONLY"}


@app.command(epilog="[bold]Examples[/]\n\nmarginal policy check policies.toml\n\nmarginal policy check *.toml --json")
def check(
    files: Annotated[list[Path], typer.Argument(help="Policy files.", show_default=False)], json: AsJson = False
) -> None:
    """Check policy files as a router would; exit code 1 when one would be refused."""
    found = [(path, *_checked(path)) for path in files]
    console = Console(highlight=False, soft_wrap=True)
    if json:
        console.out(as_json({"files": [_check_as_json(*one) for one in found]}), highlight=False)
    else:
        for path, policies, problem in found:
            console.print(Text(problem, "red") if policies is None else _accepted(path, policies))
    raise typer.Exit(0 if all(policies for _, policies, _ in found) else 1)


@app.command(
    epilog="[bold]Examples[/]\n\nmarginal policy show\n\nmarginal policy show default --json\n\n"
    "marginal policy show --admin 127.0.0.1:50054"
)
def show(
    policy: Annotated[str, typer.Argument(help="Only this policy.", show_default="all")] = "",
    admin: Annotated[
        str | None,
        typer.Option(
            envvar="MARGINAL_ADMIN", help="The router's admin address.", show_default="that of `marginal up`, or :50054"
        ),
    ] = None,
    state_dir: StateDir = STATE_DIR,
    json: AsJson = False,
) -> None:
    """Show the policies in force: threshold now, deferral share, spend per request."""
    address = admin or admin_address(state_dir)
    try:
        seen = asyncio.run(list_policies(address, policy=policy, tls=reaching.current().tls))
    except ModelFault:
        raise ConfigurationError(
            f"no router answers operators at {address}: start one with `marginal up`, or name another with --admin"
        ) from None
    if policy and not seen.policies:
        raise InvalidRequest("policy", f"there is no policy {policy!r} in force, see `marginal policy show`")
    console = Console(highlight=False)
    if json:
        console.out(as_json(overview_as_json(seen)), highlight=False)
    else:
        console.print(overview_shown(seen))


def overview_as_json(seen: Overview) -> dict[str, object]:
    """What is in force as plain values; money in nano-units."""
    return {
        "source": seen.source.name,
        "loaded_at": seen.source.loaded_at,
        "refused": seen.source.refused or None,
        "default": seen.default,
        "currency": seen.currency or None,
        "policies": [_policy_as_json(policy) for policy in seen.policies],
    }


def overview_shown(seen: Overview) -> RenderableType:
    """The same for people: a line per policy, task and tenant, and what each rule does in words."""
    since = datetime.fromtimestamp(seen.source.loaded_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    parts: list[RenderableType] = [Text(f"policies: {seen.source.name}, in force since {since}", "bold")]
    if seen.source.refused:
        parts.append(Text(f"REFUSED, the policies before are still in force: {seen.source.refused}", "bold red"))
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("\npolicy", no_wrap=True)
    table.add_column("\nscore", no_wrap=True)
    for heading in ("\nwindow", "\nthreshold", "\nrequests", "\ndeferred", "cost per\n1,000", "\nsaved"):
        table.add_column(heading, justify="right", no_wrap=True)
    for policy in seen.policies:
        for criterion in policy.criteria:
            _add_rows(table, policy, criterion, seen)
    remarks = [*map(Text, _rules(seen)), *(Text(line, "dim") for line in _remarks(seen))]
    return Group(*parts, table, Text(), bulleted(remarks))


def _add_rows(table: Table, policy: PolicyOverview, criterion: CriterionOverview, seen: Overview) -> None:
    name = f"  task {criterion.task}" if criterion.task else policy.name
    window = str(criterion.window) if criterion.window else "all"
    if not criterion.tenants:
        table.add_row(name, criterion.score, window, f"{criterion.start:.4g}", "0", "", "", "")
    for tenant in criterion.tenants:
        several = len(criterion.tenants) > 1
        score = f"  {tenant.tenant}" if several else criterion.score
        table.add_row(name, score, window, *_figures(tenant, seen.currency))
        name = ""


def _figures(tenant: TenantOverview, currency: str) -> tuple[str, ...]:
    tally = tenant.tally
    [cost] = amounts([1_000 * tally.spend_nanos], currency, significant=3)
    saved = 1.0 - tally.spend_nanos / tally.always_large_nanos if tally.always_large_nanos else 0.0
    return f"{tenant.threshold:.4g}", f"{tenant.requests:,}", f"{tally.deferral_share:.1%}", cost, f"{saved:.0%}"


def _rules(seen: Overview) -> Iterator[str]:
    for policy in seen.policies:
        mode = "" if policy.mode is Mode.AUTO else f" (mode {MODES[policy.mode]})"
        for criterion in policy.criteria:
            task = f", task {criterion.task}" if criterion.task else ""
            default = ", the default" if policy.name == seen.default and not task else ""
            yield f"{policy.name} {policy.version}{task}{default}: {criterion.rule}, {criterion.says}{mode}"


def _remarks(seen: Overview) -> list[str]:
    lines = ["shares and costs are over the latest 500 requests of each; saved is against always-large"]
    for policy in seen.policies:
        lines += _samplings(policy)
        shadow = policy.shadow
        if shadow.share or shadow.answered or shadow.left_out:
            lines.append(
                f"{policy.name}: {shadow.share:.1%} of kept answers shadowed; {shadow.agreed} of {shadow.answered}"
                f" agreed, {shadow.left_out} left out"
            )
    return lines


def _samplings(policy: PolicyOverview) -> Iterator[str]:
    """At which sampling each threshold was found, and how many of the latest requests had another."""
    for criterion in policy.criteria:
        at = criterion.calibrated_at
        if at is None:
            continue
        others = sum(
            round(min(tenant.requests, LATEST) * tenant.tally.other_sampling_share) for tenant in criterion.tenants
        )
        task, top_p = f", task {criterion.task}" if criterion.task else "", f", top_p {at.top_p:g}" * (at.top_p < 1.0)
        said = f"{policy.name}{task}: calibrated at temperature {at.temperature:g}{top_p}"
        yield f"{said}; {others:,} of the latest requests had another sampling" if others else said


def _policy_as_json(policy: PolicyOverview) -> dict[str, object]:
    shadow = policy.shadow
    return {
        "name": policy.name,
        "version": policy.version,
        "mode": policy.mode.value,
        "criteria": [_criterion_as_json(criterion) for criterion in policy.criteria],
        "shadow": {
            "share": shadow.share,
            "answered": shadow.answered,
            "agreed": shadow.agreed,
            "left_out": shadow.left_out,
        },
    }


def _criterion_as_json(criterion: CriterionOverview) -> dict[str, object]:
    return {
        "task": criterion.task or None,
        "score": criterion.score,
        "window": criterion.window,
        "rule": criterion.rule,
        "says": criterion.says,
        "start": criterion.start,
        "calibrated_at": asdict(criterion.calibrated_at) if criterion.calibrated_at else None,
        "tenants": [
            {
                "tenant": tenant.tenant,
                "threshold": tenant.threshold,
                "requests": tenant.requests,
                "lessons": tenant.lessons,
                "deferral_share": tenant.tally.deferral_share,
                "degraded_share": tenant.tally.degraded_share,
                "other_sampling_share": tenant.tally.other_sampling_share,
                "spend_nanos_per_request": tenant.tally.spend_nanos,
                "always_large_nanos_per_request": tenant.tally.always_large_nanos,
            }
            for tenant in criterion.tenants
        ],
    }


def _checked(path: Path) -> tuple[Policies | None, str]:
    try:
        return read_policies(path), ""
    except ConfigurationError as error:
        return None, str(error)


def _accepted(path: Path, policies: Policies) -> RenderableType:
    lines = [Text(f"{path}: good, {len(policies.by_name)} policies, default {policies.default}", "green")]
    for policy in policies.by_name.values():
        criteria = [("", policy.criterion), *policy.tasks.items()]
        lines += [
            Text(f"  {policy.name}{f' · task {task}' if task else ''}: {one.score}, {one.rule.name}, {one.rule.says}")
            for task, one in criteria
        ]
    lines += [Text(f"  {line}") for line in prices_in_words(policies.by_name[policies.default])]
    return Group(*lines)


def _check_as_json(path: Path, policies: Policies | None, problem: str) -> dict[str, object]:
    names = {name: policy.version for name, policy in policies.by_name.items()} if policies else {}
    return {
        "file": str(path),
        "good": policies is not None,
        "problem": problem or None,
        "policies": names,
        "prices": prices_as_json(policies.by_name[policies.default]) if policies else None,
    }
