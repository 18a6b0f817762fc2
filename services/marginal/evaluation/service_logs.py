"""What services logged into a directory: the JSON lines of `*.log` and `*.jsonl` files, as telemetry writes them.

Cost records of routers and generations of model services are read; everything else in the files is passed over.
"""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

PATTERNS = ("*.log", "*.jsonl")
COST_RECORD = "cost_record"
GENERATION = "generation"
MODEL_SERVICE = "-model"
"""How the names of model services end."""


def read_events(directory: Path) -> Iterator[dict[str, Any]]:
    """Every cost record and generation that was logged into a directory. Raises OSError."""
    return (line for line in _lines(directory) if line.get("event") in (COST_RECORD, GENERATION))


def logs_begin(directory: Path) -> float | None:
    """When the first model service began its log, in seconds since the Unix epoch; None when that is not told.

    Raises OSError.
    """
    lines = (line for line in _lines(directory) if str(line.get("service")).endswith(MODEL_SERVICE))
    return min((begun for line in lines if (begun := moment(line.get("timestamp"))) is not None), default=None)


def _lines(directory: Path) -> Iterator[dict[str, Any]]:
    for path in sorted({path for pattern in PATTERNS for path in directory.glob(pattern)}):
        with path.open("rb") as file:
            for text in file:
                try:
                    line = json.loads(text)
                except ValueError:
                    continue
                if isinstance(line, dict):
                    yield line


def moment(text: Any) -> float | None:
    """When a line's timestamp was, in seconds since the Unix epoch; None for anything else."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (TypeError, ValueError):
        return None
