"""A replica in another network: ordered, asked and heard over a link that only the control plane's NATS opens."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psutil
import pytest
from tests.integration.gateway.conftest import AT_ONCE, World, eventually
from tests.integration.gateway.peers import endpoint, entity
from tests.integration.leaf_nodes.conftest import Planes
from tests.integration.worker import models
from tests.integration.worker.scoring_client import do_body
from tests.integration.worker.worker_process import WorkerOrders, WorkerProcess, artifacts
from tests.waiting import until

from servery_common.contracts import subjects
from servery_common.contracts.permissions import inbox_prefix
from servery_common.contracts.replicas import ReadReplicaLog, ReplicaLaunch, ReplicaLog
from servery_common.contracts.routes import ReplicaRoute
from servery_common.contracts.states import ReplicaState
from servery_common.errors import Unavailable
from servery_common.messaging.bus import connect_bus
from servery_common.messaging.port import Bus
from servery_controller.compute.docker_wiring import serve_renewals
from servery_controller.compute.replica_credentials import ReplicaCredentials

LIFETIME = timedelta(seconds=60)
"""Of what lets the replica in: it lives longer than that here, so it renews it over the link."""
NOTICED_WITHIN = 20.0
"""Seconds after which a link that swallows everything is given up: three pings, five seconds apart."""


@pytest.fixture(scope="module")
def obedient(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that does what the request says."""
    return models.save(tmp_path_factory.mktemp("models"), "obedient", models.OBEDIENT)


def signer(planes: Planes) -> ReplicaCredentials:
    """What the controller makes replicas' credentials with, which here it renews after seconds."""
    made = planes.issued.root / "controller" / "compute-plane"
    return ReplicaCredentials(made, LIFETIME, lambda: datetime.now(UTC))


@pytest.fixture(scope="module")
def worker(planes: Planes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    """What a replica's container runs, with what the controller gives it and the entry point makes files of."""
    directory = tmp_path_factory.mktemp("worker")
    replica_id = uuid.uuid4().hex
    access = signer(planes).issue(replica_id, planes.there.url)
    files = {
        "nats.creds": access.credentials,
        "ca.crt": access.ca,
        "tls.pem": access.certificate,
    }
    for name, content in files.items():
        (directory / name).write_text(content)
    process = WorkerProcess(
        access.nats_url,
        directory,
        SERVERY_WORKER_ID=replica_id,
        SERVERY_WORKER_SERVES_ONE="true",
        SERVERY_WORKER_CAPACITY_SLOTS="4",
        SERVERY_WORKER_WARM_MEMORY_BYTES="0",
        SERVERY_WORKER_MODEL_MEMORY_BYTES=str(1024**3),
        SERVERY_NATS_INBOX_PREFIX=inbox_prefix(replica_id),
        SERVERY_NATS_CREDENTIALS=str(directory / "nats.creds"),
        SERVERY_NATS_TLS_CA=str(directory / "ca.crt"),
        SERVERY_NATS_TLS_CERT=str(directory / "tls.pem"),
        SERVERY_NATS_TLS_KEY=str(directory / "tls.pem"),
    )
    process.id = replica_id
    yield process
    assert process.stop() == 0, process.log_path.read_text()[-4000:]


@pytest.fixture
async def controller(planes: Planes) -> AsyncIterator[Bus]:
    """The controller's bus, in the control plane."""
    planes.wire.mend()
    async with connect_bus(planes.issued.of_service("controller", planes.here.url), name="controller") as bus:
        await serve_renewals(bus, signer(planes), lambda _: True)
        yield bus


@pytest.fixture
async def replica_id(controller: Bus, worker: WorkerProcess, obedient: Path) -> str:
    """The replica over there, once it is READY: ordered and heard from here."""
    orders = await WorkerOrders(controller, worker.id).start()
    launch = ReplicaLaunch(
        replica_id=worker.id,
        endpoint_id="efar",
        endpoint_name="far",
        served_entity_id="efaridfar1",
        served_entity_name="far-1",
        artifacts=artifacts(obedient),
        slots=4,
    )
    async with asyncio.timeout(30):
        while True:  # as the reconciler does, also while the link is just coming back
            try:
                await orders.ensure(launch)
                break
            except Unavailable:
                await asyncio.sleep(0.1)
    await orders.until_state(worker.id, ReplicaState.READY)
    return worker.id


@pytest.fixture
async def world(planes: Planes, replica_id: str, tmp_path: Path) -> AsyncIterator[World]:
    """A gateway in the control plane, which was told of the replica."""
    async with AsyncExitStack() as stack:
        world = World(planes.here, tmp_path, stack)
        world.nats = planes.issued.of_service("controller", planes.here.url)
        await world.connect_bus()
        world.nats = planes.issued.of_service("gateway", planes.here.url)
        await world.start_gateway(replica_wait=2.0)
        await eventually(lambda: world.gateway.why_not_ready() is None)
        await world.publish(endpoint("far", entity("far-1", ReplicaRoute(replica_id=replica_id, slots=4))))
        await until_it_answers(world)
        yield world
        planes.wire.mend()
        assert world.dead_tasks() == []
        await world.stop_gateway()


async def ask(world: World, do: str) -> httpx.Response:
    return await world.score("far", do_body(do), headers={"content-type": "application/json"})


async def until_it_answers(world: World) -> None:
    async with asyncio.timeout(30):
        while (await ask(world, "echo")).status_code != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_requests_short_and_long_are_answered_from_over_there(
    world: World, controller: Bus, replica_id: str
) -> None:
    answer = await ask(world, "echo")
    assert (answer.status_code, answer.json()) == (200, {"predictions": ["echo"]})
    # More than a message, and more than a window, both ways.
    long = 3 * 1024 * 1024
    assert (await ask(world, "length:" + "x" * long)).json() == {"predictions": [long]}
    assert (await ask(world, f"big:{long}")).json() == {"predictions": ["x" * long]}
    several = await asyncio.gather(*(ask(world, "echo") for _ in range(20)))
    assert {one.status_code for one in several} == {200}
    order = ReadReplicaLog(replica_id=replica_id, tail=10)
    log = await controller.request(subjects.worker_log(replica_id), order, ReplicaLog, timeout=5)
    assert isinstance(log.text, str)


async def test_no_connection_begins_over_there(planes: Planes, world: World, worker: WorkerProcess) -> None:
    assert (await ask(world, "echo")).status_code == 200
    server = psutil.Process(planes.there.pid).net_connections("tcp")
    listening = {one.laddr.port for one in server if one.status == psutil.CONN_LISTEN}
    accepted = [one for one in server if one.status == psutil.CONN_ESTABLISHED]
    assert planes.leaf_port in {one.laddr.port for one in accepted}, "the link"
    assert all(one.laddr.port in listening for one in accepted)
    # The worker and its model reach the server beside them, and nothing else.
    family = [psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)]
    reached = {one.raddr.port for process in family for one in process.net_connections("tcp") if one.raddr}
    assert reached == {planes.there.port}


