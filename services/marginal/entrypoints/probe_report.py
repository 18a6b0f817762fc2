"""What a probe found, as a table with a verdict for each tier, or as plain values."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from marginal.backends.engine_facts import Dialect, Recognised
from marginal.backends.engine_habits import Counting, Stop, Usage
from marginal.entrypoints.probe_advice import Shortfall, remedy
from marginal.entrypoints.wording import printable
from marginal.policy.evidence import MOST_ALTERNATIVES, NEAR_DUPLICATE_DEPTH
from marginal.routing.evidence import Lack
from marginal.routing.probing import Findings
from marginal.tokens import Tier

HONOURED_MS = 1_000.0
"""A cancel that takes longer saves nothing on an answer of the usual length."""

GROUPED = 1.5
"""Mean tokens of an event from which an engine groups them: a verdict then falls later than its token."""

GOOD, BAD, NEITHER = "✓", "✗", "–"  # noqa: RUF001 (a dash is meant)
STYLES = {GOOD: "green", BAD: "red", NEITHER: "dim"}
SERVICE = "Marginal model service"

_BROKEN = {
    Lack.NOT_FINITE: "one is not finite",
    Lack.ABOVE_ZERO: "one is above 0",
    Lack.SUM: "probabilities sum to more than 1",
}
_COUNTED = {
    Counting.EVERY_CHUNK: "by the engine, in every chunk",
    Counting.AT_THE_END: "by the engine, at the end",
    Counting.NEVER: "not by the engine",
}


@dataclass(frozen=True, slots=True)
class Seen:
    """One line of the table: what was looked at, what was seen, whether that is fine, and what it lacks."""

    what: str
    seen: str
    fine: str
    lacks: Shortfall | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """A probe of one engine or model service; `engine` None is a model service, which hides its engine.

    `target` is host and port only.
    """

    target: str
    kind: str
    route: str | None
    findings: Findings
    engine: Recognised | None = None
    usage: Usage | None = None
    stop: Stop | None = None

    @property
    def dialect(self) -> Dialect:
        """The engine's, unknown behind a model service."""
        return self.engine.dialect if self.engine else Dialect.UNKNOWN

    def unfit(self, tier: Tier) -> str | None:
        """Why it cannot be a tier; None when it can."""
        if self.findings.fault is not None:
            return self.findings.fault
        if not self.findings.answers:
            return "it answers without any text"
        if tier is Tier.LARGE:
            return None
        if not self.findings.evidence.proven:
            return self.findings.evidence.shortfall
        return Shortfall.DEAF.value if self.stop is not None and _deaf(self.stop) else None

    @property
    def together(self) -> tuple[int, float]:
        """Tokens that come in one event, the most and the mean; of a model service in one chunk as it arrived."""
        sizes = self.usage.events if self.usage else ()
        return (max(sizes), fmean(sizes)) if sizes else (self.findings.largest_chunk, self.findings.mean_chunk)

    @property
    def lines(self) -> tuple[Seen, ...]:
        """The table's lines."""
        found, described = self.findings, self.findings.description
        reachable = Seen("reachable", self.target, GOOD)
        if found.fault is not None:
            reachable = Seen("answers", found.fault, BAD, Shortfall.UNREACHABLE)
        name = Seen("model", printable(described.name), GOOD) if described else Seen("model", "not told", NEITHER)
        lines = [reachable, name]
        if described:
            lines.append(Seen("context", f"{described.context_tokens:,} tokens", GOOD))
        lines.append(Seen("dialect", self._dialect(), NEITHER if self.dialect is Dialect.UNKNOWN else GOOD))
        if found.answers:
            lines += [*self._evidence(), *self._behaviour()]
        return tuple(lines)

    @property
    def remedies(self) -> tuple[tuple[Shortfall, str | None], ...]:
        """Every shortfall once, with what fixes it."""
        lacking = dict.fromkeys(line.lacks for line in self.lines if line.lacks is not None)
        return tuple((one, remedy(one, self.dialect)) for one in lacking)

    def _dialect(self) -> str:
        if self.engine is None:
            return SERVICE
        if self.engine.dialect is Dialect.UNKNOWN:
            return "none that is known"
        version = f" {self.engine.version}" if self.engine.version else ""
        return f"{self.engine.dialect.value}{version}, guessed from {self.engine.sign}"

    def _evidence(self) -> Iterator[Seen]:
        found = self.findings
        if found.lack is Lack.MISSING:
            yield Seen("log-probabilities", "missing", BAD, Shortfall.NO_LOGPROBS)
            return
        yield Seen("log-probabilities", "streamed with every token", GOOD)
        yield self._alternatives()
        if found.lack in _BROKEN:
            yield Seen("their values", _BROKEN[found.lack], BAD, Shortfall.IMPROPER)
            return
        yield Seen("their values", "finite, at most 0, their probabilities sum to at most 1", GOOD)
        before = found.evidence.before_sampling
        if before is None:
            yield Seen("taken", "before or after sampling: cannot be told", NEITHER)
        elif before:
            yield Seen("taken", "before sampling: no temperature moves them", GOOD)
        else:
            yield Seen("taken", "after sampling: a temperature moves them", NEITHER, Shortfall.AFTER_SAMPLING)

    def _alternatives(self) -> Seen:
        count = self.findings.alternatives
        seen = f"{count} of {MOST_ALTERNATIVES} asked for"
        if self.findings.lack is Lack.FEW:
            return Seen("alternatives", seen, BAD, Shortfall.FEW)
        fine = GOOD if count >= NEAR_DUPLICATE_DEPTH else NEITHER
        return Seen("alternatives", seen, fine, Shortfall.FEWER if count < MOST_ALTERNATIVES else None)

    def _behaviour(self) -> Iterator[Seen]:
        found = self.findings
        largest, mean = self.together
        yield Seen(
            "tokens together",
            f"{largest} at most, {mean:.2f} on average",
            GOOD if mean < GROUPED else NEITHER,
        )
        if self.engine is not None:
            yield self._usage()
            yield self._cached()
        if self.stop is not None:
            yield _stopping(self.stop)
        if found.first_token_ms is not None:
            yield Seen("first token", f"{found.first_token_ms:.1f} ms, the median of 3", NEITHER)
        if found.tokens_per_second is not None:
            yield Seen("pace", f"{found.tokens_per_second:,.0f} tokens/s, one request alone", NEITHER)

    def _usage(self) -> Seen:
        if self.usage is None:
            return Seen("usage counted", "cannot be told", NEITHER)
        counting = self.usage.counting
        fine = {Counting.EVERY_CHUNK: GOOD, Counting.AT_THE_END: NEITHER, Counting.NEVER: BAD}[counting]
        return Seen("usage counted", _COUNTED[counting], fine, None if fine != BAD else Shortfall.UNCOUNTED)

    def _cached(self) -> Seen:
        if self.usage is not None and self.usage.cached:
            return Seen("cached input", "told apart", GOOD)
        return Seen("cached input", "not told apart", NEITHER, Shortfall.UNCACHED)


