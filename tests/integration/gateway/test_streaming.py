"""Streamed answers at the gateway's door: events as they come, what ends them, and who is slow."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import httpx
import pytest
from tests.integration.gateway.conftest import TOKEN, World, eventually
from tests.integration.gateway.peers import FakeReplica, Work, endpoint, entity

from servery_common.contracts import frames
from servery_common.contracts.metrics import EntityMetrics
from servery_gateway.answer_stream import ACKNOWLEDGE_BYTES
from servery_gateway.dispatcher import Dispatcher
from servery_gateway.request_meter import EntityMeter

BODY = b'{"prompt": "x", "stream": true}'


MORE_THAN_SOCKETS_HOLD = 64 * 1024 * 1024


class Streamer:
    """A replica whose answers the test plays record by record."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.replica: FakeReplica
        self.work: list[Work] = []
        self._release = asyncio.Event()

    async def start(self, **fields) -> "Streamer":
        self.replica = await self._world.replica("r1", self._model)
        route = endpoint("chat", entity("chat-1", self.replica.route(slots=1)), **fields)
        await self._world.publish(route)
        return self

    async def _model(self, work: Work) -> tuple[int, bytes]:
        self.work.append(work)
        await self._release.wait()
        raise AssertionError("never answered by itself")

    async def given(self, count: int = 1) -> Work:
        await eventually(lambda: len(self.work) >= count)
        return self.work[count - 1]

    async def begin(self, work: Work) -> None:
        head = {"ct": "text/event-stream"}
        await self.replica.send(work.reply, frames.encode(frames.RESULT, work.id, head, flags=frames.STREAM))

    async def say(self, work: Work, content: bytes) -> None:
        await self.replica.send(work.reply, frames.encode(frames.CHUNK, work.id, None, content))

    async def end(self, work: Work, head: dict | None = None, body: bytes = b"") -> None:
        await self.replica.send(work.reply, frames.encode(frames.END, work.id, head, body))


@pytest.fixture
async def streamer(world: World) -> Streamer:
    return await Streamer(world).start()


def score(world: World):
    return world.http.stream("POST", "/serving-endpoints/chat/invocations", content=BODY)


async def opened(world: World, streamer: Streamer, count: int = 1) -> tuple[Work, asyncio.Task]:
    """Have a request at the replica; the task is what its client reads."""
    task = asyncio.create_task(read_all(world))
    return await streamer.given(count), task


async def read_all(world: World) -> tuple[httpx.Response, bytes, bool]:
    """Return the response, what was read, and whether it was complete."""
    content = b""
    async with score(world) as response:
        try:
            async for piece in response.aiter_raw():
                content += piece
        except httpx.RemoteProtocolError:
            return response, content, False
        return response, content, True


