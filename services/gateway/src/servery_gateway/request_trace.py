"""Spans of one scoring request: the SERVER span and its children ``admit``, ``queue`` and ``transport``.

One sampling decision is made when the request arrives. A request that is not sampled costs nothing after that: its
trace only hands the context on, with the flag off, so that agents do not decide differently.
"""

import time
from collections.abc import Mapping

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from prometheus_client import Histogram

from servery_common.contracts.metrics import LATENCY_BUCKETS_MS
from servery_common.tracing import RootSampling, extract, root_sampling

tracer = trace.get_tracer(__name__)

SCORING_SPAN = "POST /serving-endpoints/{name}/invocations"

_stages = Histogram(
    "servery_gateway_sampled_stage_duration_seconds",
    "Stages of requests that were sampled for a trace: admit, queue, transport.",
    ["stage"],
    buckets=[bound / 1000 for bound in LATENCY_BUCKETS_MS],
)


class RequestTrace:
    """The trace of one request. Times are taken by the methods; call them in the order of the request's life."""

    __slots__ = ()

    is_recorded = False
    """Whether the trace can be looked at later."""

    @property
    def trace_id(self) -> str:
        """Its id as 32 hex digits, for logs; empty when there is none."""
        return ""

    def admitted(self, endpoint: str, served_entity: str, request_id: str, body_bytes: int) -> None:
        """Admission and reading the body are over, waiting for a replica begins."""

    def sent(self, replica_id: str) -> str | None:
        """The request leaves for a replica; return the traceparent to send with it."""
        return None

    def ended(self, status: int) -> None:
        """The answer is ready."""


class _ContextOnly(RequestTrace):
    """Not sampled: carries the caller's trace on."""

    __slots__ = ("_traceparent",)

    def __init__(self, traceparent: str) -> None:
        self._traceparent = traceparent

    @property
    def trace_id(self) -> str:
        return self._traceparent.split("-")[1]

    def sent(self, replica_id: str) -> str | None:
        return self._traceparent


class _Sampled(RequestTrace):
    __slots__ = ("_root", "_stage_began", "_tracer", "_transport")

    is_recorded = True

    def __init__(self, tracer: trace.Tracer, root: Span, began: int) -> None:
        self._tracer = tracer
        self._root = root
        self._stage_began = began
        self._transport: Span | None = None

    @property
    def trace_id(self) -> str:
        return f"{self._root.get_span_context().trace_id:032x}"

    def admitted(self, endpoint: str, served_entity: str, request_id: str, body_bytes: int) -> None:
        self._root.set_attributes(
            {
                "servery.endpoint": endpoint,
                "servery.served_entity": served_entity,
                "servery.request_id": request_id,
                "http.request.body.size": body_bytes,
            }
        )
        self._finish_stage("admit")

    def sent(self, replica_id: str) -> str | None:
        if self._transport is not None:
            self._transport.set_attribute("servery.given_up", True)
            self._transport.end()
        else:
            self._finish_stage("queue")
        self._transport = self._tracer.start_span(
            "transport",
            context=trace.set_span_in_context(self._root),
            kind=SpanKind.CLIENT,
            attributes={"servery.replica_id": replica_id},
        )
        return _traceparent(self._transport)

    def ended(self, status: int) -> None:
        if self._transport is not None:
            self._transport.end()
            self._measure("transport", time.time_ns())
        self._root.set_attribute("http.response.status_code", status)
        if status >= 500:
            self._root.set_status(Status(StatusCode.ERROR))
        self._root.end()

    def _finish_stage(self, name: str) -> None:
        now = time.time_ns()
        span = self._tracer.start_span(
            name, context=trace.set_span_in_context(self._root), start_time=self._stage_began
        )
        span.end(now)
        self._measure(name, now)
        self._stage_began = now

    def _measure(self, name: str, now: int) -> None:
        # A clock that was set back in between measures nothing.
        seconds = max(0, now - self._stage_began) / 1e9
        _stages.labels(name).observe(seconds, {"trace_id": self.trace_id})


UNTRACED = RequestTrace()
"""Records nothing and hands nothing on."""


class RequestTracer:
    """Makes the sampling decision for each scoring request."""

    def __init__(self, tracer: trace.Tracer = tracer, roots: RootSampling | None = None) -> None:
        self._tracer = tracer
        self._roots = root_sampling() if roots is None else roots

    def begin(self, headers: Mapping[bytes, bytes]) -> RequestTrace:
        """Return the trace of a request with these headers (lower-case names).

        The caller's trace id is kept; whether it is recorded is our sampler's decision, which respects the parent's.
        """
        if b"traceparent" not in headers and not self._roots.may_sample():
            return UNTRACED
        began = time.time_ns()
        span = self._tracer.start_span(
            SCORING_SPAN, context=extract(trace_headers(headers)), kind=SpanKind.SERVER, start_time=began
        )
        if span.is_recording():
            return _Sampled(self._tracer, span, began)
        traceparent = _traceparent(span)
        return UNTRACED if traceparent is None else _ContextOnly(traceparent)


def trace_headers(headers: Mapping[bytes, bytes]) -> dict[str, str]:
    """Return the W3C trace context headers among ``headers``."""
    found: dict[str, str] = {}
    for name in (b"traceparent", b"tracestate"):
        value = headers.get(name)
        if value is not None:
            found[name.decode()] = value.decode("latin-1")
    return found


def _traceparent(span: Span) -> str | None:
    context = span.get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
