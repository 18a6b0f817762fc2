"""Runs one of the programs so that it never outlives the process that started it.

`python -m marginal.entrypoints.tied PROGRAM ...` takes standard input for a rope: the starter holds the other end open
and never writes. However the starter ends, SIGKILL included, the rope comes loose, and the program drains and ends.
"""

import os
import signal
import sys
import threading
import time
from importlib.metadata import entry_points

DRAIN_SECONDS = 5.0
STANDARD_INPUT = 0


def main() -> None:
    """Runs the console script named by the first argument with the remaining ones."""
    threading.Thread(target=_end_with_starter, name="rope", daemon=True).start()
    _, program, *_ = sys.argv
    [script] = entry_points(group="console_scripts", name=program)
    del sys.argv[0]
    script.load()()


def _end_with_starter() -> None:
    while os.read(STANDARD_INPUT, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(DRAIN_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
