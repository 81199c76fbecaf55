"""A real controller on a real bus and database, with peers around it."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from tests.infrastructure import NatsServer, running_nats
from tests.integration.controller.peers import BuilderPeer, GatewayPeer, WorkerPeer

from servery_common.contracts.management import HttpAnswer
from servery_common.messaging.bus import connect_bus
from servery_common.service import ServiceContext
from servery_common.settings import NatsSettings
from servery_controller.app import main


class World:
    """The controller under test and its peers."""

    def __init__(self, builder: BuilderPeer, worker: WorkerPeer, gateway: GatewayPeer) -> None:
        self.builder = builder
        self.worker = worker
        self.gateway = gateway
        self._controller: asyncio.Task[None] | None = None

    async def start_controller(self) -> None:
        self._context = ServiceContext("controller")
        self._controller = asyncio.create_task(main(self._context))
        await self.until(self.answers)

    async def crash_controller(self) -> None:
        """End it in the middle of whatever it does."""
        assert self._controller is not None
        await self._context.cancel_tasks()
        self._controller.cancel()
        await asyncio.gather(self._controller, return_exceptions=True)

    async def answers(self) -> bool:
        try:
            return (await self.gateway.call("GET", "")).status == 200
        except Exception:
            return False

    async def until(self, condition: Callable[[], Any | Awaitable[Any]], *, seconds: float = 20) -> Any:
        """Poll until the condition holds, and return what it returned."""
        seen = None
        for _ in range(int(seconds / 0.05)):
            seen = condition()
            if isinstance(seen, Awaitable):
                seen = await seen
            if seen:
                return seen
            await asyncio.sleep(0.05)
        raise AssertionError(f"did not come true within {seconds} s; last seen: {seen!r}")

    async def ok(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        answer = await self.gateway.call(method, path, json.dumps(body) if body is not None else "")
        assert answer.status == 200, answer.body
        return json.loads(answer.body)

    async def refused(self, method: str, path: str, body: Any = None) -> tuple[int, str, str]:
        answer: HttpAnswer = await self.gateway.call(
            method, path, json.dumps(body) if body is not None else ""
        )
        error = json.loads(answer.body)
        return answer.status, error["error_code"], error["message"]

    async def state(self, name: str) -> tuple[str, str]:
        state = (await self.ok("GET", f"/{name}"))["state"]
        return state["ready"], state["config_update"]

    async def settled(self, name: str) -> tuple[str, str]:
        async def ended() -> tuple[str, str] | None:
            state = await self.state(name)
            return None if state[1] == "IN_PROGRESS" else state

        return await self.until(ended)


@pytest.fixture
def own_nats() -> Iterator[NatsServer]:
    """A NATS server per test: streams and buckets start empty."""
    with running_nats() as server:
        yield server


@pytest.fixture
async def world(
    own_nats: NatsServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    monkeypatch.setenv("SERVERY_NATS_URL", own_nats.url)
    monkeypatch.setenv("SERVERY_POSTGRES_URL", postgres_url)
    monkeypatch.setenv("SERVERY_ADMIN_TOKEN", "dapi-test")
    monkeypatch.setenv("SERVERY_ENCRYPTION_KEY", base64.b64encode(bytes(32)).decode())
    monkeypatch.setenv("SERVERY_LEASE_SECONDS", "1")
    monkeypatch.setenv("SERVERY_WORKER_SETTLE_SECONDS", "0.7")
    monkeypatch.setenv("SERVERY_SWEEP_SECONDS", "0.5")
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(connect_bus(NatsSettings(), name="peers"))
        world = World(BuilderPeer(bus), WorkerPeer(bus), GatewayPeer(bus))
        await world.builder.start()
        await world.worker.start()
        peers = [
            asyncio.create_task(world.builder.work()),
            asyncio.create_task(world.worker.beat()),
            asyncio.create_task(world.gateway.follow()),
        ]
        await world.start_controller()
        yield world
        await world.crash_controller()
        for peer in peers:
            peer.cancel()
        await asyncio.gather(*peers, return_exceptions=True)
