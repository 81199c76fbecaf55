"""The spans of one request in the worker: ``serve`` around ``batch_wait``, ``decode``, ``predict`` and ``encode``.

Only for requests whose caller samples: others cost one string comparison.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from servery_common.tracing import extract

STAGES = ("batch_wait", "decode", "predict", "encode")

_tracer = trace.get_tracer("servery_worker")


def sampled(traceparent: str) -> bool:
    """Whether the caller records this trace: the last bit of a W3C ``traceparent``."""
    try:
        return bool(int(traceparent[-2:], 16) & 1) and len(traceparent) == 55
    except ValueError:
        return False


def record(
    traceparent: str,
    *,
    attributes: Mapping[str, str | int],
    started_ns: int,
    ended_ns: int,
    status: int,
    timings: Mapping[str, Sequence[int]],
) -> None:
    """Record a request that ended, with the runner's own times (epoch nanoseconds) for its stages."""
    serve = _tracer.start_span(
        "serve",
        context=extract({"traceparent": traceparent}),
        kind=SpanKind.CONSUMER,
        start_time=started_ns,
        attributes={**attributes, "http.response.status_code": status},
    )
    inside = trace.set_span_in_context(serve)
    for stage in STAGES:
        if times := _times(timings.get(stage)):
            _tracer.start_span(stage, context=inside, start_time=times[0]).end(times[1])
    if status >= 400:
        serve.set_status(Status(StatusCode.ERROR))
    serve.end(ended_ns)


def trace_id(traceparent: str) -> str:
    """The trace a request belongs to, for logs; empty without one."""
    parts = traceparent.split("-")
    return parts[1] if len(parts) == 4 else ""


def _times(value: Any) -> tuple[int, int] | None:
    match value:
        case [int(start), int(end)] if end >= start:
            return start, end
        case _:
            return None
