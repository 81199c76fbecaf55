"""``/metrics`` of one process, for the installation's Prometheus: OpenMetrics for who asks for it, else plain text.

Off unless ``SERVERY_METRICS_PORT`` is set. It answers from threads: a scraper that reads slowly waits in its own, and
the service's event loop goes on. Who may reach the port may read the names of all workspaces and endpoints, so it
belongs on an address that only the operator's network has.
"""

import socket
import threading
from collections.abc import Iterable
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import structlog
from prometheus_client import REGISTRY, CollectorRegistry, make_wsgi_app
from prometheus_client.core import InfoMetricFamily, Metric
from prometheus_client.registry import Collector
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

log = structlog.get_logger(__name__)

READ_SECONDS = 10.0
"""A scraper that sends nothing, or takes nothing, for so long loses its connection."""
MAX_SCRAPES = 8
"""Scrapes under way at a time; further connections are closed. One Prometheus needs one, and each costs a thread."""


class MetricsSettings(BaseSettings):
    """``SERVERY_METRICS_…``."""

    model_config = SettingsConfigDict(env_prefix="SERVERY_METRICS_")

    host: str = "127.0.0.1"
    """Address to listen on. The default is not reachable from other machines."""
    port: int | None = Field(default=None, ge=1, le=65535)
    """None: no metrics are served. Of several processes that are one service, process n listens on port + n - 1."""


class MetricsServer:
    """Serves what is registered. Made and closed by ``servery_common.service``."""

    def __init__(self, registry: CollectorRegistry, host: str, port: int) -> None:
        """Listen. Raises OSError that names the setting when that is not possible."""
        try:
            self._server = make_server(host, port, make_wsgi_app(registry), _server_class(host), _Handler)
        except OSError as error:
            raise OSError(
                f"cannot listen on {host}:{port} for metrics ({error.strerror or error}): "
                "choose another SERVERY_METRICS_PORT or SERVERY_METRICS_HOST"
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._server.server_port

    def close(self) -> None:
        """Take no more scrapes; those under way are left to end with the process."""
        self._server.shutdown()
        self._server.server_close()


def service_registry(service: str) -> CollectorRegistry:
    """Return what a process of this service shows: what every process counts, and what is registered on top of it."""
    # Without the check of names that a registry makes by calling each collector: they are read at a scrape alone.
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_All(service))
    return registry


def serve_metrics(registry: CollectorRegistry, *, process: int | None = None) -> MetricsServer | None:
    """Serve the registry as the environment says; None when it names no port. Raises OSError."""
    settings = MetricsSettings()
    if settings.port is None:
        return None
    server = MetricsServer(registry, settings.host, settings.port + (process or 1) - 1)
    log.info("metrics_served", host=settings.host, port=server.port)
    return server


class _All(Collector):
    def __init__(self, service: str) -> None:
        self._service = service

    def collect(self) -> Iterable[Metric]:
        yield InfoMetricFamily("servery_service", "Which service this is.", value={"service": self._service})
        yield from REGISTRY.collect()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, *args: Any, **options: Any) -> None:
        self._room = threading.BoundedSemaphore(MAX_SCRAPES)
        super().__init__(*args, **options)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def server_bind(self) -> None:
        # As the base does, but for asking the resolver for this machine's name, which may take seconds.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A scraper that left in the middle; nothing of it is news.
        log.debug("scrape_broken_off", exc_info=True)


class _ServerV6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = READ_SECONDS

    def log_message(self, format: str, *args: Any) -> None:
        """A scrape every few seconds is no news."""


def _server_class(host: str) -> type[_Server]:
    return _ServerV6 if ":" in host else _Server
