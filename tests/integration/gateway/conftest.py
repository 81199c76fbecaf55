"""A gateway with real NATS, replicas and a controller that the test plays itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from tests.infrastructure import NatsServer
from tests.integration.gateway.peers import FakeReplica, echo, grant, identity

from servery_common.contracts import subjects
from servery_common.contracts.access import Identity, TokenGrant
from servery_common.contracts.ip_access import WorkspaceIpAccess
from servery_common.contracts.quotas import WorkspaceQuota
from servery_common.contracts.routes import EndpointRoute
from servery_common.messaging.bus import connect_bus
from servery_common.messaging.connection import connect_inference
from servery_common.messaging.port import Bus
from servery_common.service import CANCEL_SECONDS
from servery_common.settings import NatsSettings
from servery_gateway.app import GatewayService
from servery_gateway.settings import GatewaySettings

TOKEN = "good-token"
AT_ONCE = 10.0
"""Seconds that a loaded machine may need, a fraction of what `patient_world` and a route's timeout (60 s) allow."""


async def eventually(condition, seconds: float = 5.0) -> None:
    """Return when ``condition()`` holds; fail when it does not in time."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)


class World:
    """The gateway under test and everything around it."""

    def __init__(self, server: NatsServer, directory: Path, stack: AsyncExitStack) -> None:
        self.server = server
        self.nats = NatsSettings(url=server.url)
        self.directory = directory
        self.bus: Bus
        self._stack = stack
        self._tasks: list[asyncio.Task] = []
        self._replica_client = None

    async def connect_bus(self) -> None:
        self.bus = await self._stack.enter_async_context(connect_bus(self.nats, name="test-controller"))
        ann, token = identity(), grant(TOKEN)
        await self.bus.kv_put(subjects.PRINCIPALS_BUCKET, ann.principal_id, ann)
        await self.bus.kv_put(subjects.TOKENS_BUCKET, token.token_sha256, token)

    async def start_gateway(self, **settings) -> GatewayService:
        fast = {
            "port": 0,
            "data_dir": self.directory,
            "replica_wait": 0.5,
            "snapshot_debounce": 0.02,
            "stop_grace": 5.0,
            "management_timeout": 5.0,
            "max_body_bytes": 16 * 1024 * 1024,
            # Clients and replicas are on the gateway's event loop here: they make it late.
            "max_loop_lag": 10.0,
        }
        self.gateway = GatewayService(GatewaySettings(**{**fast, **settings}), self.nats)
        await self.gateway.start(self._spawn)
        self.http = await self._stack.enter_async_context(
            httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{self.gateway.port}",
                headers={"authorization": f"Bearer {TOKEN}"},
                timeout=20,
                limits=httpx.Limits(max_connections=1000),
            )
        )
        return self.gateway

    async def stop_gateway(self) -> None:
        # Again after a while, as a service does (servery_common.service).
        while running := {task for task in self._tasks if not task.done()}:
            for task in running:
                task.cancel()
            await asyncio.wait(running, timeout=CANCEL_SECONDS)
        self._tasks.clear()

    def _spawn(self, name, coroutine) -> asyncio.Task:
        task = asyncio.create_task(coroutine, name=name)
        self._tasks.append(task)
        return task

    def dead_tasks(self) -> list[str]:
        return [
            task.get_name()
            for task in self._tasks
            if task.done() and not task.cancelled() and task.exception()
        ]

    async def replica(self, replica_id: str, model=echo) -> FakeReplica:
        if self._replica_client is None:
            self._replica_client = await connect_inference(
                self.nats, name="agents", on_disconnect=lambda: None
            )
            self._stack.push_async_callback(self._replica_client.close)
        return await FakeReplica(self._replica_client, replica_id, model).start()

    async def publish(self, route: EndpointRoute) -> None:
        """Put the route and wait until the gateway routes by it."""
        await self.bus.kv_put(subjects.ROUTES_BUCKET, route.endpoint_id, route)
        await eventually(lambda: self.gateway.table.snapshot.routes.get(route.endpoint_id) == route)

    async def admit(self, caller: Identity, *tokens: TokenGrant) -> None:
        """Put who calls and with which tokens, and wait until the gateway knows them."""
        await self.bus.kv_put(subjects.PRINCIPALS_BUCKET, caller.principal_id, caller)
        for token in tokens:
            await self.bus.kv_put(subjects.TOKENS_BUCKET, token.token_sha256, token)

        def known() -> bool:
            snapshot = self.gateway.table.snapshot
            return snapshot.identities.get(caller.principal_id) == caller and all(
                snapshot.tokens.get(token.token_sha256) == token for token in tokens
            )

        await eventually(known)

    async def allow(self, workspace_id: str, qps: int) -> None:
        """Give a workspace a quota and wait until the gateway keeps to it."""
        quota = WorkspaceQuota(workspace_id=workspace_id, qps=qps)
        await self.bus.kv_put(subjects.QUOTAS_BUCKET, workspace_id, quota)
        await eventually(lambda: self.gateway.table.snapshot.quotas.get(workspace_id) == quota)

    async def restrict(
        self, workspace_id: str, *, allow: tuple[str, ...] = (), block: tuple[str, ...] = ()
    ) -> None:
        """Say from where a workspace may be reached, and wait until the gateway keeps to it."""
        told = WorkspaceIpAccess(workspace_id=workspace_id, allow=allow, block=block)
        await self.bus.kv_put(subjects.IP_ACCESS_BUCKET, workspace_id, told)
        await eventually(lambda: self.gateway.table.snapshot.ip_access.get(workspace_id) == told)

    async def score(self, name: str, content=b'{"inputs":[1]}', **kwargs) -> httpx.Response:
        return await self.http.post(f"/serving-endpoints/{name}/invocations", content=content, **kwargs)


@pytest.fixture
async def bare_world(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[World]:
    """No gateway yet."""
    async with AsyncExitStack() as stack:
        world = World(nats_server, tmp_path, stack)
        yield world
        assert world.dead_tasks() == []
        await world.stop_gateway()


@pytest.fixture
async def world(bare_world: World) -> World:
    """A gateway that is ready."""
    return await _ready(bare_world)


@pytest.fixture
async def patient_world(bare_world: World) -> World:
    """A gateway that waits so long for anything that what happens within ``AT_ONCE`` was not waited for."""
    return await _ready(bare_world, accept_timeout=30.0, replica_wait=30.0, management_timeout=30.0)


async def _ready(world: World, **settings) -> World:
    await world.connect_bus()
    await world.start_gateway(**settings)
    await eventually(lambda: world.gateway.why_not_ready() is None)
    return world
