"""`marginal trace` and `marginal costs reconcile`: what services wrote, put together."""

import time
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import TypeVar

from marginal.entrypoints.services import JOURNAL, POLICIES_FILE
from marginal.errors import ConfigurationError
from marginal.evaluation.reconcile import Reconciliation
from marginal.evaluation.reconcile import reconcile as compare
from marginal.evaluation.service_logs import GENERATION, logs_begin, read_events
from marginal.evaluation.traces import Span, Trace, assemble, read_spans
from marginal.ledger.reading import kept_since, read_journals
from marginal.settings import read_policies

LAST = "last"
SETTLE_SECONDS = 2.0
"""Spans and logs of a request may be written this much after its answer."""
LOOK_AGAIN_SECONDS = 0.1

Seen = TypeVar("Seen")


def trace(trace_id: str, state_dir: Path) -> Trace:
    """The trace of that id, or of the last request. Raises ConfigurationError when it is not there."""
    found = _settled(lambda: _trace(trace_id, state_dir), complete=lambda found: found is not None and found.complete)
    if found is None and trace_id != LAST and _trace(LAST, state_dir) is not None:
        raise ConfigurationError(f"no trace {trace_id} in {state_dir}: `marginal trace {LAST}` shows the latest")
    if found is None:
        raise ConfigurationError(
            f"no trace in {state_dir}: name the directory of `marginal up` with --state-dir"
            " (spans are kept there with --trace-exporter file)"
        )
    return found


def reconcile(logs: Path, journals: Sequence[Path] = ()) -> Reconciliation:
    """The cost records against the model services' logs. Raises ConfigurationError when there are none."""
    found = reconciliation(logs, journals)
    if found is None:
        raise ConfigurationError(
            f"no cost records in {', '.join(map(str, journals or [logs]))}: name the directory of `marginal up` with"
            " --state-dir, or a router's journal with --journal"
        )
    return found


def reconciliation(logs: Path, journals: Sequence[Path] = ()) -> Reconciliation | None:
    """The same, None when there are no cost records.

    They are read from the journals, from that of `marginal up` when none is given, and where there is none either from
    the routers' logs.
    """
    found = _settled(lambda: _reconciliation(logs, journals), complete=lambda found: found.balanced)
    return found if found.records or found.passed_over else None


def difference(found: Reconciliation) -> str:
    """The reconciliation in one line."""
    said = f"{found.records:,} cost records against the model services' logs: "
    if found.balanced:
        return f"{said}difference 0."
    return f"{said}difference {found.nanos_difference:,} nano-units; see `marginal costs reconcile`."


def _trace(trace_id: str, state_dir: Path) -> Trace | None:
    spans = list(read_spans(state_dir))
    if trace_id == LAST:
        asked = [span for span in spans if _is_request(span)]
        if not asked:
            return None
        trace_id = max(asked, key=lambda span: span.start_nanos).trace_id
    return assemble(spans, trace_id)


def _is_request(span: Span) -> bool:
    return span.kind == "server" and "RouterService/" in span.name


def _reconciliation(logs: Path, journals: Sequence[Path]) -> Reconciliation:
    policies = read_policies(logs / POLICIES_FILE if (logs / POLICIES_FILE).exists() else None)
    prices = policies.by_name[policies.default].prices
    directories = journals or [directory for directory in (logs / JOURNAL,) if directory.is_dir()]
    if not directories:
        return compare(read_events(logs), prices)
    generations = (event for event in read_events(logs) if event["event"] == GENERATION)
    records = read_journals(directories).final_records()
    events, deleted_until = chain(generations, records), kept_since(directories)
    if deleted_until is not None:
        deleted_until += SETTLE_SECONDS
    return compare(events, prices, since=logs_begin(logs), deleted_until=deleted_until)


def _settled(look: Callable[[], Seen], *, complete: Callable[[Seen], bool]) -> Seen:
    """What `look` sees once it is complete, or when it has had its time."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while not complete(seen := look()) and time.monotonic() < deadline:
        time.sleep(LOOK_AGAIN_SECONDS)
    return seen
