"""Credentials of a replica in a container: what is given to it, renewed inside of it, and the end of it without."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import docker
import pytest
from tests.integration.compute.conftest import ROOT, build
from tests.integration.compute.places import SETTLE_SECONDS, InContainers
from tests.integration.worker.issued import Issued
from tests.waiting import until

from servery_common.contracts import subjects
from servery_common.contracts.replicas import WorkerHeartbeat
from servery_common.contracts.states import ReplicaState
from servery_common.messaging.bus import connect_bus
from servery_common.messaging.port import Bus
from servery_controller.compute.docker_backend import DockerBackend
from servery_controller.compute.docker_wiring import docker_backend, serve_renewals

pytestmark = pytest.mark.docker
LIFETIME = timedelta(seconds=20)
NATS_IMAGE = "nats:2.15.1-alpine"


@pytest.fixture(scope="module")
def worker_image(engine: docker.DockerClient) -> Iterator[str]:
    """The content id of the worker's image."""
    tag = f"servery-worker:credentials-{uuid.uuid4().hex[:8]}"
    file = str(ROOT / "deploy" / "docker" / "Dockerfile")
    build(tag, str(ROOT), "--file", file, "--build-arg", "SERVICE=worker")
    try:
        yield str(engine.images.get(tag).id)
    finally:
        engine.images.remove(tag)


@pytest.fixture
def issued(engine: docker.DockerClient, tmp_path: Path) -> Iterator[tuple[Issued, str]]:
    """What was issued, and the name of the container that NATS of the compose file runs in with it."""
    issued = Issued(tmp_path / "credentials")
    name = f"servery-credentials-nats-{uuid.uuid4().hex[:8]}"
    mounts = {
        str(issued.root / "nats"): {"bind": "/run/servery/credentials", "mode": "ro"},
        str(ROOT / "deploy" / "nats" / "nats.conf"): {"bind": "/etc/servery/nats.conf", "mode": "ro"},
    }
    container = engine.containers.run(
        NATS_IMAGE,
        ["--config", "/etc/servery/nats.conf"],
        name=name,
        detach=True,
        ports={"4222/tcp": ("127.0.0.1", None)},
        volumes=mounts,
        user="0:0",
    )
    try:
        container.reload()
        issued.url = f"nats://localhost:{container.ports['4222/tcp'][0]['HostPort']}"
        yield issued, name
    finally:
        container.remove(force=True, v=True)


class WithCredentials(InContainers):
    """Replicas get credentials; ``renewing`` is whether they get others."""

    renewing = True

    def __init__(self, bus: Bus, image: str, nats_container: str, issued: Issued) -> None:
        installation = f"credentials-{uuid.uuid4().hex[:8]}"
        super().__init__(bus, bus.nats, image, nats_container, installation)
        self._issued = issued
        self.access_left: list[float] = []

    def make_backend(self) -> DockerBackend:
        credentials = self._issued.credentials(LIFETIME)
        return docker_backend(self.bus, SETTLE_SECONDS, self.settings, credentials)

    async def start(self) -> None:
        async def heard(heartbeat: WorkerHeartbeat) -> None:
            if heartbeat.access_left is not None:
                self.access_left.append(heartbeat.access_left)

        await self.bus.on_signal(subjects.ALL_WORKER_HEARTBEATS, WorkerHeartbeat, heard)
        await super().start()
        await serve_renewals(self.bus, self._issued.credentials(LIFETIME), self._runs)

    def _runs(self, replica_id: str) -> bool:
        assert isinstance(self.backend, DockerBackend)
        return self.renewing and self.backend.runs(replica_id)

    @property
    def renewals(self) -> int:
        """How often a worker had more left than a moment before."""
        return sum(
            later > earlier for earlier, later in zip(self.access_left, self.access_left[1:], strict=False)
        )


@pytest.fixture
async def place(worker_image: str, issued: tuple[Issued, str]) -> AsyncIterator[WithCredentials]:
    files, name = issued
    async with connect_bus(files.settings("controller"), name="controller") as bus:
        place = WithCredentials(bus, worker_image, name, files)
        try:
            await place.start()
            yield place
        finally:
            await place.end()
            await asyncio.to_thread(place.remove_everything)


async def test_a_container_renews_what_it_was_given_and_ends_with_a_reason_when_it_cannot(
    place: WithCredentials,
) -> None:
    launch = place.launch()
    node = place.backend.place(launch.replica_id, slots=launch.slots, environment_key="k")
    await place.backend.ensure(node, launch)
    read = "[open('/tmp/credentials/' + name).read() for name in ('nats.creds', 'tls.pem')]"
    files = f"import json; print(json.dumps({read}))"
    await until(lambda: bool(place.access_left), 60)
    first = await place.inside(launch.replica_id, files)
    mode = "import os; print(oct(os.stat('/tmp/credentials/nats.creds').st_mode))"
    await until(lambda: place.renewals >= 3, 90)
    # By then what it was given has ended.
    now = await place.inside(launch.replica_id, files)
    assert [new != old for new, old in zip(json.loads(now), json.loads(first), strict=True)] == [True, True]
    assert (await place.inside(launch.replica_id, mode)).endswith("600")
    seen = await asyncio.to_thread(lambda: place.container(launch.replica_id).attrs["State"]["Status"])
    assert seen == "running"
    place.renewing = False
    await place.until(lambda: place.state(launch.replica_id) is ReplicaState.FAILED, 60)
    ended = place.seen(launch.replica_id)
    assert ended is not None
    assert ended.reason.endswith("could not be renewed: There is no such replica, or it has ended.")
    await place.until_nothing_is_left(launch.replica_id)
