"""The engine as it must not be: away, without a socket, with things of our names that are not what we would make."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats
import pytest
from tests.engine_proxy import EngineProxy
from tests.integration.compute.places import InContainers

from servery_common.contracts.states import ReplicaState
from servery_common.errors import Unavailable
from servery_common.messaging.bus import connect_bus
from servery_common.settings import NatsSettings
from servery_common.workload_types import GIB
from servery_controller.compute.container_spec import INSTALLATION, container_name, labels_of, node_of

pytestmark = pytest.mark.docker


@pytest.fixture
async def behind_proxy(
    model_image: str, nats_container: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[InContainers, EngineProxy]]:
    """A place whose backend reaches the engine as the test lets it; the way is not open yet."""
    name, url = nats_container
    connection = await nats.connect(url)
    proxy = EngineProxy(tmp_path)
    async with connect_bus(NatsSettings(url=url), name="test") as bus:
        place = InContainers(bus, connection, model_image, name, f"compute-{uuid.uuid4().hex[:8]}")
        monkeypatch.setenv("DOCKER_HOST", proxy.url)
        try:
            yield place, proxy
        finally:
            await place.end()
            await proxy.close()
            await asyncio.to_thread(place.remove_everything)
    await connection.close()


def asks_for_a_place(place: InContainers) -> str:
    """Why there is no place for a replica."""
    with pytest.raises(Unavailable) as refused:
        place.backend.place("r1", slots=2, environment_key="k")
    return refused.value.message


async def refused(place: InContainers, launch: Any) -> str:
    """Why a replica cannot be made."""
    node = place.backend.place(launch.replica_id, slots=2, environment_key="k")
    with pytest.raises(Unavailable) as refused:
        await place.backend.ensure(node, launch)
    return refused.value.message


async def test_without_a_socket_it_says_so_and_works_once_it_is_mounted(
    behind_proxy: tuple[InContainers, EngineProxy],
) -> None:
    place, proxy = behind_proxy
    place.backend = place.make_backend()
    await place.backend.start()
    assert asks_for_a_place(place) == (
        "There is no Docker socket: mount the engine's socket into the controller, or set DOCKER_HOST."
    )
    await proxy.open()
    await place.start()
    await place.make()


async def test_with_the_engine_away_replicas_serve_and_what_became_of_them_is_seen_afterwards(
    behind_proxy: tuple[InContainers, EngineProxy],
) -> None:
    place, proxy = behind_proxy
    await proxy.open()
    await place.start()
    stays, ends = await place.make(), await place.make()
    client = await place.client()
    before = (await client.ask(stays.replica_id, "pid")).json

    await proxy.close()
    await place.kill(ends.replica_id)
    await place.until(lambda: not place.backend.observe().complete)
    assert asks_for_a_place(place) == "The Docker engine does not answer: start it."
    assert (await client.ask(stays.replica_id, "pid")).json == before, "it serves all the same"
    assert place.state(stays.replica_id) is ReplicaState.READY

    await proxy.open()
    await place.until(lambda: place.backend.observe().complete)
    await place.until(lambda: place.state(ends.replica_id) is ReplicaState.FAILED)
    seen = place.seen(ends.replica_id)
    assert seen is not None
    assert "was killed" in seen.reason
    assert (await client.ask(stays.replica_id, "pid")).json == before, "nothing was started again"
    await place.stop(stays)
    await place.until_nothing_is_left(stays.replica_id)


async def test_somebody_elses_container_is_named_and_left_alone(containers: InContainers) -> None:
    launch = containers.launch()
    name = container_name(containers.installation, launch.replica_id)
    theirs = await asyncio.to_thread(
        containers.engine.containers.create, containers.artifacts.image, ["nothing"], name=name
    )
    try:
        assert await refused(containers, launch) == (
            f"Another container has the name {name}: remove it (docker rm -f {name})."
        )
        assert await asyncio.to_thread(containers.engine.containers.get, theirs.id)
    finally:
        await asyncio.to_thread(theirs.remove)
    await containers.make(launch)


async def test_a_half_made_container_whose_network_is_gone_makes_room_for_another(
    containers: InContainers,
) -> None:
    launch = containers.launch()
    ours = {"label": f"{INSTALLATION}={containers.installation}"}
    gone = await asyncio.to_thread(
        containers.engine.networks.create, f"{containers.installation}-gone", internal=True
    )
    await asyncio.to_thread(
        containers.engine.containers.create,
        launch.artifacts.image,
        name=container_name(containers.installation, launch.replica_id),
        labels=dict(labels_of(containers.installation, launch)),
        network=gone.id,
    )
    await asyncio.to_thread(gone.remove)
    await containers.until(lambda: launch.replica_id in containers.backend.observe().waiting)
    with pytest.raises(Unavailable, match="did not start the container"):
        await containers.backend.ensure(node_of(launch.replica_id), launch)
    # Its node is gone with it: the controller decides on another replica.
    await containers.until(lambda: node_of(launch.replica_id) not in containers.backend.observe().nodes)
    assert await asyncio.to_thread(containers.engine.containers.list, all=True, filters=ours) == []
    await containers.make()


@pytest.mark.parametrize(
    "options",
    [
        {"internal": True, "options": {"com.docker.network.bridge.inhibit_ipv4": "true"}},
        {"internal": True},
        {"internal": False, "options": {"com.docker.network.bridge.inhibit_ipv4": "true"}},
        {},
    ],
    ids=["NATS is not in it", "the machine can be reached from it", "it leads outside", "both"],
)
async def test_a_half_made_network_is_completed_or_made_anew(
    containers: InContainers, options: dict[str, Any]
) -> None:
    launch = containers.launch()
    name = container_name(containers.installation, launch.replica_id)
    labels = {INSTALLATION: containers.installation}
    await asyncio.to_thread(containers.engine.networks.create, name, labels=labels, **options)
    await containers.make(launch)
    network = await asyncio.to_thread(containers.network, launch.replica_id)
    assert network.attrs["Internal"]
    assert network.attrs["Options"]["com.docker.network.bridge.inhibit_ipv4"] == "true"
    assert len(network.attrs["Containers"]) == 2, "NATS and the replica"


async def test_a_replica_that_does_not_fit_into_the_memory_is_told_so(containers: InContainers) -> None:
    machine = (await asyncio.to_thread(containers.engine.info))["MemTotal"]
    containers.settings = containers.settings.model_copy(update={"memory_overcommit": 5 * GIB / machine})
    await containers.end()
    await containers.start()
    launch = await containers.make()
    told = asks_for_a_place(containers)
    assert "it needs 4.0 GiB, and 1.0 of 5.0 GiB are free" in told
    await containers.end()
    await containers.start()
    assert asks_for_a_place(containers) == told, "counted by what there is, whoever made it"
    await containers.stop(launch)
    await containers.until_nothing_is_left(launch.replica_id)
    assert containers.backend.place("r1", slots=2, environment_key="k")
