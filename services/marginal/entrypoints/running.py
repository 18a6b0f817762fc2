"""Where the services of a running `marginal up` are, for commands that are not told."""

import json
from pathlib import Path
from typing import Any

from marginal.entrypoints.up import SERVICES_FILE

ADMIN = "127.0.0.1:50054"


def listed(state_dir: Path) -> Any:
    """What `up` wrote of its services. Raises OSError, ValueError, KeyError or TypeError."""
    return json.loads((state_dir / SERVICES_FILE).read_text("utf-8"))["services"]


def admin_address(state_dir: Path) -> str:
    """The router's admin address as `up` wrote it, else the default one."""
    try:
        return next((str(one["admin"]) for one in listed(state_dir) if one.get("admin")), ADMIN)
    except (OSError, ValueError, KeyError, TypeError):
        return ADMIN
