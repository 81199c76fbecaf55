"""What only containers can show: why one ended, and what a replica can and cannot reach."""

import asyncio
import ipaddress
import json
import socket
from typing import Any

import pytest
from tests.containers.engine import address_of_bridge
from tests.integration.compute.places import InContainers, eventually

from servery_common import workload_types
from servery_common.contracts.states import ReplicaState
from servery_common.errors import Unavailable
from servery_controller.compute.container_spec import container_name

pytestmark = pytest.mark.docker

TRIES = """
import json, socket
from concurrent.futures import ThreadPoolExecutor
def reaches(host, port):
    try:
        socket.create_connection((host, port), 2).close()
        return True
    except OSError:
        return False
with ThreadPoolExecutor(8) as tries:
    print(json.dumps(list(tries.map(lambda target: reaches(*target), {targets}))))
"""


async def ended(place: InContainers, replica_id: str) -> str:
    await place.until(lambda: place.state(replica_id) is ReplicaState.FAILED, 20)
    seen = place.seen(replica_id)
    assert seen is not None
    return seen.reason or ""


async def test_a_killed_container_is_failed_with_the_reason_and_its_lines_stay(containers: InContainers):
    launch = await containers.make()
    await containers.kill(launch.replica_id)
    assert "was killed" in await ended(containers, launch.replica_id)
    await containers.until_nothing_is_left(launch.replica_id)
    assert await containers.backend.logs(launch.replica_id, 10)


async def test_a_container_out_of_memory_says_so(containers: InContainers, monkeypatch: pytest.MonkeyPatch):
    limit = 768 * 1024**2
    monkeypatch.setitem(workload_types.MEMORY_BY_WORKLOAD_TYPE, "CPU", limit)
    launch = await containers.make()
    # Memory nobody can give back: files on tmpfs count, and stay when whoever wrote them was ended.
    command = ["sh", "-c", "while :; do head -c 1000000000 /dev/zero >/tmp/full; done"]
    container = containers.container(launch.replica_id)
    filling = asyncio.create_task(asyncio.to_thread(container.exec_run, command))
    assert "needed more than its 0.8 GiB" in await ended(containers, launch.replica_id)
    await asyncio.gather(filling, return_exceptions=True)


async def test_a_replica_reaches_nats_and_nothing_else(containers: InContainers):
    one, neighbour = await containers.make(), await containers.make()
    other = await containers.make(containers.launch(workspace_id="8"))
    addresses: list[str] = []
    own = TRIES.format(targets=[("127.0.0.1", 8000)])
    for launch in (neighbour, other):
        listener = containers.container(launch.replica_id)
        [network] = listener.attrs["NetworkSettings"]["Networks"].values()
        addresses.append(network["IPAddress"])
        await asyncio.to_thread(listener.exec_run, ["python", "-m", "http.server", "8000"], detach=True)

        async def listens(replica_id: str = launch.replica_id) -> bool:
            return await containers.inside(replica_id, own) == "[true]"

        await eventually(listens, 20)
    with socket.create_server(("0.0.0.0", 0)) as machine:
        own_network = containers.container(one.replica_id).attrs["NetworkSettings"]["Networks"]
        [mine] = own_network.values()
        subnet = ipaddress.ip_interface(f"{mine['IPAddress']}/{mine['IPPrefixLen']}").network
        port = machine.getsockname()[1]
        targets: dict[str, Any] = {
            "nats": ("nats", 4222),
            "a replica of its workspace": (addresses[0], 8000),
            "that, by its name": (containers.container(neighbour.replica_id).name, 8000),
            "another workspace's replica": (addresses[1], 8000),
            "the machine": (address_of_bridge(), port),
            "its bridge": (str(subnet[1]), port),
            "the internet": ("1.1.1.1", 443),
        }
        script = TRIES.format(targets=list(targets.values()))
        told = json.loads(await containers.inside(one.replica_id, script))
    assert dict(zip(targets, told, strict=True)) == dict.fromkeys(targets, False) | {"nats": True}
    script = "import socket\ntry:\n socket.gethostbyname('example.com'); print(1)\nexcept OSError:\n print(0)"
    assert await containers.inside(one.replica_id, script) == "0"


