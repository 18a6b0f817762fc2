"""Journals, records and asks to test with, and fakes that remember or break."""

import json
from pathlib import Path
from typing import Any

from marginal.ledger.journal import Journal, JournalRules
from marginal.ledger.journal_lines import settled_from
from marginal.ledger.ports import Settled
from marginal.ledger.reading import read_journals
from marginal.routing.holds import Ask, Budget
from marginal.routing.record_lines import record_fields
from marginal.routing.records import Attempt, CostRecord, Outcome
from marginal.tokens import FinishReason, Tier, Usage
from unit.ledger.stored import EVENING

NOW = EVENING
FIELDS = record_fields


def journal_in(directory: Path, told: list[str] | None = None, **rules: Any) -> Journal:
    return Journal(directory, tell=(told if told is not None else []).append, rules=JournalRules(**rules))


def ask(request_id: str, *, tenant: str = "acme", small: int = 10, full: int = 1_000, limit: Any = None) -> Ask:
    return Ask(request_id, tenant, small, full, Budget(limit or {}), policy="default")


def record(request_id: str, *, tenant: str = "acme", nanos: int = 100, **more: Any) -> CostRecord:
    fields = {"admitted_at": NOW, "tier": Tier.SMALL, "finish": FinishReason.STOP, **more}
    kept = Attempt(Tier.SMALL, "home-small", Outcome.KEPT, Usage(16, 3), nanos, 0.02)
    return CostRecord(request_id, "t" * 32, tenant, "default", "1", "USD", None, (kept,), 2_000, **fields)


def lines_in(directory: Path) -> list[dict[str, Any]]:
    files = sorted(directory.glob("journal-*.jsonl"))
    return [json.loads(line) for path in files for line in path.read_bytes().splitlines()]


def final_in(*directories: Path) -> dict[str, Settled]:
    """The final record of every id, as a store is told of it."""
    settled = [settled_from(line) for line in read_journals(directories).final_records()]
    by_id = {one.request_id: one for one in settled}
    assert len(by_id) == len(settled)
    return by_id
