# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["checkov==3.3.30"]
# ///
"""Runs checkov, in an environment of its own: it pins what the project's tools need newer.

Its arguments are checkov's; what it may use is locked in audit.py.lock.
"""

import sys

from checkov.main import Checkov

if __name__ == "__main__":
    sys.exit(Checkov(argv=sys.argv[1:]).run())