async def test_a_replica_may_do_nothing_but_serve(containers: InContainers):
    launch = await containers.make()
    status = await containers.inside(launch.replica_id, "print(open('/proc/1/status').read())")
    told = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert {told[name] for name in ("CapEff", "CapPrm", "CapBnd", "CapInh")} == {"0" * 16}
    assert told["NoNewPrivs"] == "1"
    assert told["Uid"].split() == ["10001"] * 4
    script = "try:\n open('/opt/x', 'w')\nexcept OSError as e:\n print(e.errno)\nopen('/tmp/x', 'w')"
    assert await containers.inside(launch.replica_id, script) == "30", "EROFS, though not for /tmp"


async def test_an_image_that_is_gone_is_a_clear_error(containers: InContainers):
    gone = containers.artifacts.model_copy(update={"image": "sha256:" + "0" * 64})
    for artifacts, says in (
        (gone, "not there any more"),
        (gone.model_copy(update={"image": None}), "no image"),
    ):
        launch = containers.launch(artifacts=artifacts)
        node = containers.backend.place(launch.replica_id, slots=2, environment_key="k")
        with pytest.raises(Unavailable, match=says):
            await containers.backend.ensure(node, launch)
        containers.backend.forget_placement(launch.replica_id)


async def test_replicas_that_come_at_once_have_a_network_each_with_nats_alone(containers: InContainers):
    nats = containers.settings.nats_container
    for launch in await asyncio.gather(*[containers.make() for _ in range(3)]):
        network = await asyncio.to_thread(containers.network, launch.replica_id)
        inside = {one["Name"] for one in network.attrs["Containers"].values()}
        assert inside == {nats, containers.container(launch.replica_id).name}
        labels = network.attrs["Labels"]
        assert labels["servery.installation"] == containers.installation
        assert (labels["servery.replica"], labels["servery.workspace"]) == (launch.replica_id, "7")


async def test_somebody_elses_network_is_named_and_left_alone(containers: InContainers):
    launch = containers.launch()
    name = container_name(containers.installation, launch.replica_id)
    theirs = await asyncio.to_thread(containers.engine.networks.create, name)
    try:
        node = containers.backend.place(launch.replica_id, slots=2, environment_key="k")
        with pytest.raises(Unavailable, match=f"Another network has the name {name}"):
            await containers.backend.ensure(node, launch)
        assert await asyncio.to_thread(containers.engine.networks.list, ids=[theirs.id])
    finally:
        await asyncio.to_thread(theirs.remove)


async def test_a_container_that_was_made_and_not_started_is_started(containers: InContainers):
    """As a controller leaves it that is killed in between."""
    launch = containers.launch()
    node = containers.backend.place(launch.replica_id, slots=2, environment_key="k")
    await containers.backend.ensure(node, launch)
    container = containers.container(launch.replica_id)
    options = container.attrs["Config"]
    await asyncio.to_thread(container.remove, force=True)
    await asyncio.to_thread(
        containers.engine.containers.create,
        options["Image"],
        name=container.name,
        labels=options["Labels"],
        environment=options["Env"],
        network=next(iter(container.attrs["NetworkSettings"]["Networks"])),
    )
    await containers.end()
    await containers.start()
    async with asyncio.timeout(60):
        while containers.state(launch.replica_id) is not ReplicaState.READY:
            await containers.backend.ensure(node, launch)
            await asyncio.sleep(0.2)


async def test_nats_that_left_the_network_is_connected_again(containers: InContainers):
    launch = await containers.make()
    network = await asyncio.to_thread(containers.network, launch.replica_id)
    script = TRIES.format(targets=[("nats", 4222)])

    async def reached() -> bool:
        return await containers.inside(launch.replica_id, script) == "[true]"

    await containers.end()
    await asyncio.to_thread(network.disconnect, containers.settings.nats_container or "", force=True)
    assert not await reached()
    await containers.start()
    await eventually(reached, 20)
