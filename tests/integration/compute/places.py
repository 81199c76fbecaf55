"""The two places replicas run in, worker processes and containers: a backend each and what it needs, all of it real."""

import asyncio
import contextlib
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import docker
from nats.aio.client import Client
from tests.integration.worker.scoring_client import ScoringClient
from tests.integration.worker.worker_process import WorkerProcess, until_gone
from tests.waiting import until

from servery_common.contracts.builds import Artifacts
from servery_common.contracts.replicas import ReplicaLaunch, ReplicaObservation
from servery_common.contracts.states import ReplicaState
from servery_common.errors import Unavailable
from servery_common.messaging.port import Bus
from servery_controller.compute.container_spec import INSTALLATION, container_name
from servery_controller.compute.docker_backend import DockerBackend
from servery_controller.compute.docker_settings import DockerSettings
from servery_controller.compute.docker_wiring import docker_backend
from servery_controller.compute.process import ProcessBackend

SETTLE_SECONDS = 2.5
READY_WITHIN = 90.0


async def eventually(look: Callable[[], Awaitable[bool]], within: float) -> None:
    """Return as soon as ``look`` returns True; raise TimeoutError if it does not within so many seconds."""
    async with asyncio.timeout(within):
        while True:
            if await look():
                return
            await asyncio.sleep(0.1)


class Place:
    """What the tests do with a backend, as the controller does it."""

    def __init__(self, bus: Bus, nats: Client, artifacts: Artifacts) -> None:
        self.bus = bus
        self.nats = nats
        self.artifacts = artifacts
        self.backend: ProcessBackend | DockerBackend
        self._task: asyncio.Task[None] | None = None

    def make_backend(self) -> ProcessBackend | DockerBackend:
        raise NotImplementedError

    async def kill(self, replica_id: str) -> None:
        """End what runs the replica, without a word."""
        raise NotImplementedError

    async def left(self, replica_id: str) -> list[str]:
        """What there still is of a replica."""
        raise NotImplementedError

    async def start(self) -> None:
        """Begin as a controller that knows nothing."""
        self.backend = self.make_backend()
        await self.backend.start()
        self._task = asyncio.create_task(self.backend.run())
        await self.until(lambda: self.backend.observe().complete)

    async def end(self) -> None:
        if self._task is None:
            return
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def launch(self, **changed: Any) -> ReplicaLaunch:
        return ReplicaLaunch(
            replica_id=uuid.uuid4().hex,
            endpoint_id="e1",
            endpoint_name="test",
            served_entity_id=uuid.uuid4().hex,
            served_entity_name="test-1",
            workspace_id=changed.pop("workspace_id", "7"),
            artifacts=changed.pop("artifacts", self.artifacts),
            slots=2,
            **changed,
        )

    async def make(self, launch: ReplicaLaunch | None = None) -> ReplicaLaunch:
        """Have a replica that is READY; it is asked for again and again, as the reconciler does."""
        launch = launch or self.launch()
        node = self.backend.place(launch.replica_id, slots=launch.slots, environment_key="k")
        async with asyncio.timeout(READY_WITHIN):
            while self.state(launch.replica_id) is not ReplicaState.READY:
                seen = self.seen(launch.replica_id)
                assert seen is None or seen.state is not ReplicaState.FAILED, seen.reason
                with contextlib.suppress(Unavailable):
                    await self.backend.ensure(node, launch)
                await asyncio.sleep(0.2)
        return launch

    async def stop(self, launch: ReplicaLaunch) -> None:
        await self.stop_by_id(launch.replica_id)

    async def stop_by_id(self, replica_id: str) -> None:
        await self.backend.stop(replica_id, timedelta(seconds=10), epoch=0)

    async def client(self) -> ScoringClient:
        return await ScoringClient(self.nats).start()

    def seen(self, replica_id: str) -> ReplicaObservation | None:
        return self.backend.observe().replicas.get(replica_id)

    def state(self, replica_id: str) -> ReplicaState | None:
        seen = self.seen(replica_id)
        return None if seen is None else seen.state

    async def until(self, true: Callable[[], Any], within: float = 30.0) -> None:
        await until(true, within)

    async def until_nothing_is_left(self, replica_id: str, within: float = 30.0) -> None:
        async def look() -> bool:
            return not await self.left(replica_id)

        await eventually(look, within)


class Processes(Place):
    """One worker on this machine."""

    def __init__(self, bus: Bus, nats: Client, worker: WorkerProcess, model_path: Path) -> None:
        own = Artifacts(
            model_path=str(model_path),
            environment_path=sys.prefix,
            python=sys.executable,
            environment_key="k",
        )
        super().__init__(bus, nats, own)
        self.worker = worker

    def make_backend(self) -> ProcessBackend:
        return ProcessBackend(self.bus, SETTLE_SECONDS)

    async def start(self) -> None:
        await super().start()
        await self.until(lambda: self.backend.observe().nodes)

    async def kill(self, replica_id: str) -> None:
        call = await (await self.client()).ask(replica_id, "pid")
        pid = call.json["predictions"][0]
        os.kill(pid, signal.SIGKILL)
        await until_gone(pid)

    async def left(self, replica_id: str) -> list[str]:
        return [] if self.state(replica_id) in (None, ReplicaState.STOPPED) else ["replica"]


class InContainers(Place):
    """A real engine, and NATS in a container of it."""

    def __init__(self, bus: Bus, nats: Client, image: str, nats_container: str, installation: str) -> None:
        own = Artifacts(
            model_path="/opt/model/obedient",
            environment_path="/opt/environment",
            python="/opt/environment/bin/python",
            environment_key="k",
            image=image,
        )
        super().__init__(bus, nats, own)
        self.engine = docker.from_env()
        self.installation = installation
        self.settings = DockerSettings(installation=installation, nats_container=nats_container)

    def make_backend(self) -> DockerBackend:
        return docker_backend(self.bus, SETTLE_SECONDS, self.settings, None)

    def container(self, replica_id: str) -> Any:
        return self.engine.containers.get(container_name(self.installation, replica_id))

    async def inside(self, replica_id: str, script: str) -> str:
        """Run Python in a replica's container; return what it prints."""
        ran = await asyncio.to_thread(self.container(replica_id).exec_run, ["python", "-c", script])
        assert ran.exit_code == 0, ran.output.decode()
        return ran.output.decode().strip()

    async def kill(self, replica_id: str) -> None:
        await asyncio.to_thread(self.container(replica_id).kill)

    async def left(self, replica_id: str) -> list[str]:
        filters = {"label": f"servery.replica={replica_id}"}
        found = await asyncio.to_thread(self.engine.containers.list, all=True, filters=filters)
        found += await asyncio.to_thread(self.engine.networks.list, filters=filters)
        return [one.name for one in found]

    def network(self, replica_id: str) -> Any:
        """A replica's network, with what is in it."""
        [network] = self.engine.networks.list(
            names=[container_name(self.installation, replica_id)], greedy=True
        )
        return network

    def remove_everything(self) -> None:
        ours = {"label": f"{INSTALLATION}={self.installation}"}
        for container in self.engine.containers.list(all=True, filters=ours):
            container.remove(force=True, v=True)
        for network in self.engine.networks.list(filters=ours):
            network.reload()
            for one in network.attrs.get("Containers") or {}:
                network.disconnect(one, force=True)
            network.remove()
        self.engine.close()


@contextlib.asynccontextmanager
async def running(place: Place, clean: Callable[[], Awaitable[None]]) -> AsyncIterator[Place]:
    """A place whose backend runs, and that is clean afterwards."""
    try:
        await place.start()
        yield place
    finally:
        await place.end()
        await clean()
