"""What a cluster may be without, as E2E_WITHOUT says; the tests that need it are skipped then."""

import os

import pytest

WITHOUT = os.environ.get("E2E_WITHOUT", "")

needs_keda = pytest.mark.skipif("keda" in WITHOUT, reason="E2E_WITHOUT says that there is no KEDA")
needs_metrics = pytest.mark.skipif("metrics" in WITHOUT, reason="E2E_WITHOUT says that there are no metrics")
