"""Measures and explains what happened: the demo's figures, reconciliation, traces."""
