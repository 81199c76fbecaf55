import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler

from servery_common.tracing import RootSampling
from servery_gateway.request_trace import UNTRACED, RequestTracer

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def tracer(sampler: Sampler) -> tuple[RequestTracer, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=sampler)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return RequestTracer(provider.get_tracer("test"), RootSampling(None)), exporter


def parent(flags: str) -> dict[bytes, bytes]:
    return {b"traceparent": f"00-{TRACE}-00f067aa0ba902b7-{flags}".encode()}


def test_a_sampled_request_is_one_tree_and_the_agent_continues_at_transport() -> None:
    requests, exporter = tracer(ParentBased(ALWAYS_ON))
    trace = requests.begin(parent("01"))
    trace.admitted("e", "m-1", "r", 10)
    handed_on = trace.sent("replica1")
    trace.ended(200)
    spans = {span.name: span for span in exporter.get_finished_spans()}
    root = spans.pop("POST /serving-endpoints/{name}/invocations")
    assert set(spans) == {"admit", "queue", "transport"}
    assert root.context is not None
    assert f"{root.context.trace_id:032x}" == TRACE
    for span in spans.values():
        assert span.parent is not None
        assert span.parent.span_id == root.context.span_id
    transport = spans["transport"].context
    assert transport is not None
    assert handed_on == f"00-{TRACE}-{transport.span_id:016x}-01"


def test_each_attempt_is_a_span_of_its_own() -> None:
    requests, exporter = tracer(ALWAYS_ON)
    trace = requests.begin({})
    trace.admitted("e", "m-1", "r", 10)
    assert trace.sent("one") != trace.sent("two")
    trace.ended(503)
    attempts = [span for span in exporter.get_finished_spans() if span.name == "transport"]
    assert [dict(span.attributes or {}).get("servery.given_up", False) for span in attempts] == [True, False]


@pytest.mark.parametrize(("sampler", "flags"), [(ALWAYS_OFF, "01"), (ParentBased(ALWAYS_ON), "00")])
def test_a_request_that_is_not_sampled_records_nothing_and_tells_the_agent_so(
    sampler: Sampler, flags: str
) -> None:
    requests, exporter = tracer(sampler)
    trace = requests.begin(parent(flags))
    trace.admitted("e", "m-1", "r", 10)
    handed_on = trace.sent("one")
    trace.ended(200)
    assert handed_on is not None
    assert handed_on.split("-")[1] == TRACE
    assert handed_on.endswith("-00")
    assert exporter.get_finished_spans() == ()


def test_without_tracing_nothing_is_handed_on() -> None:
    assert RequestTracer().begin({}) is UNTRACED
