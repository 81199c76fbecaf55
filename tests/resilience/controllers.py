"""Controllers as processes of their own, on a real NATS and Postgres, with builder and worker played by peers."""

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.integration.controller.peers import BuilderPeer, GatewayPeer, WorkerPeer

from servery_common.contracts.management import HttpAnswer
from servery_common.contracts.replicas import Done, EnsureReplica, StopReplica
from servery_common.errors import Conflict, ServeryError
from servery_common.messaging.bus import connect_bus
from servery_common.settings import NatsSettings

PATIENCE = 60.0


class ControllerProcess:
    """``python -m servery_controller``, started again with the same settings."""

    def __init__(self, nats_url: str, postgres_url: str, log: Path, **settings: str) -> None:
        self._log = log
        self._environment = (
            os.environ
            | {
                "SERVERY_NATS_URL": nats_url,
                "SERVERY_POSTGRES_URL": postgres_url,
                "SERVERY_ADMIN_TOKEN": "dapi-test",
                "SERVERY_ENCRYPTION_KEY": base64.b64encode(bytes(32)).decode(),
                "SERVERY_LEASE_SECONDS": "1",
                "SERVERY_WORKER_SETTLE_SECONDS": "0.7",
                "SERVERY_SWEEP_SECONDS": "0.5",
            }
            | settings
        )
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "servery_controller"],
                env=self._environment,
                stdout=output,
                stderr=output,
            )

    def kill(self) -> None:
        """End it as a power failure would."""
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def said(self, event: str) -> list[dict[str, Any]]:
        """What it logged under this name, in all its lives."""
        lines = [line for line in self._log.read_text().splitlines() if line.startswith("{")]
        return [one for one in map(json.loads, lines) if one.get("event") == event]


@dataclass
class FencingWorker(WorkerPeer):
    """A worker peer that refuses orders of an earlier epoch, as the real one, and remembers all epochs it took."""

    epochs: list[int] = field(default_factory=list[int])
    refused: list[EnsureReplica | StopReplica] = field(default_factory=list[EnsureReplica | StopReplica])
    on_order: Callable[[EnsureReplica | StopReplica], None] | None = None
    """Called with each order before it is taken."""

    async def _ensure(self, order: EnsureReplica) -> Done:
        self._take(order, order.launch.epoch)
        return await super()._ensure(order)

    async def _stop(self, order: StopReplica) -> Done:
        self._take(order, order.epoch)
        return await super()._stop(order)

    def _take(self, order: EnsureReplica | StopReplica, epoch: int) -> None:
        if self.epochs and epoch < self.epochs[-1]:
            self.refused.append(order)
            raise Conflict(f"The order is of epoch {epoch}; epoch {self.epochs[-1]} has begun.")
        self.epochs.append(epoch)
        if self.on_order is not None:
            self.on_order(order)


@dataclass
class Peers:
    """What is around the controllers."""

    builder: BuilderPeer
    worker: FencingWorker
    gateway: GatewayPeer

    async def call(self, method: str, path: str, body: Any = None) -> HttpAnswer | None:
        """Call the API; None when no answer came: the call may have happened or not."""
        try:
            return await self.gateway.call(method, path, json.dumps(body) if body is not None else "")
        except (ServeryError, TimeoutError, OSError):
            return None

    async def ok(self, method: str, path: str, body: Any = None) -> Any:
        answer = await self.call(method, path, body)
        assert answer is not None, (method, path)
        assert answer.status == 200, answer
        return json.loads(answer.body)

    async def answers(self) -> bool:
        answer = await self.call("GET", "")
        return answer is not None and answer.status == 200

    async def ready(self, name: str) -> bool:
        """Whether the newest config of the endpoint serves."""
        answer = await self.call("GET", f"/{name}")
        if answer is None or answer.status != 200:
            return False
        state = json.loads(answer.body)["state"]
        return (state["ready"], state["config_update"]) == ("READY", "NOT_UPDATING")

    async def until(self, condition: Any, *arguments: Any) -> None:
        """Wait until what is asked over NATS is true."""
        async with asyncio.timeout(PATIENCE):
            while not await condition(*arguments):  # noqa: ASYNC110
                await asyncio.sleep(0.05)


@asynccontextmanager
async def peers(nats_url: str) -> AsyncIterator[Peers]:
    """The peers, at work for the time of the block."""
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(connect_bus(NatsSettings(url=nats_url), name="peers"))
        made = Peers(BuilderPeer(bus), FencingWorker(bus), GatewayPeer(bus))
        await made.builder.start()
        await made.worker.start()
        works = [made.builder.work(), made.worker.beat(), made.gateway.follow()]
        tasks = [asyncio.create_task(work) for work in works]
        try:
            yield made
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
