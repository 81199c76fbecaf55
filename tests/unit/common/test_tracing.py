import logging

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState, use_span

from servery_common import tracing
from servery_common.tracing import OncePerInterval, RootSampling, extract, inject, root_sampling

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


def test_what_is_decided_beforehand_is_what_the_sampler_says() -> None:
    sampler = ParentBased(TraceIdRatioBased(0.25))
    provider = TracerProvider(sampler=sampler, id_generator=tracing._trace_ids)
    tracer, roots, sampled = provider.get_tracer("test"), RootSampling(0.25), 0
    for _ in range(4000):
        if roots.may_sample():
            sampled += 1
            span = tracer.start_span("root")
            assert span.is_recording()
            span.end()
    assert 800 < sampled < 1200


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"}, False),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, False),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "a lot"}, True),
        ({"OTEL_TRACES_SAMPLER": "jaeger_remote"}, True),
        ({}, True),
    ],
)
def test_a_sampler_that_is_not_known_beforehand_is_asked(
    environment: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(trace, "get_tracer_provider", TracerProvider)
    assert root_sampling().may_sample() is expected


def test_where_nothing_is_exported_no_trace_begins() -> None:
    assert not root_sampling().may_sample()
