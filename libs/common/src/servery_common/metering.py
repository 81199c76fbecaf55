"""Counters of this process for an operator's collector, beside the traces (``tracing.py``).

Configured by the standard ``OTEL_…`` variables alone; without an endpoint nothing is kept. What an endpoint's users
want to know is elsewhere: docs/metrics.md has both.
"""

import logging
import os
import threading
from collections.abc import Mapping
from typing import Literal
from uuid import uuid4

from opentelemetry import metrics
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from servery_common.tracing import OncePerInterval

Fence = Literal["lease", "claim", "route", "worker"]
"""What held: the leader's lease, the claim on an endpoint, a route's revision, a worker's epoch."""

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_NOISY_LOGGERS = (
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
    "opentelemetry.sdk.metrics._internal.export",
)
_SHUTDOWN_SECONDS = 2.0

_stale_writes = metrics.get_meter("servery").create_counter(
    "servery.stale_writes.refused",
    unit="{write}",
    description="Writes and orders of a controller that was overtaken, which a fence refused.",
)


def count_stale_write(fence: Fence) -> None:
    """Count one write or order that ``fence`` refused because somebody newer had acted."""
    _stale_writes.add(1, {"fence": fence})


def configure_metering(service: str) -> None:
    """Export this process's counters as ``servery-<service>``, if the environment names an endpoint."""
    if not _wanted(os.environ):
        return
    # Counters of two processes of one service must not be taken for one series that jumps.
    resource = Resource.create({"service.name": f"servery-{service}", "service.instance.id": uuid4().hex})
    for name in _NOISY_LOGGERS:
        logging.getLogger(name).addFilter(OncePerInterval(60.0))
    reader = PeriodicExportingMetricReader(OTLPMetricExporter())
    metrics.set_meter_provider(MeterProvider([reader], resource))


def shutdown_metering() -> None:
    """Send the last counts, for at most two seconds. Safe to call when nothing was configured."""
    provider = metrics.get_meter_provider()
    if not isinstance(provider, MeterProvider):
        return
    # In a thread that may be left behind, as for traces: a dead collector must not hold up the end.
    worker = threading.Thread(target=provider.shutdown, name="metering-shutdown", daemon=True)
    worker.start()
    worker.join(_SHUTDOWN_SECONDS)


def _wanted(environment: Mapping[str, str]) -> bool:
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if environment.get("OTEL_METRICS_EXPORTER", "otlp").strip().lower() == "none":
        return False
    return any(environment.get(name, "").strip() for name in _ENDPOINTS)
