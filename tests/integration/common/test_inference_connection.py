"""The connection of scoring frames: read and written past nats-py's queues, kept alive by it."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from nats import errors
from nats.aio.msg import Msg
from tests.infrastructure import NatsServer
from tests.nats_clients import settle
from tests.waiting import until

from servery_common.messaging.bus import connect_inference
from servery_common.messaging.inference import InferenceClient
from servery_common.settings import NatsSettings

SUBJECT = "servery.infer.x"


class Received:
    """What came to a handler."""

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, str, bytes]] = []

    def __call__(self, payload: memoryview, reply: str, headers: bytes, _subject: bytes) -> None:
        self.messages.append((bytes(payload), reply, headers))

    @property
    def payloads(self) -> list[bytes]:
        return [payload for payload, _, _ in self.messages]


async def connected(server: NatsServer) -> InferenceClient:
    return await connect_inference(NatsSettings(url=server.url), name="t", on_disconnect=lambda: None)


@pytest.fixture
async def client(nats_server: NatsServer) -> AsyncIterator[InferenceClient]:
    client = await connected(nats_server)
    yield client
    await client.close()


@pytest.fixture
async def received(client: InferenceClient) -> Received:
    received = Received()
    await client.receive(SUBJECT, received)
    return received


async def test_messages_arrive_whole_and_in_order(client: InferenceClient, received: Received) -> None:
    sizes = [0, 1, 100, 64 * 1024, 700_000, 3, 1_000_000]
    payloads = [bytes([number]) * size for number, size in enumerate(sizes)]
    for payload in payloads:
        client.send(SUBJECT, payload, reply="servery.replies.me")
    await until(lambda: len(received.messages) == len(payloads))
    assert received.payloads == payloads
    assert {(reply, headers) for _, reply, headers in received.messages} == {("servery.replies.me", b"")}


async def test_a_payload_in_parts_is_one_message(client: InferenceClient, received: Received) -> None:
    client.send(SUBJECT, [b"head", memoryview(b"x" * 500_000), b"", b"tail"])
    client.send(SUBJECT, (b"short", memoryview(b"er")))
    await until(lambda: len(received.messages) == 2)
    assert received.payloads == [b"head" + b"x" * 500_000 + b"tail", b"shorter"]


async def test_the_trace_context_travels_in_a_header(client: InferenceClient, received: Received) -> None:
    client.send(SUBJECT, b"traced", traceparent="00-1-2-01")
    await until(lambda: bool(received.messages))
    [(payload, _, headers)] = received.messages
    assert payload == b"traced"
    assert b"\r\ntraceparent: 00-1-2-01\r\n" in headers


async def test_what_nats_py_does_goes_on_beside_it(client: InferenceClient, received: Received) -> None:
    async def answer(msg: Msg) -> None:
        client.send(SUBJECT, b"from the handler")
        await msg.respond(msg.data)

    await client.subscribe("servery.echo", cb=answer)
    assert (await client.request("servery.echo", b"hello", timeout=5)).data == b"hello"
    client.send(SUBJECT, b"before the flush")
    await settle(client)
    assert received.payloads == [b"from the handler", b"before the flush"]


async def test_a_message_to_nobody_comes_back_as_a_status(
    client: InferenceClient, received: Received
) -> None:
    client.send("servery.infer.nobody", b"anyone?", reply=SUBJECT)
    await until(lambda: bool(received.messages))
    [(payload, _, headers)] = received.messages
    assert payload == b""
    assert headers.startswith(b"NATS/1.0 503")
    assert b"Nats-Subject: servery.infer.nobody\r\n" in headers


async def test_a_handler_that_fails_takes_nothing_with_it(
    client: InferenceClient, received: Received
) -> None:
    def fails(payload: memoryview, reply: str, headers: bytes, subject: bytes) -> None:
        raise ValueError("no")

    await client.receive("servery.infer.fails", fails)
    client.send("servery.infer.fails", b"x")
    client.send(SUBJECT, b"y")
    await until(lambda: received.payloads == [b"y"])
    assert client.losses == 0


async def test_nothing_is_received_after_ignore(client: InferenceClient, received: Received) -> None:
    await client.ignore(SUBJECT)
    client.send(SUBJECT, b"x")
    await settle(client)
    assert received.messages == []


async def test_it_goes_on_after_a_restart_of_the_server_and_keeps_nothing_for_it(
    client: InferenceClient, received: Received, nats_server: NatsServer
) -> None:
    client.send(SUBJECT, b"before")
    await until(lambda: received.payloads == [b"before"])
    nats_server.kill()
    await until(lambda: not client.is_connected)
    with pytest.raises(errors.OutboundBufferLimitError):
        client.send(SUBJECT, b"stale")
    assert client.unsent == 0
    nats_server.start()
    await until(lambda: client.is_connected, 10)
    assert client.losses == 1
    await settle(client)
    client.send(SUBJECT, b"after")
    await until(lambda: received.payloads == [b"before", b"after"])


async def test_a_server_that_does_not_read_leaves_bytes_unsent(
    client: InferenceClient, received: Received, nats_server: NatsServer
) -> None:
    nats_server.pause()
    try:
        for _ in range(20):
            client.send(SUBJECT, b"x" * 900_000)
        await asyncio.sleep(0.05)
        assert client.unsent > 1_000_000
    finally:
        nats_server.resume()
    await until(lambda: len(received.messages) == 20, 20)
    assert client.unsent == 0


async def test_what_the_server_would_refuse_is_not_sent(client: InferenceClient) -> None:
    with pytest.raises(errors.MaxPayloadError):
        client.send(SUBJECT, b"x" * (client.max_payload + 1))
    with pytest.raises(errors.MaxPayloadError):
        client.send(SUBJECT, b"x" * client.max_payload, traceparent="00-1-2-01")
    client.send(SUBJECT, b"x" * client.max_payload)
    await settle(client)
    assert client.losses == 0
