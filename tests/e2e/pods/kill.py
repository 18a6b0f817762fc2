"""Runs in a pod that sees the node's processes: ends those of another pod as a crash does, with nothing said before.

Argument: the pod's uid. kubelet would let even a pod that is deleted by force end its work for two seconds.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

uid = sys.argv[1]
names = (uid, uid.replace("-", "_"))  # as cgroupfs and systemd write it
killed = []
for process in Path("/proc").glob("[0-9]*"):
    try:
        inside = any(name in (process / "cgroup").read_text() for name in names)
        program = (process / "cmdline").read_text()
        if inside and "marginal-" in program:
            os.kill(int(process.name), signal.SIGKILL)
            killed.append(program.replace("\0", " ").strip())
    except (FileNotFoundError, ProcessLookupError):
        continue
print(json.dumps({"at": time.time(), "killed": killed}))  # noqa: T201
