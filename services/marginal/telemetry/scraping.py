"""Counters as text for Prometheus, fetched at http://HOST:PORT/metrics by whoever can reach it."""

import logging
import socket
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics.export import MetricReader
from prometheus_client import CollectorRegistry, MetricsHandler
from prometheus_client.metrics_core import Metric

logger = logging.getLogger(__name__)

PATH = "/metrics"
PATIENCE_SECONDS = 10.0
"""A client has so long to ask and to read."""

MOST_CLIENTS = 16
"""Clients at a time; further ones are sent away."""

STOP_SECONDS = 0.1


class Scraped:
    """Answers scrapes from a thread of its own; the registry is its own too, as two services may share a process."""

    def __init__(self, host: str, port: int, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        """Raises OSError when nothing can listen there; port 0 is one that the system chooses."""
        registry = _InTurn()
        self._server = _Server(host, port, _Handler.factory(registry), patience_seconds)
        self.reader: MetricReader = PrometheusMetricReader(scope_info_enabled=False, registry=registry)
        self._answering = threading.Thread(
            target=self._server.serve_forever, args=(STOP_SECONDS,), name="metrics", daemon=True
        )
        self._answering.start()

    @property
    def url(self) -> str:
        """Where it is."""
        host, port = self._server.server_address[:2]
        return f"http://{f'[{host!s}]' if ':' in str(host) else host!s}:{port}{PATH}"

    def close(self) -> None:
        """Gives the port back."""
        self._server.shutdown()
        self._server.server_close()
        self._answering.join()


class _InTurn(CollectorRegistry):
    """One scrape at a time: of two at once the exporter hands both answers to one and none to the other."""

    def __init__(self) -> None:
        super().__init__()
        self._turn = threading.Lock()

    def collect(self) -> Iterable[Metric]:
        with self._turn:
            return list(super().collect())


class _Handler(MetricsHandler):
    server_version, sys_version = "marginal", ""

    def do_GET(self) -> None:  # noqa: N802 (not our name)
        if self.path.partition("?")[0] == PATH:
            super().do_GET()
        else:
            self.send_error(404)


class _Server(ThreadingHTTPServer):
    allow_reuse_port = False

    def __init__(self, host: str, port: int, handler: type[BaseHTTPRequestHandler], patience_seconds: float) -> None:
        """Everywhere (`::`) is every IPv4 address where there is no IPv6, as it is to gRPC."""
        if host == "::" and not socket.has_dualstack_ipv6():
            host = "0.0.0.0"  # noqa: S104 (asked for)
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family, _, _, _, address = found[0]
        self.patience_seconds = patience_seconds
        self._places = threading.Semaphore(MOST_CLIENTS)
        super().__init__((str(address[0]), port), handler)

    def server_bind(self) -> None:
        """Without looking up this machine's name: nobody uses it, and where there is no DNS it takes seconds."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        hanging_up = threading.Timer(self.patience_seconds, _hang_up, (request,))
        hanging_up.daemon = True
        hanging_up.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            hanging_up.cancel()
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 (not our signature)
        """A client that went away is no news."""
        if not isinstance(error := sys.exception(), OSError):
            logger.warning("metrics could not be told: %s", type(error).__name__)


def _hang_up(client: socket.socket) -> None:
    with suppress(OSError):  # it may have gone
        client.shutdown(socket.SHUT_RDWR)
