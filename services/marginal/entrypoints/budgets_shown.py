"""What tenants have spent and may spend, as people and programs read it."""

from collections.abc import Mapping, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from marginal.entrypoints.costs_shown import NAME, bar
from marginal.entrypoints.wording import amounts
from marginal.routing.spending import BudgetState, BudgetStates

NEARLY_SPENT = 0.9


def budgets_shown(budgets: BudgetStates) -> RenderableType:
    """A row per tenant and window: what is spent, held and left, and when it begins anew."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    longest = max(len(one.tenant) for one in budgets.states)
    table.add_column("tenant", overflow="fold", min_width=min(longest, NAME))
    table.add_column("window", no_wrap=True)
    for heading in ("spent", "held", "limit"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("used", no_wrap=True)
    table.add_column("resets in", justify="right", no_wrap=True)
    named = ""
    for one in budgets.states:
        name, named = one.tenant if one.tenant != named else "", one.tenant
        money = amounts([one.spent_nanos, one.held_nanos, one.limit_nanos or 0], budgets.currency, significant=3)
        if one.limit_nanos is None:
            money[-1] = "none"
        table.add_row(name, one.window.value, *money, _used(one), _span(one.resets_seconds))
    return table


def budgets_as_rows(budgets: BudgetStates) -> Sequence[Mapping[str, object]]:
    """The same as plain values; money in nano-units."""
    return [
        {
            "tenant": one.tenant,
            "window": one.window.value,
            "period": one.period,
            "currency": budgets.currency,
            "spent_nanos": one.spent_nanos,
            "held_nanos": one.held_nanos,
            "limit_nanos": one.limit_nanos,
            "used_share": one.used_share,
            "resets_seconds": round(one.resets_seconds, 3),
        }
        for one in budgets.states
    ]


def _used(one: BudgetState) -> Text:
    if one.used_share is None:
        return Text()
    return bar(one.used_share, full="red" if one.used_share >= NEARLY_SPENT else "green")


def _span(seconds: float) -> str:
    minutes = int(seconds // 60)
    days, hours = divmod(minutes // 60, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes % 60:02} min" if hours else f"{minutes} min"
