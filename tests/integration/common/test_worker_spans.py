"""Spans of a worker that reaches no collector: over NATS to the controller, and from there to the collector."""

import asyncio
from collections.abc import Iterator

import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from tests.end_to_end.otlp_receiver import OtlpReceiver

from servery_common.contracts import subjects
from servery_common.contracts.replicas import WorkerSpans
from servery_common.messaging.bus import NatsBus
from servery_controller.compute.span_relay import SpanRelay, traces_url
from servery_worker.span_exporter import BusSpanExporter


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    receiver = OtlpReceiver()
    yield receiver
    receiver.close()


async def test_spans_of_a_worker_arrive_at_the_collector(
    bus: NatsBus, other_bus: NatsBus, receiver: OtlpReceiver
) -> None:
    heard = asyncio.Event()
    async with httpx.AsyncClient() as web:
        relay = SpanRelay(web, traces_url({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint}))

        async def take(spans: WorkerSpans) -> None:
            await relay.heard(spans)
            heard.set()

        await bus.on_signal(
            subjects.ALL_WORKER_SPANS, WorkerSpans, take, sender=lambda spans: spans.worker_id
        )
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(BusSpanExporter(other_bus, "w1")))
        with provider.get_tracer("t").start_as_current_span("predict") as span:
            trace_id = f"{span.get_span_context().trace_id:032x}"
        await asyncio.wait_for(heard.wait(), 10)
    assert [one.name for one in receiver.trace(trace_id)] == ["predict"]


async def test_spans_wait_for_a_collector_that_is_just_starting() -> None:
    answers = [httpx.ConnectError("refused"), httpx.Response(503), httpx.Response(200)]
    tried = 0

    def collector(request: httpx.Request) -> httpx.Response:
        nonlocal tried
        answer = answers[tried]
        tried += 1
        if isinstance(answer, httpx.Response):
            return answer
        raise answer

    async with httpx.AsyncClient(transport=httpx.MockTransport(collector)) as web:
        await SpanRelay(web, "http://collector/v1/traces").heard(WorkerSpans(worker_id="w1", otlp=b"x"))
    assert tried == len(answers)


async def test_spans_that_a_collector_does_not_take_are_not_sent_again() -> None:
    tried = 0

    def collector(request: httpx.Request) -> httpx.Response:
        nonlocal tried
        tried += 1
        return httpx.Response(400)

    async with httpx.AsyncClient(transport=httpx.MockTransport(collector)) as web:
        await SpanRelay(web, "http://collector/v1/traces").heard(WorkerSpans(worker_id="w1", otlp=b"x"))
    assert tried == 1


async def test_a_collector_that_stays_away_costs_nothing_but_spans() -> None:
    tried = 0

    def collector(request: httpx.Request) -> httpx.Response:
        nonlocal tried
        tried += 1
        raise httpx.ConnectError("refused")

    async with httpx.AsyncClient(transport=httpx.MockTransport(collector)) as web:
        relay = SpanRelay(web, "http://collector/v1/traces", patience=0.01)
        await relay.heard(WorkerSpans(worker_id="w1", otlp=b"x"))
        tried = 0
        for _ in range(3):
            await relay.heard(WorkerSpans(worker_id="w1", otlp=b"x"))
        assert tried == 3, "nobody waits for it any more"


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/"}, "http://c:4318/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/mine"}, "http://c/mine"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "TRUE"}, None),
    ],
)
def test_traces_go_where_opentelemetrys_variables_say(environment: dict[str, str], url: str | None) -> None:
    assert traces_url(environment) == url
