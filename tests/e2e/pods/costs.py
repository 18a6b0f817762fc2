"""Runs in a router's pod: what its cost records add up to by tenant, as one JSON object."""

import json
from pathlib import Path

from marginal.ledger.journal_costs import files_since, journal_costs
from marginal.routing.spending import CostQuery, Grouping

found = journal_costs(files_since([Path("/var/lib/marginal/journal")], None), CostQuery(Grouping.TENANT))
rows = {row.key: {"requests": row.figures.requests, "nanos": row.figures.total_nanos} for row in found.rows}
assert not found.damaged
print(json.dumps(rows))  # noqa: T201
