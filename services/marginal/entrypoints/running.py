"""Where the services of a running `marginal up` are, for commands that are not told."""

import json
from pathlib import Path

from marginal.entrypoints.up import SERVICES_FILE

ADMIN = "127.0.0.1:50054"


def admin_address(state_dir: Path) -> str:
    """The router's admin address as `up` wrote it, else the default one."""
    try:
        services = json.loads((state_dir / SERVICES_FILE).read_text("utf-8"))["services"]
        return next((str(one["admin"]) for one in services if one.get("admin")), ADMIN)
    except (OSError, ValueError, KeyError, TypeError):
        return ADMIN
