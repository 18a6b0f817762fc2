"""Warns that a policy's requests are not sampled as its thresholds were calibrated: once, not for every request."""

from marginal.routing.records import CostRecord
from marginal.telemetry import names
from marginal.telemetry.logs import Log

ADVICE = "thresholds were calibrated at another sampling: `marginal policy show` counts such requests"


class SamplingWatch:
    """Warns once of every policy, and anew when it has another version: that has thresholds of its own."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._warned: dict[str, str] = {}

    def completed(self, record: CostRecord) -> None:
        """Takes a request's record."""
        if not record.other_sampling or self._warned.get(record.policy) == record.policy_version:
            return
        self._warned[record.policy] = record.policy_version
        fields = {"policy": record.policy, "policy_version": record.policy_version, "task": record.task or None}
        self._log.warning(names.OTHER_SAMPLING_SEEN, **fields, because=ADVICE, trace_id=record.trace_id)
