"""`marginal status` as people and programs read it."""

from collections.abc import Iterator
from dataclasses import asdict

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from marginal.cluster.release import Workload
from marginal.entrypoints.budgets_shown import budgets_as_rows
from marginal.entrypoints.policy import overview_as_json
from marginal.entrypoints.status_facts import NOTHING, Status, what_is_wrong
from marginal.entrypoints.wording import amounts, bulleted
from marginal.routing.holds import Window
from marginal.tokens import Tier

TIERS = {tier.value: tier for tier in Tier}


def status_shown(status: Status) -> RenderableType:
    """What is wrong, the tiers, the policies with their live thresholds, the money, and the latest warnings."""
    wrong = what_is_wrong(status)
    parts: list[RenderableType] = [
        Text(f"{status.where}{f' · version {status.version}' if status.version else ''}", "bold"),
        Text(f"wrong: {wrong}", "green" if wrong == NOTHING else "bold red"),
        Text(),
        _tiers(status),
    ]
    if status.overview is not None:
        parts += [Text(), _policies(status)]
    money = list(_money(status))
    if money:
        parts += [Text(), bulleted(map(Text, money))]
    if status.unreachable and status.unreachable not in wrong:
        parts += [Text(), Text(f"what the router would tell is missing: {status.unreachable}", "yellow")]
    if status.unread:
        parts += [Text(), Text(f"you may not read {', '.join(status.unread)}", "yellow")]
    if status.warnings:
        parts += [Text(), Text("latest warnings", "bold"), _warnings(status)]
    return Group(*parts)


def status_as_json(status: Status) -> dict[str, object]:
    """The same as plain values; money in nano-units, `null` for what could not be asked."""
    return {
        "where": status.where,
        "version": status.version or None,
        "wrong": what_is_wrong(status),
        "tiers": [
            asdict(one)
            | {"scaler_ails": one.scaler_ails or None, "pods_ail": one.pods_ail or None, "demand": _demand(status, one)}
            for one in status.workloads
        ],
        "policies": overview_as_json(status.overview) if status.overview else None,
        "budgets": budgets_as_rows(status.budgets) if status.budgets else None,
        "warnings": [asdict(one) for one in status.warnings],
        "unreachable": status.unreachable or None,
        "unread": list(status.unread),
        "away": status.away or None,
    }


def _tiers(status: Status) -> Table:
    table = _table()
    table.add_column("component", no_wrap=True)
    for heading in ("ready", "wanted"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("scaled by", no_wrap=True)
    table.add_column("demand", justify="right", no_wrap=True)
    for one in status.workloads:
        demand = _demand(status, one)
        style = "" if one.ready >= one.desired else "bold yellow" if one.ready else "bold red"
        table.add_row(
            one.component,
            Text(str(one.ready), style),
            str(one.desired),
            _scaler(one),
            "" if demand is None else f"{demand:.1f}",
        )
    return table


def _scaler(one: Workload) -> str:
    return one.scaler if one.most is None else f"{one.scaler}, {one.least} to {one.most}"


def _demand(status: Status, one: Workload) -> float | None:
    return status.demand.get(TIERS[one.component]) if one.component in TIERS else None


def _policies(status: Status) -> Table:
    table = _table()
    table.add_column("policy", no_wrap=True)
    table.add_column("tenant", overflow="fold")
    for heading in ("threshold", "requests", "deferred", "degraded", "cost per 1,000"):
        table.add_column(heading, justify="right", no_wrap=True)
    assert status.overview is not None  # noqa: S101 (the caller looked)
    for policy in status.overview.policies:
        for criterion in policy.criteria:
            name = f"{policy.name} · {criterion.task}" if criterion.task else f"{policy.name} {policy.version}"
            if not criterion.tenants:
                table.add_row(name, "", f"{criterion.start:.4g}", "0", "", "", "")
            for tenant in criterion.tenants:
                tally = tenant.tally
                [cost] = amounts([1_000 * tally.spend_nanos], status.overview.currency, significant=3)
                shares = f"{tally.deferral_share:.1%}", f"{tally.degraded_share:.1%}"
                table.add_row(name, tenant.tenant, f"{tenant.threshold:.4g}", f"{tenant.requests:,}", *shares, cost)
                name = ""
    return table


def _money(status: Status) -> Iterator[str]:
    """What all tenants spent, window by window."""
    if status.budgets is None:
        return
    for window in Window:
        own = [one for one in status.budgets.states if one.window is window]
        if own:
            spent, held = (sum(getattr(one, name) for one in own) for name in ("spent_nanos", "held_nanos"))
            money = amounts([spent, held], status.budgets.currency, significant=3)
            yield f"this {window.value}: {money[0]} spent, {money[1]} held for requests under way"


def _warnings(status: Status) -> Table:
    table = _table(headed=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for one in status.warnings:
        times = f" ({one.times} times)" if one.times > 1 else ""
        table.add_row(one.at, f"{one.about}: {one.reason}{times}, {one.message}")
    return table


def _table(*, headed: bool = True) -> Table:
    return Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold", show_header=headed)
