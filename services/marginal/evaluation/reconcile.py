"""Compares two accounts of the same tokens: the routers' cost records and the model services' own logs.

The former are `cost_record` lines of routers' logs or journals (`request_id`, `attempts` with `tier`, `input_tokens`,
`cached_input_tokens`, `output_tokens`, `cost_nanos`), the latter `generation` lines (`tier` and the same token counts).
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from marginal.evaluation.service_logs import COST_RECORD, GENERATION, moment
from marginal.pricing import Price
from marginal.routing.records import Settlement
from marginal.tokens import Tier, Usage

NOTHING = Usage()
"""What a generation used that was left or failed before it began: it costs nothing, not even the price of a call."""

COUNTED = "counted"

SETTLED = Settlement.SETTLED.value


@dataclass(frozen=True, slots=True)
class TierAccount:
    """One tier by both accounts; money in nano-units. Differences are records minus logs.

    `requests` have at least one attempt of this tier, `charged_nanos` is what their records say, `priced_nanos` what
    the logged generations cost at the tier's price. A tier's time is known to its routers only: where it is paid, it is
    the records' in both.
    """

    tier: Tier
    requests: int
    attempts: int
    generations: int
    recorded: Usage
    logged: Usage
    charged_nanos: int
    priced_nanos: int

    @property
    def input_difference(self) -> int:
        return self.recorded.input_tokens - self.logged.input_tokens

    @property
    def cached_input_difference(self) -> int:
        return self.recorded.cached_input_tokens - self.logged.cached_input_tokens

    @property
    def output_difference(self) -> int:
        return self.recorded.output_tokens - self.logged.output_tokens

    @property
    def nanos_difference(self) -> int:
        return self.charged_nanos - self.priced_nanos

    @property
    def balanced(self) -> bool:
        """Whether both accounts say the same."""
        return not (
            self.input_difference or self.cached_input_difference or self.output_difference or self.nanos_difference
        )


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """Both accounts: how many records there are, how many of them repeat a request's id, and each tier.

    `passed_over` records are of requests that were admitted before the logs begin, and `deleted` generations those
    whose records are not kept any more. `reckoned` records are of requests that died with their router: what was
    charged for tokens that nobody counted, `reckoned_nanos`, is in no tier's account.
    `counted` attempts have a usage of our own count, since nobody could be asked: they alone have cause to differ.
    """

    records: int
    repeated: int
    tiers: tuple[TierAccount, ...]
    passed_over: int = 0
    reckoned: int = 0
    reckoned_nanos: int = 0
    counted: int = 0
    deleted: int = 0

    @property
    def charged_nanos(self) -> int:
        """Sum of all records."""
        return sum(account.charged_nanos for account in self.tiers)

    @property
    def nanos_difference(self) -> int:
        """Records minus logs at their price."""
        return sum(account.nanos_difference for account in self.tiers)

    @property
    def balanced(self) -> bool:
        """Whether every request has one record and every tier's accounts say the same."""
        return not self.repeated and all(account.balanced for account in self.tiers)


def reconcile(
    events: Iterable[Mapping[str, Any]],
    prices: Mapping[Tier, Price],
    *,
    since: float | None = None,
    deleted_until: float | None = None,
) -> Reconciliation:
    """Adds both accounts up, tier by tier; `since` is when the logs begin, in seconds since the Unix epoch.

    Records may be deleted up to `deleted_until`: generations from before then are passed over whose trace has none.
    Raises KeyError for an event that lacks one of its fields.
    """
    records: list[Mapping[str, Any]] = []
    generations: list[Mapping[str, Any]] = []
    passed_over = 0
    for event in events:
        if event["event"] == GENERATION:
            if _asked_by_a_router(event):
                generations.append(event)
        elif event["event"] == COST_RECORD:
            if since is not None and event["admitted_at"] < since:
                passed_over += 1
            else:
                records.append(event)
    every = len(generations)
    if deleted_until is not None:
        traces = {record.get("trace_id") for record in records}
        generations = [
            one for one in generations if one.get("trace_id") in traces or not _is_before(one, deleted_until)
        ]
    ids = Counter(record["request_id"] for record in records)
    reckoned = [nanos for record in records if (nanos := _reckoned(record)) is not None]
    return Reconciliation(
        records=len(records),
        repeated=sum(times - 1 for times in ids.values()),
        tiers=tuple(_account(tier, records, generations, price) for tier, price in prices.items()),
        passed_over=passed_over,
        reckoned=len(reckoned),
        reckoned_nanos=sum(reckoned),
        counted=sum(_is_counted(attempt) for record in records for attempt in record["attempts"]),
        deleted=every - len(generations),
    )


def _reckoned(record: Mapping[str, Any]) -> int | None:
    """What was charged beyond the attempts that were counted; None for a record that was counted to the end."""
    if record.get("settlement", SETTLED) == SETTLED:
        return None
    return int(record["total_nanos"]) - sum(int(attempt["cost_nanos"]) for attempt in record["attempts"])


def _is_before(generation: Mapping[str, Any], until: float) -> bool:
    logged_at = moment(generation.get("timestamp"))
    return logged_at is not None and logged_at < until


def _is_counted(attempt: Mapping[str, Any]) -> bool:
    """Whether its usage is the router's own count."""
    return bool(attempt.get("usage_source") == COUNTED)


def _asked_by_a_router(generation: Mapping[str, Any]) -> bool:
    """Whether a cost record is owed for it: routers send a tenant along, `marginal record` and others do not."""
    return generation.get("tenant", "") is not None


