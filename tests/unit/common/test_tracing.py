import logging

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState, use_span

from servery_common import tracing
from servery_common.tracing import OncePerInterval, extract, inject

PARENT = f"00-{0xA:032x}-{0xB:016x}-01"


def test_a_trace_context_survives_the_headers() -> None:
    context = SpanContext(0xA, 0xB, False, TraceFlags(1), TraceState([("vendor", "x")]))
    with use_span(NonRecordingSpan(context)):
        headers = inject()
    assert headers == {"traceparent": PARENT, "tracestate": "vendor=x"}
    received = trace.get_current_span(extract(headers)).get_span_context()
    assert (received.trace_id, received.span_id, received.is_remote) == (0xA, 0xB, True)


def test_without_a_span_there_are_no_headers() -> None:
    assert inject() == {}


def test_baggage_and_oversized_tracestate_are_dropped() -> None:
    headers = {"traceparent": PARENT, "tracestate": "v=" + "x" * 600, "baggage": "user=secret"}
    with use_span(trace.get_current_span(extract(headers))):
        assert inject() == {"traceparent": PARENT}


@pytest.mark.parametrize("headers", [{}, {"traceparent": "nonsense"}, {"tracestate": "a=b"}])
def test_headers_without_a_readable_context_begin_a_new_trace(headers: dict[str, str]) -> None:
    assert not trace.get_current_span(extract(headers)).get_span_context().is_valid


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_spans_are_exported_only_if_the_environment_says_so(
    environment: dict[str, str], wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    providers = list[object]()
    monkeypatch.setattr(tracing.trace, "set_tracer_provider", providers.append)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    tracing.configure_tracing("test")
    assert bool(providers) is wanted
    for provider in providers:
        provider.shutdown()  # type: ignore[attr-defined]


def test_repeated_complaints_are_logged_once_per_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(tracing.time, "monotonic", lambda: now)
    record = logging.LogRecord("x", logging.WARNING, "f", 1, "m", None, None)
    complaints = OncePerInterval(60)
    assert [complaints.filter(record), complaints.filter(record)] == [True, False]
    now = 161.0
    assert complaints.filter(record)
