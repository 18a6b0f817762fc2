"""What became of the endpoints of a tier: every event a count, a change of an endpoint's state a log line as well.

What concerns one request is on its span: that it was asked again elsewhere, that it was the one too many.
"""

import contextlib

from opentelemetry import trace

from marginal.telemetry import names
from marginal.telemetry.logs import Log
from marginal.telemetry.metrics import Metrics
from marginal.tokens import Tier

RETRY = "retry"
RETRY_DENIED = "retry_denied"
EJECTED = "ejected"
TRIED = "tried"
RETURNED = "returned"
PAUSED = "paused"


class EndpointRecorder:
    """An observer of endpoints, which are told by host and port; a fault of telemetry stays here."""

    def __init__(self, tier: Tier, log: Log, metrics: Metrics) -> None:
        self._tier = tier
        self._log = log
        self._metrics = metrics

    def retried(self, endpoint: str, *, other: str, because: str) -> None:
        """A request that one endpoint failed goes to another."""
        self._count(endpoint, RETRY)
        _on_span(
            names.ENGINE_RETRY,
            {names.ENGINE_ENDPOINT: endpoint, names.ENGINE_OTHER_ENDPOINT: other, names.ENGINE_BECAUSE: because},
        )

    def retry_denied(self, endpoint: str) -> None:
        """A request is not asked again, for the budget of retries is spent."""
        self._count(endpoint, RETRY_DENIED)

    def ejected(self, endpoint: str, *, seconds: float, because: str) -> None:
        """An endpoint is left out for so long."""
        self._count(endpoint, EJECTED)
        _on_span(
            names.ENGINE_EJECTED,
            {names.ENGINE_ENDPOINT: endpoint, names.ENGINE_OUT_SECONDS: seconds, names.ENGINE_BECAUSE: because},
        )
        with contextlib.suppress(Exception):
            self._log.warning(names.ENDPOINT_EJECTED, **self._of(endpoint), seconds=seconds, because=because)

    def tried(self, endpoint: str, *, again: bool) -> None:
        """One request tries an endpoint that was left out; only the first of them is a change."""
        self._count(endpoint, TRIED)
        if not again:
            with contextlib.suppress(Exception):
                self._log.info(names.ENDPOINT_TRIED, **self._of(endpoint))

    def returned(self, endpoint: str) -> None:
        """An endpoint is asked as before."""
        self._count(endpoint, RETURNED)
        with contextlib.suppress(Exception):
            self._log.info(names.ENDPOINT_RETURNED, **self._of(endpoint))

    def paused(self, endpoint: str) -> None:
        """An endpoint is left alone, as it asked."""
        self._count(endpoint, PAUSED)

    def _count(self, endpoint: str, event: str) -> None:
        with contextlib.suppress(Exception):
            self._metrics.endpoint(self._tier, endpoint, event)

    def _of(self, endpoint: str) -> dict[str, str]:
        return {"tier": self._tier.value, "endpoint": endpoint}


def _on_span(event: str, attributes: dict[str, str | float]) -> None:
    with contextlib.suppress(Exception):
        trace.get_current_span().add_event(event, attributes)