def table(reconciliation: Reconciliation) -> RenderableType:
    """Both accounts side by side, a row for each thing that is counted, and the conclusion."""
    drawn = Table(
        title="cost records against the model services' logs", title_justify="left", title_style="bold",
        box=None, padding=(0, 2, 0, 0), pad_edge=False,
    )  # fmt: skip
    for heading in ("tier", "counted"):
        drawn.add_column(heading, no_wrap=True)
    for heading in ("cost records", "model logs", "difference"):
        drawn.add_column(heading, justify="right", no_wrap=True)
    for account in reconciliation.tiers:
        recorded, logged = account.recorded, account.logged
        rows = (
            ("attempts, generations", account.attempts, account.generations),
            ("tokens in", recorded.input_tokens, logged.input_tokens),
            ("of them cached", recorded.cached_input_tokens, logged.cached_input_tokens),
            ("tokens out", recorded.output_tokens, logged.output_tokens),
            ("nano-units", account.charged_nanos, account.priced_nanos),
        )
        for counted, ours, theirs in rows:
            style = "" if ours == theirs else "bold red"
            drawn.add_row(account.tier.value, counted, f"{ours:,}", f"{theirs:,}", f"{ours - theirs:,}", style=style)
    return Group(drawn, *map(Text, _conclusions(reconciliation)))


def as_json(reconciliation: Reconciliation) -> dict[str, Any]:
    """Both accounts as JSON values."""
    return {
        "records": reconciliation.records,
        "repeated": reconciliation.repeated,
        "passed_over": reconciliation.passed_over,
        "reckoned": reconciliation.reckoned,
        "reckoned_nanos": reconciliation.reckoned_nanos,
        "counted": reconciliation.counted,
        "deleted": reconciliation.deleted,
        "balanced": reconciliation.balanced,
        "charged_nanos": reconciliation.charged_nanos,
        "nanos_difference": reconciliation.nanos_difference,
        "tiers": {
            account.tier.value: {
                "requests": account.requests,
                "attempts": account.attempts,
                "generations": account.generations,
                "recorded": _tokens(account.recorded),
                "logged": _tokens(account.logged),
                "charged_nanos": account.charged_nanos,
                "priced_nanos": account.priced_nanos,
                "input_difference": account.input_difference,
                "cached_input_difference": account.cached_input_difference,
                "output_difference": account.output_difference,
                "nanos_difference": account.nanos_difference,
            }
            for account in reconciliation.tiers
        },
    }


def _account(
    tier: Tier, records: list[Mapping[str, Any]], generations: list[Mapping[str, Any]], price: Price
) -> TierAccount:
    mine = [[attempt for attempt in record["attempts"] if attempt["tier"] == tier.value] for record in records]
    attempts = [attempt for some in mine for attempt in some]
    logged = [_usage(generation) for generation in generations if generation["tier"] == tier.value]
    return TierAccount(
        tier=tier,
        requests=sum(1 for some in mine if some),
        attempts=len(attempts),
        generations=len(logged),
        recorded=_sum(map(_usage, attempts)),
        logged=_sum(logged),
        charged_nanos=sum(attempt["cost_nanos"] for attempt in attempts),
        priced_nanos=sum(price.cost(usage) for usage in logged if usage != NOTHING)
        + sum(_time_nanos(attempt, price) for attempt in attempts),
    )


def _time_nanos(attempt: Mapping[str, Any], price: Price) -> int:
    usage, busy_micros = _usage(attempt), attempt.get("busy_micros", 0)
    return price.cost(usage, busy_micros) - price.cost(usage)


def _tokens(usage: Usage) -> dict[str, int]:
    return {
        "input_tokens": usage.input_tokens,
        "cached_input_tokens": usage.cached_input_tokens,
        "output_tokens": usage.output_tokens,
    }


def _usage(entry: Mapping[str, Any]) -> Usage:
    return Usage(entry["input_tokens"], entry["output_tokens"], entry["cached_input_tokens"])


def _sum(usages: Iterable[Usage]) -> Usage:
    total = Usage()
    for usage in usages:
        total = Usage(
            total.input_tokens + usage.input_tokens,
            total.output_tokens + usage.output_tokens,
            total.cached_input_tokens + usage.cached_input_tokens,
        )
    return total


def _conclusions(reconciliation: Reconciliation) -> Iterator[str]:
    charged = f"{reconciliation.records:,} records, {reconciliation.charged_nanos:,} nano-units"
    if reconciliation.balanced:
        yield f"{charged}: both accounts agree, difference 0"
    else:
        yield (
            f"{charged}: the accounts differ by {reconciliation.nanos_difference:,} nano-units,"
            f" {reconciliation.repeated:,} records repeat a request"
        )
    if reconciliation.passed_over:
        yield f"{reconciliation.passed_over:,} records were passed over: they are from before the logs begin"
    if reconciliation.deleted:
        yield f"{reconciliation.deleted:,} generations were passed over: the records of their requests are deleted"
    if reconciliation.counted and not reconciliation.balanced:
        yield f"{reconciliation.counted:,} attempts are by a count of our own: nobody could be asked what they used"
    if reconciliation.reckoned:
        yield (
            f"{reconciliation.reckoned:,} requests died with their router: {reconciliation.reckoned_nanos:,} nano-units"
            " were charged for tokens that only the logs may have"
        )
