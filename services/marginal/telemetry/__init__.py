"""Spans and logs: the only importer of OpenTelemetry."""