async def test_a_replica_over_there_renews_what_lets_it_in(
    planes: Planes, world: World, worker: WorkerProcess
) -> None:
    first = worker.log_path.with_name("nats.creds").read_text()
    certificate = worker.log_path.with_name("tls.pem").read_bytes()

    def renewals() -> int:
        return worker.log_path.read_text().count('"event": "credentials_renewed"')

    before = renewals()
    await until(lambda: renewals() > before, LIFETIME.total_seconds())
    assert worker.log_path.with_name("nats.creds").read_text() != first
    assert worker.log_path.with_name("tls.pem").read_bytes() != certificate
    assert (await ask(world, "echo")).status_code == 200


async def test_a_cut_link_fails_requests_at_once_and_they_work_when_it_is_back(
    planes: Planes, world: World, controller: Bus, replica_id: str, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    under_way = asyncio.create_task(ask(world, f"sleep:15:{begun}"))
    await until(begun.exists)
    planes.wire.cut()
    async with asyncio.timeout(AT_ONCE):
        lost = await under_way
        refused = await ask(world, "echo")
    assert (lost.status_code, refused.status_code) == (503, 503)
    assert "was not run again" in lost.json()["message"]
    assert "No replica of the served entity is ready yet" in refused.json()["message"]
    order = ReadReplicaLog(replica_id=replica_id, tail=1)
    with pytest.raises(Unavailable, match="Nobody serves"):
        await controller.request(subjects.worker_log(replica_id), order, ReplicaLog, timeout=5)
    planes.wire.mend()
    await until_it_answers(world)
    beats = await WorkerOrders(controller, replica_id).start()
    assert beats.beat is not None


async def test_a_link_that_swallows_everything_is_given_up(
    planes: Planes, world: World, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    under_way = asyncio.create_task(ask(world, f"sleep:25:{begun}"))
    await until(begun.exists)
    planes.wire.swallow()
    async with asyncio.timeout(NOTICED_WITHIN):
        lost = await under_way
    assert lost.status_code == 503, lost.text
    planes.wire.mend()
    await until_it_answers(world)


async def test_a_restarted_server_over_there_is_found_again(planes: Planes, world: World) -> None:
    await asyncio.to_thread(planes.there.restart)
    await until_it_answers(world)


async def test_a_restarted_server_here_finds_its_way_again(
    planes: Planes, world: World, controller: Bus
) -> None:
    await asyncio.to_thread(planes.here.restart)
    await until_it_answers(world)
    # All that were connected to it are again, before the test ends their connections.
    await until(
        lambda: controller.connected and world.bus.connected and world.gateway.why_not_ready() is None
    )