def event(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


async def test_items_pass_as_they_are_and_done_is_added(world: World, streamer: Streamer) -> None:
    work, reading = await opened(world, streamer)
    await streamer.begin(work)
    for number in range(3):
        await streamer.say(work, event(number))
    await streamer.end(work)
    response, content, complete = await reading
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream"
    assert response.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in response.headers
    assert response.headers["served-model-name"] == "chat-1"
    assert content == event(0) + event(1) + event(2) + b"data: [DONE]\n\n"
    assert complete


async def test_a_streams_times_are_counted(world: World, streamer: Streamer) -> None:
    work, reading = await opened(world, streamer)
    await streamer.begin(work)
    await streamer.say(work, event("first"))
    await streamer.end(work, {"p": 7000})
    assert (await reading)[2]
    [chat] = world.gateway.dispatcher.pools()
    meter = world.gateway.meters.of(chat.served_entity_id)
    assert meter is not None
    await eventually(lambda: sum(read(meter).latency.counts) == 1)
    assert read(meter).prediction.sum_ms == 7.0


def read(meter: EntityMeter) -> EntityMetrics:
    return meter.read(0.0, in_flight=0, queued=0)


async def test_an_item_reaches_the_client_before_the_next_is_made(world: World, streamer: Streamer) -> None:
    async with asyncio.timeout(20):
        async with score_after_begin(world, streamer) as (work, response):
            pieces = response.aiter_raw()
            assert await anext(pieces) == event("first")
            await streamer.end(work)
            assert b"".join([piece async for piece in pieces]) == b"data: [DONE]\n\n"


async def test_the_slot_is_held_until_the_stream_ends(world: World, streamer: Streamer) -> None:
    first, reading = await opened(world, streamer)
    await streamer.begin(first)
    waiting = asyncio.create_task(read_all(world))
    await eventually(lambda: queued(world.gateway.dispatcher) == 1)
    await streamer.end(first)
    assert (await reading)[2]
    second = await streamer.given(2)
    await streamer.begin(second)
    await streamer.end(second)
    assert (await waiting)[2]
    assert world.gateway.dispatcher.unfinished == 0


def queued(dispatcher: Dispatcher) -> int:
    return sum(len(pool.queue) for pool in dispatcher.pools())


async def test_an_error_in_the_middle_is_an_event_and_an_incomplete_answer(
    world: World, streamer: Streamer
) -> None:
    work, reading = await opened(world, streamer)
    await streamer.begin(work)
    await streamer.say(work, event("first"))
    error = {"error_code": "INTERNAL_ERROR", "message": "no", "stack_trace": "…"}
    await streamer.end(work, {"status": 500}, json.dumps(error).encode())
    _, content, complete = await reading
    assert not complete
    last = content.strip().rsplit(b"\n\n", 1)[1].removeprefix(b"data: ")
    assert json.loads(last) == {"error": {**error, "error_code": "BAD_REQUEST"}}
    assert b"[DONE]" not in content


async def test_a_replica_that_dies_in_the_middle_never_looks_done(world: World, streamer: Streamer) -> None:
    work, reading = await opened(world, streamer)
    await streamer.begin(work)
    await streamer.say(work, b'data: {"cut')
    await streamer.replica.stop()
    _, content, complete = await reading
    assert not complete
    assert b"[DONE]" not in content
    events = [part for part in content.split(b"\n\n") if part.strip()]
    assert json.loads(events[-1].strip().removeprefix(b"data: "))["error"]["error_code"] == (
        "TEMPORARILY_UNAVAILABLE"
    )
    assert world.gateway.dispatcher.unfinished == 0


async def test_a_client_that_leaves_cancels_and_frees_the_slot(world: World, streamer: Streamer) -> None:
    async with score_after_begin(world, streamer) as (work, response):
        assert response.status_code == 200
    await eventually(lambda: streamer.replica.cancels == [work.id])
    await eventually(lambda: world.gateway.dispatcher.unfinished == 0)


@contextlib.asynccontextmanager
async def score_after_begin(world: World, streamer: Streamer) -> AsyncIterator[tuple[Work, httpx.Response]]:
    async with asyncio.TaskGroup() as tasks:
        beginning = tasks.create_task(begun(streamer))
        async with score(world) as response:
            yield await beginning, response


async def begun(streamer: Streamer) -> Work:
    work = await streamer.given()
    await streamer.begin(work)
    await streamer.say(work, event("first"))
    return work


async def test_a_silent_model_is_broken_off_at_the_endpoints_timeout(world: World) -> None:
    streamer = await Streamer(world).start(timeout_seconds=0.4)
    work, reading = await opened(world, streamer)
    await streamer.begin(work)
    await streamer.say(work, event("first"))
    _, content, complete = await reading
    assert not complete
    assert b"DEADLINE_EXCEEDED" in content
    await eventually(lambda: streamer.replica.cancels == [work.id])


async def test_the_longest_time_of_a_stream_is_bounded(world: World) -> None:
    streamer = await Streamer(world).start(max_stream_seconds=0.4)
    work, reading = await opened(world, streamer)
    await streamer.begin(work)
    while not reading.done():
        await streamer.say(work, event("lively"))
        await asyncio.sleep(0.02)
    assert b"DEADLINE_EXCEEDED" in reading.result()[1]


async def test_the_window_opens_as_the_client_takes_and_not_before(world: World, streamer: Streamer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", world.gateway.port, limit=4096)
    head = (
        f"POST /serving-endpoints/chat/invocations HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n"
        f"content-length: {len(BODY)}\r\n\r\n"
    )
    writer.write(head.encode() + BODY)
    work = await streamer.given()
    replica = streamer.replica
    acknowledged = replica.windows[work.id] = asyncio.Event()
    replica.unacknowledged[work.id] = 0
    await streamer.begin(work)
    piece, sent, shut = b"x" * ACKNOWLEDGE_BYTES, 0, False
    # Sockets hold some megabytes on their way; after that the gateway would have to keep what comes. The window is shut
    # when it is full and the record that says each second that the stream is wanted opens nothing.
    while not shut:
        before = replica.unacknowledged[work.id]
        full = before + len(piece) > frames.STREAM_WINDOW_BYTES
        if not full:
            replica.unacknowledged[work.id] += len(piece)
            sent += len(piece)
            assert sent < MORE_THAN_SOCKETS_HOLD, "taken, though the client reads nothing"
            await streamer.say(work, piece)
        acknowledged.clear()
        await asyncio.wait_for(acknowledged.wait(), 10)
        shut = full and replica.unacknowledged[work.id] == before
    # It opens by a message, which may arrive after the last of what there is to read.
    reading = asyncio.create_task(reader.read())
    await eventually(lambda: replica.unacknowledged[work.id] < before)
    writer.close()
    await reading


async def test_a_gateway_that_stops_finishes_its_streams(world: World, streamer: Streamer) -> None:
    async with score_after_begin(world, streamer) as (work, response):
        stopping = asyncio.create_task(world.gateway.stop())
        await eventually(lambda: world.gateway.why_not_ready() == "stopping")
        await streamer.say(work, event("second"))
        await streamer.end(work)
        content = b"".join([piece async for piece in response.aiter_raw()])
        assert content.endswith(event("second") + b"data: [DONE]\n\n")
    await asyncio.wait_for(stopping, 20)


async def test_an_answer_left_unfinished_on_purpose_is_logged_once_and_by_its_reason(
    world: World, streamer: Streamer, caplog: pytest.LogCaptureFixture
) -> None:
    work, reading = await opened(world, streamer)
    await streamer.begin(work)
    await streamer.end(work, {"status": 400}, b'{"error_code": "BAD_REQUEST", "message": "no"}')
    assert not (await reading)[2]
    assert [record for record in caplog.records if record.name == "uvicorn.error"] == []
