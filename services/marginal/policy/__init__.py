"""Decides, purely: no I/O, no clock, no logging, no randomness of its own."""
