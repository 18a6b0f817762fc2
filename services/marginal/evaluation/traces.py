"""Puts the spans of several processes together into one trace.

Reads `*.spans.jsonl`, one JSON object a line: `trace_id`, `span_id`, `parent_span_id` (hexadecimal; null at the root),
`name`, `kind` (internal, server, client), `service`, `instance`, `start_nanos` and `end_nanos` (Unix time, integers),
`status` (unset, ok, error), `attributes` (an object) and `events` (a list of `name`, `time_nanos`, `attributes`). The
writer is `telemetry/exporters.py`, which this module may not import: change both. A line that is cut or is no span is
passed over, so files may be read while they are written.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

PATTERN = "*.spans.jsonl"

NANOS_PER_MILLISECOND = 1_000_000


@dataclass(frozen=True, slots=True)
class Span:
    """One line of a span file."""

    trace_id: str
    span_id: str
    parent_span_id: str | None
    name: str
    kind: str
    service: str
    instance: str
    start_nanos: int
    end_nanos: int
    status: str
    attributes: Mapping[str, Any]
    events: Sequence[Mapping[str, Any]]

    @property
    def milliseconds(self) -> float:
        """How long it took."""
        return (self.end_nanos - self.start_nanos) / NANOS_PER_MILLISECOND


@dataclass(frozen=True, slots=True)
class Node:
    """A span with the spans it caused, in the order they started."""

    span: Span
    children: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Trace:
    """The spans of one trace; there is one root when every span was found."""

    trace_id: str
    roots: tuple[Node, ...]

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Every node, parents before their children."""
        return tuple(node for root in self.roots for node in _walk(root))

    @property
    def complete(self) -> bool:
        """Whether nothing seems to be missing: there is one root, and under every client span what it called.

        A call that never arrived has nothing under it either: give up waiting at some time.
        """
        return len(self.roots) == 1 and all(node.children for node in self.nodes if node.span.kind == "client")

    @property
    def start_nanos(self) -> int:
        """When its first span started."""
        return min(node.span.start_nanos for node in self.nodes)

    @property
    def milliseconds(self) -> float:
        """From the start of the first span to the end of the last."""
        return (max(node.span.end_nanos for node in self.nodes) - self.start_nanos) / NANOS_PER_MILLISECOND

    def offset_milliseconds(self, span: Span) -> float:
        """From the start of the trace to that of one of its spans."""
        return (span.start_nanos - self.start_nanos) / NANOS_PER_MILLISECOND


def read_spans(directory: Path) -> Iterator[Span]:
    """Every span of every span file in a directory. Raises OSError."""
    for path in sorted(directory.glob(PATTERN)):
        for line in path.read_bytes().splitlines():
            span = _span(line)
            if span is not None:
                yield span


def assemble(spans: Iterable[Span], trace_id: str) -> Trace | None:
    """The trace of that id, None when no span of it is there; a span whose parent is missing becomes a root."""
    mine = {span.span_id: span for span in spans if span.trace_id == trace_id}
    if not mine:
        return None
    children: dict[str | None, list[Span]] = {}
    for span in sorted(mine.values(), key=lambda span: span.start_nanos):
        parent = span.parent_span_id if span.parent_span_id in mine else None
        children.setdefault(parent, []).append(span)

    def node(span: Span) -> Node:
        return Node(span, tuple(node(child) for child in children.get(span.span_id, ())))

    roots = tuple(node(span) for span in children.get(None, ()))
    return Trace(trace_id, roots) if roots else None


def as_json(trace: Trace) -> dict[str, Any]:
    """A trace as JSON values: nested spans, milliseconds from its start."""
    return {
        "trace_id": trace.trace_id,
        "milliseconds": trace.milliseconds,
        "spans": [_node_as_json(trace, root) for root in trace.roots],
    }


def _span(line: bytes) -> Span | None:
    try:
        entry = json.loads(line)
        span = Span(**{field.name: entry[field.name] for field in fields(Span)})
    except (ValueError, KeyError, TypeError):
        return None
    texts = (span.trace_id, span.span_id, span.name, span.kind, span.service)
    numbers = (span.start_nanos, span.end_nanos)
    readable = all(isinstance(text, str) for text in texts) and all(isinstance(number, int) for number in numbers)
    return span if readable and isinstance(span.attributes, dict) and isinstance(span.events, list) else None


def _walk(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from _walk(child)


def _node_as_json(trace: Trace, node: Node) -> dict[str, Any]:
    span = node.span
    return {
        "name": span.name,
        "service": span.service,
        "kind": span.kind,
        "span_id": span.span_id,
        "status": span.status,
        "offset_milliseconds": trace.offset_milliseconds(span),
        "milliseconds": span.milliseconds,
        "attributes": dict(span.attributes),
        "events": [dict(event) for event in span.events],
        "spans": [_node_as_json(trace, child) for child in node.children],
    }
