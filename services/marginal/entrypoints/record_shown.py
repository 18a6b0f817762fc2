"""One request's cost record as people read it."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from marginal.entrypoints.wording import DEGRADED, amounts, bulleted, why
from marginal.policy.deferral import Decision, Reason, Verdict
from marginal.policy.evidence import Gap
from marginal.routing.records import CANCELLED, DegradedReason, Settlement

Line = Mapping[str, Any]

SETTLEMENTS: Mapping[Settlement, str] = {
    Settlement.SETTLED: "counted to the end",
    Settlement.EXPIRED: "reckoned: nobody heard of its router for a lease; a later record may replace this one",
    Settlement.RECOVERED: "reckoned by its router, which died on it and started again",
}

SUMS = {
    "total": "total_nanos",
    "always-large": "always_large_nanos",
    "wasted": "wasted_nanos",
    "saved": "saved_nanos",
}

ATTEMPT_FIELDS = (
    "tier", "model", "outcome", "input_tokens", "cached_input_tokens", "output_tokens", "usage_source", "busy_micros",
    "cost_nanos", "seconds", "error",
)  # fmt: skip


def record_shown(line: Line) -> RenderableType:
    """Whose request it was, why it was answered by which tier, every attempt, what it came to, and its trace."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for heading in ("\ntier", "\nmodel", "\noutcome"):
        table.add_column(heading, overflow="fold")
    for heading in ("tokens\nin", "of them\ncached", "tokens\nout"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("counted\nby", no_wrap=True)
    for heading in ("\ncost", "\nseconds"):
        table.add_column(heading, justify="right", no_wrap=True)
    attempts = line["attempts"]
    costs = [*(one["cost_nanos"] for one in attempts), *(line[name] for name in SUMS.values())]
    texts = amounts(costs, line["currency"])
    for one, cost in zip(attempts, texts[: len(attempts)], strict=True):
        table.add_row(
            one["tier"],
            one["model"],
            one["outcome"],
            *(f"{one[name]:,}" for name in ("input_tokens", "cached_input_tokens", "output_tokens")),
            one.get("usage_source") or "",
            cost,
            f"{one['seconds']:.3f}",
        )
    table.add_section()
    for name, sum_of in zip(SUMS, texts[len(attempts) :], strict=True):
        table.add_row(name, *([""] * 6), sum_of, style="bold" if name == "total" else "")
    title = Text.assemble(("request ", "bold"), (line["request_id"], "bold cyan"))
    return Group(title, Text(" · ".join(_whose(line))), table, Text(), bulleted(map(Text, _remarks(line))))


def record_as_json(line: Line) -> dict[str, object]:
    """The line as it is, but for what only stores of budgets need."""
    return {name: value for name, value in line.items() if name not in ("event", "key")}


def record_as_rows(line: Line) -> list[Mapping[str, object]]:
    """An attempt a row."""
    named = {name: line[name] for name in ("request_id", "currency")}
    return [{**named, **{name: one.get(name) for name in ATTEMPT_FIELDS}} for one in line["attempts"]]


def _whose(line: Line) -> Iterator[str]:
    yield f"tenant {line['tenant']}"
    yield f"policy {line['policy']} {line['policy_version']}".rstrip()
    if line["task"]:
        yield f"task {line['task']}"
    yield datetime.fromtimestamp(line["admitted_at"], UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _remarks(line: Line) -> Iterator[str]:
    if line["decision"]:
        yield why(_decision(line["decision"]))
    if line["degraded"]:
        reason = DegradedReason(line["degraded"])
        yield f"degraded, {DEGRADED.get(reason, reason.value)}"
    if line["error"] == CANCELLED:
        yield "its caller gave it up"
    elif line["error"]:
        yield f"ended with {line['error']}"
    yield from (f"{one['tier']} failed with {one['error']}" for one in line["attempts"] if one["error"])
    yield SETTLEMENTS[Settlement(line["settlement"])] + (
        "; a shadow attempt is still under way" * bool(line.get("open"))
    )
    if line.get("price_version"):
        sources = [f"{tier} by the {source}" for tier, source in (line.get("price_sources") or {}).items()]
        yield "; ".join([f"price list {line['price_version']}", *sources])
    if line["trace_id"]:
        yield f"`marginal trace {line['trace_id']}` shows what happened when"


def _decision(fields: Line) -> Decision:
    return Decision(
        Verdict(fields["verdict"]),
        Reason(fields["reason"]),
        fields["score_name"],
        fields["score"],
        fields["threshold"],
        fields["tokens_seen"],
        censored=fields["censored"],
        bounded=fields["bounded"],
        gap=Gap(fields["evidence_gap"]) if fields["evidence_gap"] else None,
    )