def shown(report: Report) -> RenderableType:
    """The report for people."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("what", no_wrap=True)
    table.add_column("seen", overflow="fold")
    table.add_column("fine?", justify="center", no_wrap=True)
    for line in report.lines:
        table.add_row(line.what, Text(line.seen), Text(line.fine, STYLES[line.fine]))
    parts: list[RenderableType] = [table, Text()]
    for tier in Tier:
        why_not = report.unfit(tier)
        if why_not is None:
            parts.append(Text(f"fit as the {tier.value} tier", "bold green"))
        else:
            parts.append(Text(f"not fit as the {tier.value} tier: {why_not}", "bold red"))
    parts += [Text(f"{lacking.value}: {how}") for lacking, how in report.remedies if how is not None]
    return Group(*parts)


def as_json(report: Report) -> dict[str, object]:
    """The report as plain values; None is what could not be seen."""
    found, described, usage, stop = report.findings, report.findings.description, report.usage, report.stop
    return {
        "target": report.target,
        "kind": report.kind,
        "route": report.route,
        "answers": found.answers,
        "fault": found.fault,
        "model": described.name if described else None,
        "context_tokens": described.context_tokens if described else None,
        "dialect": report.engine.dialect.value if report.engine else None,
        "dialect_sign": report.engine.sign if report.engine else None,
        "version": report.engine.version if report.engine else None,
        "evidence": {
            "proven": found.evidence.proven,
            "shortfall": found.evidence.shortfall,
            "alternatives": found.alternatives,
            "before_sampling": found.evidence.before_sampling,
        },
        "tokens_together": dict(zip(("largest", "mean"), report.together, strict=True)),
        "usage_counted": usage.counting.value if usage else None,
        "cached_input_told": usage.cached if usage else None,
        "cancel": {
            "stopped_after_ms": stop.milliseconds if stop else None,
            "still_running": stop.still_running if stop else None,
            "source": stop.source if stop else None,
            "not_observable": stop.unseen if stop else "behind a model service",
        },
        "first_token_ms": found.first_token_ms,
        "tokens_per_second": found.tokens_per_second,
        "tiers": {tier.value: {"fit": report.unfit(tier) is None, "why_not": report.unfit(tier)} for tier in Tier},
        "remedies": [{"shortfall": one.name.lower(), "remedy": how} for one, how in report.remedies],
    }


def _deaf(stop: Stop) -> bool:
    return stop.still_running or (stop.milliseconds is not None and stop.milliseconds > HONOURED_MS)


def _stopping(stop: Stop) -> Seen:
    if stop.unseen is not None:
        lacks = Shortfall.UNSEEN if stop.source is None else None
        return Seen("cancel honoured", f"not observable: {stop.unseen}", NEITHER, lacks)
    if stop.milliseconds is None:
        return Seen("cancel honoured", f"still running after 5 s ({stop.source})", BAD, Shortfall.DEAF)
    seen = f"idle {stop.milliseconds:,.1f} ms after it ({stop.source})"
    return Seen("cancel honoured", seen, *((BAD, Shortfall.DEAF) if _deaf(stop) else (GOOD,)))
