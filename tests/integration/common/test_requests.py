"""Request/reply between two processes over a real NATS server."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, use_span
from tests.infrastructure import NatsServer
from tests.messages import Answer, Ask, Other
from tests.waiting import until

from servery_common import errors
from servery_common.messaging import requests, serving
from servery_common.messaging.bus import NatsBus


async def echo(message: Ask) -> Answer:
    return Answer(text=message.text)


async def test_an_answer_of_several_megabytes_arrives_whole(bus: NatsBus, other_bus: NatsBus) -> None:
    large = "".join(chr(97 + i % 26) for i in range(3_000_001))

    async def handler(_: Ask) -> Answer:
        return Answer(text=large)

    await other_bus.serve("servery.api.test.large", Ask, handler)
    answers = await asyncio.gather(
        *(bus.request("servery.api.test.large", Ask(text="x"), Answer, timeout=10) for _ in range(3))
    )
    assert [answer.text == large for answer in answers] == [True, True, True]


async def test_a_request_that_nobody_serves_fails_at_once(bus: NatsBus) -> None:
    began = time.monotonic()
    with pytest.raises(errors.Unavailable):
        await bus.request("servery.api.test.nobody", Ask(text="x"), Answer, timeout=10)
    assert time.monotonic() - began < 10


async def test_errors_arrive_as_the_class_that_was_raised(bus: NatsBus, other_bus: NatsBus) -> None:
    async def handler(message: Ask) -> Answer:
        raise errors.Conflict("busy", retry_after=7)

    await other_bus.serve("servery.api.test.conflict", Ask, handler)
    with pytest.raises(errors.Conflict) as caught:
        await bus.request("servery.api.test.conflict", Ask(text="x"), Answer, timeout=5)
    assert (caught.value.message, caught.value.retry_after) == ("busy", 7)


async def test_a_fault_of_the_handler_does_not_show_its_details(bus: NatsBus, other_bus: NatsBus) -> None:
    async def handler(message: Ask) -> Answer:
        raise KeyError("secret")

    await other_bus.serve("servery.api.test.fault", Ask, handler)
    with pytest.raises(errors.Internal) as caught:
        await bus.request("servery.api.test.fault", Ask(text="x"), Answer, timeout=5)
    assert "secret" not in caught.value.message


async def test_a_message_of_another_type_is_refused(bus: NatsBus, other_bus: NatsBus) -> None:
    await other_bus.serve("servery.api.test.typed", Ask, echo)
    with pytest.raises(errors.BadRequest):
        await bus.request("servery.api.test.typed", Other(number=1), Answer, timeout=5)


async def test_a_too_large_request_fails_and_leaves_the_connection_alone(
    bus: NatsBus, other_bus: NatsBus
) -> None:
    await other_bus.serve("servery.api.test.size", Ask, echo)
    overhead = len(Ask(text="").model_dump_json())
    for size in (bus.nats.max_payload - overhead, bus.nats.max_payload * 2):
        with pytest.raises(errors.BadRequest):
            await bus.request("servery.api.test.size", Ask(text="x" * size), Answer, timeout=5)
    assert (await bus.request("servery.api.test.size", Ask(text="y"), Answer, timeout=5)).text == "y"
    assert bus.nats.stats["reconnects"] == 0


async def test_requests_run_side_by_side(bus: NatsBus, other_bus: NatsBus) -> None:
    together = asyncio.Barrier(20)

    async def handler(message: Ask) -> Answer:
        await together.wait()
        return Answer(text=message.text)

    await other_bus.serve("servery.api.test.parallel", Ask, handler)
    answers = await asyncio.gather(
        *(bus.request("servery.api.test.parallel", Ask(text=str(i)), Answer, timeout=5) for i in range(20))
    )
    assert [answer.text for answer in answers] == [str(i) for i in range(20)]


async def test_a_request_whose_caller_gave_up_is_not_started(
    bus: NatsBus, other_bus: NatsBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "MAX_RUNNING", 1)
    release, handled = asyncio.Event(), list[str]()

    async def handler(message: Ask) -> Answer:
        handled.append(message.text)
        await release.wait()
        return Answer(text=message.text)

    await other_bus.serve("servery.api.test.expired", Ask, handler)
    first = asyncio.create_task(bus.request("servery.api.test.expired", Ask(text="1"), Answer, timeout=10))
    await until(lambda: bool(handled))
    with pytest.raises(errors.Unavailable):
        await bus.request("servery.api.test.expired", Ask(text="2"), Answer, timeout=0.2)
    # Counted from when it was received, which on a busy machine is later than when it was sent.
    await asyncio.sleep(1)
    release.set()
    await first
    assert (await bus.request("servery.api.test.expired", Ask(text="3"), Answer, timeout=5)).text == "3"
    assert handled == ["1", "3"]


async def test_members_of_a_queue_share_the_requests(bus: NatsBus, other_bus: NatsBus) -> None:
    handled = list[str]()

    async def handler(message: Ask) -> Answer:
        handled.append(message.text)
        return Answer(text=message.text)

    for member in (bus, other_bus):
        await member.serve("servery.api.test.queue", Ask, handler, queue="members")
    for number in range(10):
        await bus.request("servery.api.test.queue", Ask(text=str(number)), Answer, timeout=5)
    assert handled == [str(number) for number in range(10)]


async def test_a_stream_of_answers_ends_after_the_last(bus: NatsBus, other_bus: NatsBus) -> None:
    async def handler(message: Ask) -> AsyncIterator[Answer | Other]:
        yield Answer(text=message.text)
        yield Other(number=2)

    await other_bus.serve_stream("servery.api.test.stream", Ask, handler)
    answers = [
        answer
        async for answer in bus.request_stream(
            "servery.api.test.stream", Ask(text="1"), [Answer, Other], silence=5
        )
    ]
    assert answers == [Answer(text="1"), Other(number=2)]


async def test_a_stream_that_falls_silent_is_unavailable(bus: NatsBus, other_bus: NatsBus) -> None:
    async def handler(message: Ask) -> AsyncIterator[Answer]:
        yield Answer(text="1")
        await asyncio.sleep(30)

    await other_bus.serve_stream("servery.api.test.silent", Ask, handler)
    answers = aiter(bus.request_stream("servery.api.test.silent", Ask(text="1"), [Answer], silence=0.3))
    assert await anext(answers) == Answer(text="1")
    with pytest.raises(errors.Unavailable):
        await anext(answers)


async def test_an_error_in_a_stream_arrives(bus: NatsBus, other_bus: NatsBus) -> None:
    async def handler(message: Ask) -> AsyncIterator[Answer]:
        yield Answer(text="1")
        raise errors.NotFound("gone")

    await other_bus.serve_stream("servery.api.test.broken", Ask, handler)
    answers = aiter(bus.request_stream("servery.api.test.broken", Ask(text="1"), [Answer], silence=5))
    assert await anext(answers) == Answer(text="1")
    with pytest.raises(errors.NotFound):
        await anext(answers)


async def test_the_trace_of_the_caller_reaches_the_handler(bus: NatsBus, other_bus: NatsBus) -> None:
    seen = list[int]()

    async def handler(message: Ask) -> Answer:
        seen.append(trace.get_current_span().get_span_context().trace_id)
        return Answer(text="")

    await other_bus.serve("servery.api.test.trace", Ask, handler)
    context = SpanContext(
        trace_id=0xABCDEF, span_id=0x123, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED)
    )
    with use_span(NonRecordingSpan(context)):
        await bus.request("servery.api.test.trace", Ask(text="x"), Answer, timeout=5)
    assert seen == [0xABCDEF]


async def test_the_spans_of_caller_and_handler_are_one_trace(
    bus: NatsBus, other_bus: NatsBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    for module in (requests, serving):
        monkeypatch.setattr(module, "tracer", provider.get_tracer("test"))
    await other_bus.serve("servery.api.test.spans", Ask, echo)
    await bus.request("servery.api.test.spans", Ask(text="x"), Answer, timeout=5)
    await until(lambda: len(exporter.get_finished_spans()) == 2)
    spans = {span.kind: span for span in exporter.get_finished_spans()}
    caller, handler = spans[SpanKind.CLIENT], spans[SpanKind.SERVER]
    assert (caller.name, handler.name) == ("test.spans request", "test.spans process")
    assert handler.parent is not None
    assert handler.parent.span_id == caller.context.span_id


async def test_what_is_in_flight_fails_at_once_when_nats_dies_and_works_again_after(
    bus: NatsBus, other_bus: NatsBus, nats_server: NatsServer
) -> None:
    started = asyncio.Event()

    async def handler(message: Ask) -> Answer:
        if message.text == "hang":
            started.set()
            await asyncio.sleep(60)
        return Answer(text=message.text)

    await other_bus.serve("servery.api.test.restart", Ask, handler)
    hanging = asyncio.create_task(
        bus.request("servery.api.test.restart", Ask(text="hang"), Answer, timeout=60)
    )
    await asyncio.wait_for(started.wait(), 10)
    nats_server.kill()
    with pytest.raises(errors.Unavailable):
        await asyncio.wait_for(hanging, 2)
    with pytest.raises(errors.Unavailable):
        await asyncio.wait_for(bus.request("servery.api.test.restart", Ask(text="x"), Answer, timeout=60), 1)
    await bus.signal("servery.signals.test", Ask(text="lost"))
    nats_server.start()
    async with asyncio.timeout(10):
        while True:
            try:
                answer = await bus.request("servery.api.test.restart", Ask(text="y"), Answer, timeout=1)
                break
            except errors.Unavailable:
                await asyncio.sleep(0.1)
    assert answer.text == "y"


async def test_an_answer_that_comes_too_late_is_unavailable(bus: NatsBus, other_bus: NatsBus) -> None:
    async def handler(message: Ask) -> Answer:
        await asyncio.sleep(0.5)
        return Answer(text="")

    await other_bus.serve("servery.api.test.late", Ask, handler)
    with pytest.raises(errors.Unavailable):
        await bus.request("servery.api.test.late", Ask(text="x"), Answer, timeout=0.1)
