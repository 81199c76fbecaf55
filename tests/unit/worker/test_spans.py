import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from servery_worker import spans
from servery_worker.spans import sampled, trace_id

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize(
    ("traceparent", "expected"),
    [
        (f"00-{TRACE}-b7ad6b7169203331-01", True),
        (f"00-{TRACE}-b7ad6b7169203331-03", True),
        (f"00-{TRACE}-b7ad6b7169203331-00", False),
        ("", False),
        ("01", False),
        ("nonsense", False),
    ],
)
def test_only_a_sampled_trace_is_recorded(traceparent: str, expected: bool):
    assert sampled(traceparent) is expected


def test_the_trace_is_named_in_logs():
    assert trace_id(f"00-{TRACE}-b7ad6b7169203331-01") == TRACE
    assert trace_id("") == ""


def test_the_stages_are_children_of_serve_with_the_runners_own_times(monkeypatch: pytest.MonkeyPatch):
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(spans, "_tracer", provider.get_tracer("test"))
    spans.record(
        f"00-{TRACE}-b7ad6b7169203331-01",
        attributes={"servery.request_id": "q"},
        started_ns=100,
        ended_ns=900,
        status=200,
        timings={"decode": [200, 300], "predict": [300, 700], "encode": ["odd", 1], "other": [1, 2]},
    )
    recorded = {span.name: span for span in exporter.get_finished_spans()}
    assert list(recorded) == ["decode", "predict", "serve"]
    serve = recorded["serve"]
    assert (serve.kind, serve.start_time, serve.end_time) == (SpanKind.CONSUMER, 100, 900)
    assert format(serve.context.trace_id, "032x") == TRACE
    assert format(serve.parent.span_id, "016x") == "b7ad6b7169203331"
    predict = recorded["predict"]
    assert (predict.parent.span_id, predict.start_time, predict.end_time) == (serve.context.span_id, 300, 700)
