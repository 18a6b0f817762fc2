"""Reads the policy file into values; every complaint names the field, its line, and what it takes."""

from marginal.settings.policy_file import parse_policies, read_policies

__all__ = ["parse_policies", "read_policies"]
