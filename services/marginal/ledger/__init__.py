"""Budgets and records: what may be spent, what was, and where that is kept."""
