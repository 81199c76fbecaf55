"""Spans of a worker in a container, which reaches NATS and nothing else: the controller passes them on."""

import asyncio
from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from servery_common.contracts import subjects
from servery_common.contracts.replicas import WorkerSpans
from servery_common.messaging.port import Signals

MOST_SPANS = 256
"""In one message: some hundred bytes each, so that it stays well below NATS' limit."""


class BusSpanExporter(SpanExporter):
    """Called by the SDK in a thread of its own. What cannot be sent is lost, as with a collector that is down."""

    def __init__(self, bus: Signals, worker_id: str) -> None:
        self._bus = bus
        self._worker_id = worker_id
        self._loop = asyncio.get_running_loop()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Implement SpanExporter."""
        for first in range(0, len(spans), MOST_SPANS):
            otlp = encode_spans(spans[first : first + MOST_SPANS]).SerializeToString()
            told = WorkerSpans(worker_id=self._worker_id, otlp=otlp)
            sent = self._bus.signal(subjects.worker_spans(self._worker_id), told)
            try:
                asyncio.run_coroutine_threadsafe(sent, self._loop)
            except RuntimeError:  # the loop has ended, and the process is about to
                sent.close()
                return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Implement SpanExporter."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Implement SpanExporter."""
        return True
