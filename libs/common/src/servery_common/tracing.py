"""One trace from the HTTP request to the model.

Configured by the standard ``OTEL_…`` variables alone. Without an endpoint nothing is recorded and spans
cost next to nothing, but the caller's trace context still travels on. A collector that is down costs
spans, never time or memory: the queue is bounded, and the exporter's complaints are rate-limited.

Only ``traceparent`` and ``tracestate`` travel. Baggage is dropped: it is free text of whoever calls,
and would reach every service's headers.
"""

import logging
import os
import random
import threading
import time
from collections.abc import Mapping

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

MAX_TRACESTATE_BYTES = 512
"""A longer ``tracestate`` is dropped whole; W3C asks to carry at least this much."""

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_NOISY_LOGGERS = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.sdk.trace.export",
    "opentelemetry.sdk._shared_internal",
    "urllib3.connectionpool",
)
_SHUTDOWN_SECONDS = 2.0

_propagator = TraceContextTextMapPropagator()


def configure_tracing(service: str) -> None:
    """Export the spans of this process as ``servery-<service>``, if the environment names an endpoint."""
    if _wanted(os.environ):
        record_spans(service, OTLPSpanExporter())


def record_spans(service: str, exporter: SpanExporter) -> None:
    """Hand the spans of this process to ``exporter``, in a thread and in batches. Once in a process."""
    provider = TracerProvider(
        resource=Resource.create({"service.name": f"servery-{service}"}), id_generator=_trace_ids
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    for name in _NOISY_LOGGERS:
        logging.getLogger(name).addFilter(OncePerInterval(60.0))
    trace.set_tracer_provider(provider)


def shutdown_tracing() -> None:
    """Send what is queued, for at most two seconds. Safe to call when nothing was configured."""
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        return
    # In a thread that may be left behind: with a dead collector the exporter would retry for longer.
    worker = threading.Thread(target=provider.shutdown, name="tracing-shutdown", daemon=True)
    worker.start()
    worker.join(_SHUTDOWN_SECONDS)


def inject() -> dict[str, str]:
    """Return the headers that carry the current span's context; empty without one."""
    headers: dict[str, str] = {}
    _propagator.inject(headers)
    if len(headers.get("tracestate", "")) > MAX_TRACESTATE_BYTES:
        del headers["tracestate"]
    return headers


def extract(headers: Mapping[str, str]) -> Context:
    """Return the context that ``headers`` (lower-case names) carry; an empty one if they carry none."""
    carrier = {name: headers[name] for name in ("traceparent", "tracestate") if name in headers}
    if len(carrier.get("tracestate", "")) > MAX_TRACESTATE_BYTES:
        del carrier["tracestate"]
    return _propagator.extract(carrier, context=Context())


class _TraceIds(RandomIdGenerator):
    """Random ids; the next trace may be given one beforehand."""

    next: int | None = None

    def generate_trace_id(self) -> int:
        chosen, self.next = self.next, None
        return super().generate_trace_id() if chosen is None else chosen


_trace_ids = _TraceIds()


class RootSampling:
    """Decides beforehand which traces that begin here are recorded, exactly as the configured sampler will.

    Asking the sampler costs OpenTelemetry's SDK about as much as admitting a request, for most of them to hear no.
    """

    def __init__(self, share: float | None) -> None:
        self._bound = None if share is None else TraceIdRatioBased.get_bound_for_rate(share)

    def may_sample(self) -> bool:
        """Whether the trace that begins next has to be shown to the sampler. Begin it before anything else."""
        if self._bound is None:
            return True
        trace_id = random.getrandbits(128)
        if trace_id & TraceIdRatioBased.TRACE_ID_LIMIT >= self._bound:
            return False
        _trace_ids.next = trace_id or None
        return True


def root_sampling() -> RootSampling:
    """Return what is known of the sampler that the environment names."""
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        return RootSampling(0.0)
    name = os.environ.get("OTEL_TRACES_SAMPLER", "").strip().lower().removeprefix("parentbased_")
    if name == "always_off":
        return RootSampling(0.0)
    if name != "traceidratio":
        return RootSampling(None)
    try:
        share = float(os.environ.get("OTEL_TRACES_SAMPLER_ARG", ""))
    except ValueError:
        return RootSampling(None)
    return RootSampling(share if 0.0 <= share <= 1.0 else None)


class OncePerInterval(logging.Filter):
    """Let one record through per interval (seconds) and drop the rest."""

    def __init__(self, interval: float) -> None:
        super().__init__()
        self._interval = interval
        self._next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._interval
        return True


def _wanted(environment: Mapping[str, str]) -> bool:
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if environment.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() == "none":
        return False
    return any(environment.get(name, "").strip() for name in _ENDPOINTS)
