"""Marginal: answers with a small model and defers to a large one only when the small model is unsure.

policy      decides, pure: scores, thresholds, the deferral machine
routing     carries one request from its first token to its cost record
models      the bundled home pair and the catalogue of named pairs
backends    language models in process or behind an engine
transport   gRPC, both sides
telemetry   spans, logs and their names
evaluation  measures: demo tables, reconciliation, traces
entrypoints the programs
"""
