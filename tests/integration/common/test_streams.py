"""Jobs and events through JetStream."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
from nats.js.api import StreamConfig
from tests.infrastructure import NatsServer
from tests.messages import Ask, Other
from tests.waiting import until

from servery_common.contracts.message import Message
from servery_common.contracts.subjects import EVENTS_STREAM, JOBS_STREAM
from servery_common.errors import Unavailable
from servery_common.messaging import consumer, streams
from servery_common.messaging.bus import NatsBus

Handlers = Mapping[type[Message], Callable[[Message], Awaitable[None]]]


@asynccontextmanager
async def consuming(bus: NatsBus, subject: str, handlers: Handlers, stream: str) -> AsyncIterator[None]:
    task = asyncio.create_task(bus.consume(stream, f"durable-{uuid4().hex[:8]}", subject, handlers))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def new_subject(kind: str = "events") -> str:
    return f"servery.{kind}.test.{uuid4().hex}"


async def collect(queue: "asyncio.Queue[str]", count: int) -> list[str]:
    async with asyncio.timeout(20):
        return [await queue.get() for _ in range(count)]


async def test_an_event_published_twice_is_stored_once_and_in_order(bus: NatsBus, other_bus: NatsBus) -> None:
    subject, received = new_subject(), asyncio.Queue[str]()

    async def handle(message: Message) -> None:
        assert isinstance(message, Ask)
        received.put_nowait(message.text)

    first = uuid4().hex
    await bus.publish(subject, Ask(text="1"), event_id=first)
    await bus.publish(subject, Ask(text="1"), event_id=first)
    await bus.publish(subject, Ask(text="2"), event_id=uuid4().hex)
    await bus.publish(subject, Ask(text="3"), event_id=uuid4().hex)
    async with consuming(other_bus, subject, {Ask: handle}, EVENTS_STREAM):
        assert await collect(received, 3) == ["1", "2", "3"]


async def test_a_failing_handler_gets_the_message_again(bus: NatsBus, other_bus: NatsBus) -> None:
    subject, received = new_subject("jobs"), asyncio.Queue[str]()

    async def handle(message: Message) -> None:
        assert isinstance(message, Ask)
        received.put_nowait(message.text)
        if received.qsize() == 1:
            raise RuntimeError("the first time")

    await bus.publish(subject, Ask(text="1"), event_id=uuid4().hex)
    async with consuming(other_bus, subject, {Ask: handle}, JOBS_STREAM):
        await until(lambda: received.qsize() == 2)


async def test_unreadable_and_hopeless_messages_do_not_hold_up_the_others(
    bus: NatsBus, other_bus: NatsBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "MAX_DELIVERIES", 2)
    monkeypatch.setattr(consumer, "redelivery_delay", lambda _: 0.05)
    subject, received = new_subject("jobs"), asyncio.Queue[str]()

    async def handle(message: Message) -> None:
        assert isinstance(message, Ask)
        received.put_nowait(message.text)
        if message.text == "hopeless":
            raise RuntimeError("always")

    await bus.publish(subject, Other(number=1), event_id=uuid4().hex)
    await bus.publish(subject, Ask(text="hopeless"), event_id=uuid4().hex)
    await bus.publish(subject, Ask(text="good"), event_id=uuid4().hex)
    js = bus.nats.jetstream()
    async with consuming(other_bus, subject, {Ask: handle}, JOBS_STREAM), asyncio.timeout(15):
        while True:
            if not (await js.stream_info(JOBS_STREAM, subjects_filter=subject)).state.subjects:
                break
            await asyncio.sleep(0.1)
    texts = [received.get_nowait() for _ in range(received.qsize())]
    assert sorted(texts) == ["good", "hopeless", "hopeless"]


async def test_a_long_handler_keeps_its_message(
    bus: NatsBus, other_bus: NatsBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "ACK_WAIT_SECONDS", 1.0)
    monkeypatch.setattr(consumer, "PROGRESS_SECONDS", 0.3)
    subject, started, finished = new_subject("jobs"), list[str](), asyncio.Event()

    async def handle(message: Message) -> None:
        started.append(message.message_type)
        await asyncio.sleep(2.5)
        finished.set()

    await bus.publish(subject, Ask(text="1"), event_id=uuid4().hex)
    async with consuming(other_bus, subject, {Ask: handle}, JOBS_STREAM):
        await asyncio.wait_for(finished.wait(), 10)
        await asyncio.sleep(0.3)
    assert len(started) == 1


async def test_consuming_goes_on_after_nats_lost_its_disk(
    bus: NatsBus, other_bus: NatsBus, nats_server: NatsServer
) -> None:
    subject, received = new_subject(), asyncio.Queue[str]()

    async def handle(message: Message) -> None:
        assert isinstance(message, Ask)
        received.put_nowait(message.text)

    async with consuming(other_bus, subject, {Ask: handle}, EVENTS_STREAM):
        await bus.publish(subject, Ask(text="before"), event_id=uuid4().hex)
        assert await collect(received, 1) == ["before"]
        nats_server.restart(lose_data=True)
        async with asyncio.timeout(15):
            while True:
                try:
                    await bus.publish(subject, Ask(text="after"), event_id="after")
                    break
                except Unavailable:
                    await asyncio.sleep(0.1)
        assert await collect(received, 1) == ["after"]


async def test_publishing_fails_at_once_while_nats_is_away(bus: NatsBus, nats_server: NatsServer) -> None:
    nats_server.kill()
    try:
        await until(lambda: not bus.connected, 3)
        with pytest.raises(Unavailable):
            await asyncio.wait_for(bus.publish(new_subject(), Ask(text="x"), event_id="x"), 1)
    finally:
        nats_server.start()


async def test_a_changed_stream_is_updated(bus: NatsBus) -> None:
    js = bus.nats.jetstream()
    declared = streams.DECLARED[0]
    await js.update_stream(StreamConfig(**{**declared.__dict__, "max_age": 3600.0}))
    await streams.declare(js)
    assert (await js.stream_info(EVENTS_STREAM)).config.max_age == declared.max_age
