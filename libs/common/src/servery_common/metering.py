"""What every process counts of itself for the installation's operator; Prometheus reads it (``metrics_server.py``).

These are the series that several services have. What only one service knows it tells with a collector of its own,
which reads at the time of a scrape what the service has counted anyway. docs/metrics.md lists all of them.
"""

from typing import Literal

from prometheus_client import Counter, Gauge

Fence = Literal["lease", "claim", "route", "worker"]
"""What held: the leader's lease, the claim on an endpoint, a route's revision, a worker's epoch."""

NatsConnection = Literal["bus", "inference"]
"""Which of a process's two connections to NATS."""

_stale_writes = Counter(
    "servery_stale_writes_refused",
    "Writes and orders of a controller that was overtaken, which a fence refused.",
    ["fence"],
)
_nats_connected = Gauge("servery_nats_connected", "Whether the connection to NATS is up.", ["connection"])
_nats_losses = Counter(
    "servery_nats_connection_losses", "How often a connection to NATS was lost.", ["connection"]
)
_nats_errors = Counter(
    "servery_nats_errors",
    "Errors that a connection to NATS told of, attempts to connect included.",
    ["connection"],
)
postgres_failures = Counter(
    "servery_postgres_acquire_failures",
    "Times no connection to Postgres was to be had: the pool was used up, or Postgres did not answer.",
)

for _fence in ("lease", "claim", "route", "worker"):
    _stale_writes.labels(_fence)  # a series that is there from the start shows its first increase


def count_stale_write(fence: Fence) -> None:
    """Count one write or order that ``fence`` refused because somebody newer had acted."""
    _stale_writes.labels(fence).inc()


class NatsMeter:
    """The series of one connection to NATS."""

    def __init__(self, connection: NatsConnection) -> None:
        self._connected = _nats_connected.labels(connection)
        self._losses = _nats_losses.labels(connection)
        self._errors = _nats_errors.labels(connection)

    def connected(self) -> None:
        """It is up."""
        self._connected.set(1)

    def lost(self) -> None:
        """It broke; somebody is trying to get it back."""
        self._connected.set(0)
        self._losses.inc()

    def failed(self) -> None:
        """There was an error, or an attempt to connect failed."""
        self._errors.inc()
