"""Carries one request from its first token to its cost record."""
