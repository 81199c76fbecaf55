"""What a connection survives."""

import asyncio
import contextlib
import socket
import time
from pathlib import Path
from unittest.mock import patch

import pytest
from nats import errors as nats_errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from pydantic import SecretStr
from tests.infrastructure import NatsServer, running_nats
from tests.messages import Answer, Ask
from tests.waiting import until

from servery_common.messaging import client as client_module
from servery_common.messaging.bus import NatsBus, connect_bus, connect_inference
from servery_common.settings import NatsSettings


async def echo(message: Ask) -> Answer:
    return Answer(text=message.text)


async def reconnects(client: Client, count: int, seconds: float = 10) -> None:
    await until(lambda: client.stats["reconnects"] >= count and client.is_connected, seconds)


async def test_a_service_may_start_before_nats(tmp_path: Path) -> None:
    server = NatsServer(tmp_path)
    async with contextlib.AsyncExitStack() as stack:
        connecting = asyncio.create_task(
            stack.enter_async_context(connect_bus(NatsSettings(url=server.url), name="early"))
        )
        await asyncio.sleep(0.5)
        assert not connecting.done()
        server.start()
        try:
            assert (await asyncio.wait_for(connecting, 10)).connected
        finally:
            server.stop()


async def test_a_wrong_password_is_tried_again_until_it_is_right(tmp_path: Path) -> None:
    with running_nats(config='authorization { user: "servery", password: "right" }') as server:
        wrong = NatsSettings(url=server.url, user="servery", password=SecretStr("wrong"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2), connect_bus(wrong, name="wrong"):
                pass
        right = NatsSettings(url=server.url, user="servery", password=SecretStr("right"))
        async with asyncio.timeout(5), connect_bus(right, name="right") as bus:
            assert bus.connected


async def test_a_subscription_that_is_settled_is_found(bus: NatsBus, other_bus: NatsBus) -> None:
    async def answer(msg: Msg) -> None:
        await msg.respond(b"here")

    # So often, since only one in some forty met "no responders" when the server's pong proved nothing.
    for number in range(1000):
        subscription = await other_bus.nats.subscribe(f"test.settled.{number}", cb=answer)
        await other_bus.nats.settle()
        assert (await bus.nats.request(f"test.settled.{number}", b"", timeout=10)).data == b"here"
        await subscription.unsubscribe()


async def test_a_dead_read_loop_is_noticed_and_replaced(bus: NatsBus) -> None:
    reading = bus.nats._reading_task
    assert reading is not None
    reading.cancel()
    await reconnects(bus.nats, 1, seconds=3)
    await bus.serve("servery.api.test.zombie", Ask, echo)
    assert (await bus.request("servery.api.test.zombie", Ask(text="1"), Answer, timeout=5)).text == "1"


async def test_a_silent_connection_is_given_up(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "PROBE_SECONDS", 1)
    monkeypatch.setattr(client_module, "PROBE_EVERY", 1)
    lost = asyncio.Event()
    client = await connect_inference(NatsSettings(url=nats_server.url), name="t", on_disconnect=lost.set)
    try:
        nats_server.pause()
        await asyncio.wait_for(lost.wait(), 5)
        nats_server.resume()
        await reconnects(client, 1)
    finally:
        nats_server.resume()
        await client.close()


async def test_a_connection_that_breaks_as_it_is_closed_is_closed(nats_server: NatsServer) -> None:
    client = await connect_inference(NatsSettings(url=nats_server.url), name="t", on_disconnect=lambda: None)
    called = list[Msg]()

    async def take(msg: Msg) -> None:
        called.append(msg)

    await client.subscribe("servery.api.test.closing", cb=take)
    reset = ConnectionResetError("Connection lost")
    with patch.object(type(client._transport), "drain", side_effect=reset):
        client._pending.append(b"PING\r\n")
        client._pending_data_size += 6
        await client.close()
    assert client.is_closed
    assert not client._subs


async def test_an_error_of_the_server_does_not_close_the_connection_for_good(
    bus: NatsBus, other_bus: NatsBus
) -> None:
    await bus.serve("servery.api.test.violation", Ask, echo)
    with patch.object(type(bus.nats), "_send_publish", Client._send_publish):
        await bus.nats.publish("servery.signals.test", b"x" * bus.nats.max_payload, headers={"a": "b"})
        await reconnects(bus.nats, 1)
    answer = await other_bus.request("servery.api.test.violation", Ask(text="1"), Answer, timeout=5)
    assert answer.text == "1"


async def test_the_inference_connection_keeps_nothing_for_later(nats_server: NatsServer) -> None:
    lost = list[float]()
    client = await connect_inference(
        NatsSettings(url=nats_server.url), name="t", on_disconnect=lambda: lost.append(time.monotonic())
    )
    try:
        nats_server.kill()
        await until(lambda: bool(lost), 3)
        with pytest.raises(nats_errors.OutboundBufferLimitError):
            await client.publish("servery.infer.x", b"frame")
        with pytest.raises(nats_errors.OutboundBufferLimitError):
            await asyncio.wait_for(client.request("servery.infer.x", b"frame", timeout=30), 1)
        nats_server.start()
        await reconnects(client, 1)
        await client.publish("servery.infer.x", b"frame")
    finally:
        await client.close()


async def test_headers_count_against_the_size_limit(nats_server: NatsServer) -> None:
    client = await connect_inference(NatsSettings(url=nats_server.url), name="t", on_disconnect=lambda: None)
    try:
        with pytest.raises(nats_errors.MaxPayloadError):
            await client.publish("x", b"x" * client.max_payload, headers={"a": "b"})
        await client.publish("x", b"x" * client.max_payload)
        fits = client.max_payload - client_module.headers_size({"a": "b"})
        await client.publish("x", b"x" * fits, headers={"a": "b"})
        await client.flush()
        assert client.stats["reconnects"] == 0
    finally:
        await client.close()


async def test_the_socket_does_not_wait_for_vanished_hosts(bus: NatsBus, nats_server: NatsServer) -> None:
    nats_server.restart()
    await reconnects(bus.nats, 1)
    writer = bus.nats._transport._io_writer  # type: ignore[union-attr]
    connection = writer.get_extra_info("socket")
    assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 5000
    assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
