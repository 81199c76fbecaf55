"""Both connections of a worker are replaced together, and orders are served all along."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator

import pytest
from tests.infrastructure import NatsServer
from tests.messages import Answer, Ask
from tests.waiting import until

from servery_common.messaging.bus import connect_bus
from servery_common.messaging.port import Bus
from servery_common.settings import NatsSettings
from servery_worker.links import Links, open_links


@pytest.fixture
async def links(nats_server: NatsServer) -> AsyncIterator[Links]:
    links = await open_links(NatsSettings(url=nats_server.url))
    yield links
    await links.close()


@pytest.fixture
async def caller(nats_server: NatsServer) -> AsyncIterator[Bus]:
    async with connect_bus(NatsSettings(url=nats_server.url), name="caller") as bus:
        yield bus


ORDER = "servery.api.worker.order"


async def serve(bus: Bus) -> None:
    async def answer(message: Ask) -> Answer:
        await asyncio.sleep(0.002)
        return Answer(text=message.text)

    await bus.serve(ORDER, Ask, answer)


async def test_an_order_is_answered_at_any_moment_while_connections_are_replaced(
    links: Links, caller: Bus
) -> None:
    await links.serve(serve)
    first, over = links.bus, asyncio.Event()
    answered: list[str] = []

    async def order() -> None:
        for number in itertools.count():
            if over.is_set():
                return
            answer = await caller.request(ORDER, Ask(text=str(number)), Answer, timeout=5)
            answered.append(answer.text)

    ordering = asyncio.create_task(order())
    for _ in range(3):
        await links.replace(contextlib.nullcontext)
    over.set()
    await ordering
    assert answered == [str(number) for number in range(len(answered))]
    assert links.bus is not first
    assert links.bus.connected
    assert not first.connected


async def test_a_worker_that_stops_keeps_the_connections_it_has(links: Links, caller: Bus) -> None:
    await links.serve(serve)
    before = links.bus
    replacing = asyncio.create_task(links.replace(contextlib.nullcontext))
    await links.keep()
    await replacing
    assert links.bus is before
    answer = await caller.request(ORDER, Ask(text="x"), Answer, timeout=5)
    assert answer == Answer(text="x")


async def test_without_new_connections_the_old_ones_serve_on(
    links: Links, caller: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("servery_worker.links.CONNECT_SECONDS", 0.5)
    await links.serve(serve)
    # Nobody is let in with what the file holds now.
    monkeypatch.setattr(links._settings, "url", "nats://127.0.0.1:1")
    with pytest.raises(TimeoutError):
        await links.replace(contextlib.nullcontext)
    answer = await caller.request(ORDER, Ask(text="x"), Answer, timeout=5)
    assert answer == Answer(text="x")
    await until(lambda: links.scoring.is_connected)
    assert links.scoring.losses == 0
