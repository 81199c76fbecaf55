"""One connection for scoring frames takes the place of another under fire: nothing is lost, doubled or out of order."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable

import nats.errors
import pytest
from tests.infrastructure import NatsServer
from tests.waiting import until

from servery_common.contracts import subjects
from servery_common.messaging.connection import connect_inference
from servery_common.messaging.inference import InferenceClient
from servery_common.settings import NatsSettings
from servery_worker.replies import Replies
from servery_worker.scoring_line import ScoringLine

SUBJECT = subjects.infer("r1")
GATEWAYS = 3
TIMES = 8


@pytest.fixture
async def connect(nats_server: NatsServer) -> AsyncIterator[Callable]:
    """Makes connections that are closed at the end."""
    made: list[InferenceClient] = []

    async def one(name: str) -> InferenceClient:
        client = await connect_inference(
            NatsSettings(url=nats_server.url), name=name, on_disconnect=lambda: None
        )
        made.append(client)
        return client

    yield one
    for client in made:
        await client.close()


class Pump:
    """Sends numbers to a subject, as fast as it gets the chance to."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._task = asyncio.create_task(self._run())
        self.sent = 0

    async def _run(self) -> None:
        for number in itertools.count():
            self._send(number.to_bytes(8, "big"))
            self.sent = number + 1
            # Some at once, as the requests of one turn.
            await asyncio.sleep(0 if number % 5 else 0.001)

    async def stop(self) -> int:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        return self.sent


def number(payload: memoryview) -> int:
    return int.from_bytes(payload, "big")


async def test_what_gateways_send_is_handled_once_and_in_their_order(connect: Callable) -> None:
    handled: dict[str, list[int]] = {f"g{one}": [] for one in range(GATEWAYS)}
    line = ScoringLine(await connect("first"))
    await line.receive(SUBJECT, lambda payload, reply, *_: handled[reply].append(number(payload)))
    await line.flush()
    pumps: dict[str, Pump] = {}
    for gateway in handled:
        client = await connect(gateway)
        pumps[gateway] = Pump(lambda body, c=client, g=gateway: c.send(SUBJECT, body, reply=g))
    for _ in range(TIMES):
        await line.replace(await connect("fresh"), contextlib.nullcontext)
    sent = {gateway: await pump.stop() for gateway, pump in pumps.items()}
    with contextlib.suppress(TimeoutError):
        await until(lambda: all(len(handled[gateway]) >= sent[gateway] for gateway in handled), 5)
    assert {gateway: numbers == list(range(sent[gateway])) for gateway, numbers in handled.items()} == (
        dict.fromkeys(handled, True)
    )
    assert min(sent.values()) > 100
    assert line.losses == 0


async def test_what_a_replica_sends_arrives_once_and_in_order(connect: Callable) -> None:
    arrived: list[int] = []
    gateway = await connect("gateway")
    to = subjects.replies("g1", "r1")

    def take(payload: memoryview, *_: object) -> None:
        # Those of one turn come as one message.
        arrived.extend(number(payload[at : at + 8]) for at in range(0, len(payload), 8))

    await gateway.receive(to, take)
    await gateway.flush()
    line = ScoringLine(await connect("first"))
    replies = Replies(line)
    pump = Pump(lambda body: replies.send(to, body))
    for _ in range(TIMES):
        await line.replace(await connect("fresh"), replies.hold)
    sent = await pump.stop()
    await replies.flush(5)
    await gateway.flush()
    assert arrived == list(range(sent))


async def test_a_new_connection_that_is_lost_changes_nothing(connect: Callable) -> None:
    handled: list[int] = []
    line = ScoringLine(await connect("first"))
    await line.receive(SUBJECT, lambda payload, *_: handled.append(number(payload)))
    await line.flush()
    gateway, fresh = await connect("gateway"), await connect("fresh")
    pump = Pump(lambda body: gateway.send(SUBJECT, body, reply="g"))
    replacing = asyncio.create_task(line.replace(fresh, contextlib.nullcontext))
    await until(lambda: SUBJECT in fresh._received)
    fresh._transport._io_writer.transport.abort()
    with pytest.raises(nats.errors.Error):
        await replacing
    await fresh.close()
    sent = await pump.stop()
    await until(lambda: len(handled) >= sent)
    assert handled == list(range(sent))
    assert line.losses == 0


async def test_an_old_connection_that_is_lost_is_a_loss_and_the_new_one_is_used(connect: Callable) -> None:
    handled: list[int] = []
    lost: list[None] = []
    old, fresh, gateway = await connect("old"), await connect("fresh"), await connect("gateway")
    line = ScoringLine(old)
    line.disconnect_callbacks.append(lambda: lost.append(None))
    await line.receive(SUBJECT, lambda payload, *_: handled.append(number(payload)))
    await line.flush()
    replacing = asyncio.create_task(line.replace(fresh, contextlib.nullcontext))
    await until(lambda: SUBJECT in fresh._received)
    old._transport._io_writer.transport.abort()
    await replacing
    assert lost
    assert line.losses >= 1
    await old.close()
    before = len(lost)
    gateway.send(SUBJECT, (7).to_bytes(8, "big"), reply="g")
    await until(lambda: handled == [7])
    # Its callbacks are those of the new one now.
    fresh._transport._io_writer.transport.abort()
    await until(lambda: len(lost) > before)


async def test_a_replica_that_comes_or_goes_meanwhile_is_on_the_new_connection(connect: Callable) -> None:
    handled: list[str] = []
    line, fresh, gateway = ScoringLine(await connect("old")), await connect("fresh"), await connect("gateway")
    await line.receive(SUBJECT, lambda *_: handled.append("gone"))
    old, sends_with = line._client, []

    @contextlib.contextmanager
    def hold():
        assert SUBJECT in old._received
        sends_with.append(line.send)
        yield
        sends_with.append(line.send)

    replacing = asyncio.create_task(line.replace(fresh, hold))
    await until(lambda: SUBJECT in fresh._received)
    other = subjects.infer("r2")
    await asyncio.gather(
        replacing, line.receive(other, lambda *_: handled.append("new")), line.ignore(SUBJECT)
    )
    await line.flush()
    gateway.send(SUBJECT, b"x", reply="g")
    gateway.send(other, b"x", reply="g")
    await until(lambda: bool(handled))
    assert handled == ["new"]
    # Nothing could be sent from before the old one stopped until the new one was in its place.
    assert sends_with == [old.send, fresh.send]
