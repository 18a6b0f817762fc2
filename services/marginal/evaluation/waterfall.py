"""Draws a trace in the terminal: the tree of its spans, where and when they ran, and what they say."""

from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from marginal.evaluation.traces import Node, Span, Trace

# The attributes that are drawn, as telemetry/names.py has them.
TIER = "marginal.tier"
OUTCOME = "marginal.attempt.outcome"
VERDICT = "marginal.verdict"
REASON = "marginal.reason"
SCORE_NAME = "marginal.score.name"
SCORE = "marginal.score"
THRESHOLD = "marginal.threshold"
TOKENS_SEEN = "marginal.tokens_seen"
CENSORED = "marginal.censored"
DEGRADED = "marginal.degraded"
COST_NANOS = "marginal.cost.nanos"
COST_TOTAL_NANOS = "marginal.cost.total_nanos"
CURRENCY = "gen_ai.usage.cost.currency"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
FINISH_REASONS = "gen_ai.response.finish_reasons"
STATUS_CODE = "rpc.response.status_code"
ERROR_TYPE = "error.type"

BAR_WIDTH = 16
WIDE = 118
"""Columns from which there is room for the bars."""
NAME_WIDTH = 24
KIND_STYLES = {"server": "bold cyan", "client": "blue", "internal": "magenta"}


@dataclass(frozen=True, slots=True)
class Waterfall:
    """A table with the tree of spans in its first column, to be printed with rich; narrow terminals go without bars."""

    trace: Trace

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        nodes = self.trace.nodes
        services = len({node.span.service for node in nodes})
        took = f"{self.trace.milliseconds:.1f} ms"
        summary = f" · {_count(len(nodes), 'span')} in {_count(services, 'service')} · {took}"
        yield Text.assemble("trace ", (self.trace.trace_id, "bold"), summary)
        yield self._table(bars=options.max_width >= WIDE)

    def _table(self, *, bars: bool) -> Table:
        table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
        for heading in ("span", "service"):
            table.add_column(heading, no_wrap=True)
        for heading in ("start", "ms"):
            table.add_column(heading, justify="right", no_wrap=True)
        if bars:
            table.add_column("", no_wrap=True)
        table.add_column("what happened", min_width=24)
        for root in self.trace.roots:
            _add_rows(table, self.trace, root, lead="", branch="", bars=bars)
        return table


def _add_rows(table: Table, trace: Trace, node: Node, *, lead: str, branch: str, bars: bool) -> None:
    span = node.span
    table.add_row(
        Text.assemble((lead + branch, "dim"), (_short(span.name), KIND_STYLES.get(span.kind, ""))),
        Text(_printable(span.service).removeprefix("marginal-")),
        f"{trace.offset_milliseconds(span):.1f}",
        f"{span.milliseconds:.1f}",
        *((_bar(trace, span),) if bars else ()),
        _story(trace, span),
    )
    lead += {"": "", "├─ ": "│  ", "└─ ": "   "}[branch]
    for child in node.children:
        _add_rows(table, trace, child, lead=lead, branch="└─ " if child is node.children[-1] else "├─ ", bars=bars)


def _bar(trace: Trace, span: Span) -> Text:
    """When in the trace the span ran, drawn to scale."""
    scale = BAR_WIDTH / max(trace.milliseconds, 1e-9)
    start = min(int(trace.offset_milliseconds(span) * scale), BAR_WIDTH - 1)
    length = max(1, min(round(span.milliseconds * scale), BAR_WIDTH - start))
    bar = " " * start + "━" * length + " " * (BAR_WIDTH - start - length)
    return Text(bar, style="red" if span.status == "error" else "green")


def _story(trace: Trace, span: Span) -> Text:
    """What a span's attributes say, in words."""
    parts = [part for part in (_decision(span), _attempt(span), _call(span), _cost(trace, span)) if part]
    text = Text(_printable(", ".join(parts)))
    if span.status == "error":
        text.append(
            f"{' ' if parts else ''}error {_printable(str(span.attributes.get(ERROR_TYPE, '')))}", style="bold red"
        )
    return text


def _decision(span: Span) -> str:
    said = span.attributes
    if VERDICT not in said:
        return ""
    verdict, score, threshold = said[VERDICT], said.get(SCORE), said.get(THRESHOLD)
    words = f"{str(verdict).upper()}: {said.get(REASON)}"
    if isinstance(score, int | float) and isinstance(threshold, int | float):
        bound = {"defer": "≤", "keep": "≥"}.get(str(verdict), "") if said.get(CENSORED) else ""
        relation = "<" if score < threshold else "≥"
        compared = f"{said.get(SCORE_NAME)} {bound}{score:.3f} {relation} {threshold:.3f}"
        words = f"{str(verdict).upper()}: {compared} after {_count(said.get(TOKENS_SEEN, 0), 'token')}"
    return f"{words}, degraded: {said[DEGRADED]}" if DEGRADED in said else words


def _attempt(span: Span) -> str:
    said = span.attributes
    if INPUT_TOKENS not in said:
        return ""
    ending = said.get(OUTCOME) or "/".join(said.get(FINISH_REASONS, ())) or "cut"
    return f"{said.get(TIER)} {ending}, {said[INPUT_TOKENS]} in, {said.get(OUTPUT_TOKENS)} out"


def _call(span: Span) -> str:
    code = span.attributes.get(STATUS_CODE)
    return "" if code is None or code == span.attributes.get(ERROR_TYPE) or VERDICT in span.attributes else str(code)


def _cost(trace: Trace, span: Span) -> str:
    nanos = span.attributes.get(COST_TOTAL_NANOS, span.attributes.get(COST_NANOS))
    if not isinstance(nanos, int):
        return ""
    currencies = (node.span.attributes.get(CURRENCY) for node in trace.nodes)
    return f"{nanos:,} nano-{next((str(currency) for currency in currencies if currency), 'units')}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _short(name: str) -> str:
    """A span's name: that of a call without its package, a long one (a model named by its file) without its middle."""
    name = _printable(name)
    if "/" in name and " " not in name:
        name = name.rpartition(".")[2].replace("Service/", ".")
    half = NAME_WIDTH // 2
    return name if len(name) <= NAME_WIDTH else f"{name[:half]}…{name[-half + 1 :]}"


def _printable(text: str) -> str:
    """Text that cannot move a terminal's cursor."""
    return "".join(character if character.isprintable() else "�" for character in text)
