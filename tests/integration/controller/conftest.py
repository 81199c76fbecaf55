"""A real controller on a real bus and database, with peers around it."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from tests.infrastructure import NatsServer, running_nats
from tests.integration.controller.peers import ADMIN, BuilderPeer, GatewayPeer, WorkerPeer

from servery_common.access_tokens import fingerprint
from servery_common.contracts import subjects
from servery_common.contracts.access import FindToken, Identity, TokenFound
from servery_common.contracts.management import HttpAnswer
from servery_common.messaging.bus import connect_bus
from servery_common.service import ServiceContext
from servery_common.settings import NatsSettings
from servery_controller.app import main


class World:
    """The controller under test and its peers."""

    def __init__(
        self, builder: BuilderPeer, worker: WorkerPeer, gateway: GatewayPeer, postgres_url: str
    ) -> None:
        self.postgres_url = postgres_url
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

    async def ok(
        self, method: str, path: str, body: Any = None, *, identity: Identity = ADMIN
    ) -> dict[str, Any]:
        """Call the API; ``path`` is one of serving endpoints, or whole from ``/api/`` on."""
        content = json.dumps(body) if body is not None else ""
        answer = await self.gateway.call(method, path, content, identity=identity)
        assert answer.status < 300, answer.body
        return json.loads(answer.body) if answer.body else {}

    async def refused(
        self, method: str, path: str, body: Any = None, *, identity: Identity = ADMIN
    ) -> tuple[int, str, str]:
        content = json.dumps(body) if body is not None else ""
        answer: HttpAnswer = await self.gateway.call(method, path, content, identity=identity)
        error = json.loads(answer.body)
        return answer.status, error["error_code"], error["message"]

    async def find_token(self, token: str) -> TokenFound:
        """Ask what a token stands for, as a gateway does that does not know it."""
        return await self.gateway.bus.request(
            subjects.controller_find_token(),
            FindToken(token_sha256=fingerprint(token.encode())),
            TokenFound,
            timeout=5,
        )

    async def sign_in(self, token: str) -> Identity:
        """The identity that a token leads to."""
        identity = (await self.find_token(token)).identity
        assert identity is not None, "the token is not valid"
        return identity

    async def new_workspace(self, name: str, region: str = "") -> Identity:
        """Make a workspace; returns its administrator."""
        body = {"name": name, "admin_user": f"admin-of-{name}", "region": region}
        return await self.sign_in((await self.ok("POST", "/api/2.0/servery/workspaces", body))["token_value"])

    async def new_user(self, name: str, *groups: str, admin: Identity = ADMIN) -> Identity:
        """Make a user of the administrator's workspace, in groups that are made if need be."""
        scim = "/api/2.0/preview/scim/v2"
        user = await self.ok("POST", f"{scim}/Users", {"userName": name}, identity=admin)
        for group in groups:
            path = f"{scim}/Groups?filter=displayName+eq+%22{group}%22"
            found = (await self.ok("GET", path, identity=admin))["Resources"]
            number = (
                found[0]
                if found
                else await self.ok("POST", f"{scim}/Groups", {"displayName": group}, identity=admin)
            )["id"]
            operation = {"op": "add", "path": "members", "value": [{"value": user["id"]}]}
            await self.ok("PATCH", f"{scim}/Groups/{number}", {"Operations": [operation]}, identity=admin)
        return await self.until(lambda: self.gateway.identity(admin.workspace_id, name))

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
        world = World(BuilderPeer(bus), WorkerPeer(bus), GatewayPeer(bus), postgres_url)
        await world.builder.start()
        await world.worker.start()
        peers = [
            asyncio.create_task(world.builder.work()),
            asyncio.create_task(world.worker.beat()),
            asyncio.create_task(world.gateway.follow()),
            asyncio.create_task(world.gateway.follow_access()),
        ]
        await world.start_controller()
        yield world
        await world.crash_controller()
        for peer in peers:
            peer.cancel()
        await asyncio.gather(*peers, return_exceptions=True)
