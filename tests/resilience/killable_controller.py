"""A controller that a test written without asyncio may call, and kill in the middle of a call; its Postgres, too."""

import asyncio
import json
import tempfile
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.infrastructure import NatsServer, PostgresServer, running_nats
from tests.resilience.controllers import PATIENCE, ControllerProcess, Peers, peers

from servery_common.contracts.management import HttpAnswer

UPDATING = "IN_PROGRESS"


class World:
    """The processes and the peers; the peers' event loop runs in a thread of its own, as Hypothesis is synchronous."""

    def __init__(self, nats: NatsServer, postgres: PostgresServer, controller: ControllerProcess) -> None:
        self.nats = nats
        self.postgres = postgres
        self.controller = controller
        self.calls = 0
        self.kills = 0
        self.unanswered = 0
        self._started: Future[Peers] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._work()), daemon=True)
        self._thread.start()
        self.peers = self._started.result(PATIENCE)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(2 * PATIENCE)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(PATIENCE)

    async def _work(self) -> None:
        self._loop, self._closing = asyncio.get_running_loop(), asyncio.Event()
        async with peers(self.nats.url) as around:
            self._started.set_result(around)
            await self._closing.wait()

    def call(self, method: str, path: str, body: Any = None) -> HttpAnswer | None:
        return self.run(self.peers.call(method, path, body))

    def call_and_kill(
        self, victim: str, after: float, method: str, path: str, body: Any
    ) -> HttpAnswer | None:
        """Kill while the call is under way, ``after`` so many seconds, and bring the victim back."""

        async def both() -> HttpAnswer | None:
            calling = asyncio.create_task(self.peers.call(method, path, body))
            await asyncio.sleep(after)  # anywhere within the call is right: the model allows both
            await asyncio.to_thread(self.kill, victim)
            return await calling

        answer = self.run(both())
        self.run(self.peers.until(self.peers.answers))
        return answer

    def kill(self, victim: str) -> None:
        self.kills += 1
        if victim == "controller":
            self.controller.kill()
            self.controller.start()
        else:
            self.postgres.kill()
            self.postgres.start()

    @contextmanager
    def no_build_ends(self) -> Iterator[None]:
        """Updates to another version last as long as the block."""
        hold = self.peers.builder.hold
        self._loop.call_soon_threadsafe(hold.clear)
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(hold.set)

    def settled(self) -> dict[str, dict[str, Any]]:
        """All endpoints by name, once none is being updated."""

        async def look() -> dict[str, dict[str, Any]] | None:
            answer = await self.peers.call("GET", "")
            if answer is None or answer.status != 200:
                return None
            listed = json.loads(answer.body)["endpoints"]
            if any(one["state"]["config_update"] == UPDATING for one in listed):
                return None
            return {one["name"]: one for one in listed}

        async def wait() -> dict[str, dict[str, Any]]:
            async with asyncio.timeout(PATIENCE):
                while (seen := await look()) is None:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
                return seen

        return self.run(wait())


@contextmanager
def running_world(directory: Path) -> Iterator[World]:
    """NATS, Postgres, a controller and the peers, for the time of the block."""
    with (
        running_nats() as nats,
        tempfile.TemporaryDirectory(
            prefix="servery-postgres-", ignore_cleanup_errors=True
        ) as postgres_directory,
        ExitStack() as ended,
    ):
        postgres = PostgresServer(Path(postgres_directory), survives_kill=True)
        ended.callback(postgres.stop)
        postgres.start()
        controller = ControllerProcess(nats.url, postgres.url, directory / "controller.log")
        ended.callback(controller.kill)
        world = World(nats, postgres, controller)
        ended.callback(world.close)
        world.run(world.peers.until(world.peers.answers))
        yield world
