"""What only containers can show: why one ended, and what a replica can and cannot reach."""

import asyncio
import json
from typing import Any

import pytest
from tests.integration.compute.places import InContainers, eventually

from servery_common.contracts.states import ReplicaState
from servery_common.errors import Unavailable
from servery_controller.compute import container_spec

pytestmark = pytest.mark.docker

TRIES = """
import json, socket
def reaches(host, port):
    try:
        socket.create_connection((host, port), 2).close()
        return True
    except OSError:
        return False
print(json.dumps([reaches(host, port) for host, port in {targets}]))
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
    monkeypatch.setitem(container_spec.MEMORY_BY_WORKLOAD_TYPE, "CPU", limit)
    launch = await containers.make()
    # Memory nobody can give back: files on tmpfs count, and stay when whoever wrote them was ended.
    command = ["sh", "-c", "while :; do head -c 1000000000 /dev/zero >/tmp/full; done"]
    container = containers.container(launch.replica_id)
    filling = asyncio.create_task(asyncio.to_thread(container.exec_run, command))
    assert "needed more than its 0.8 GiB" in await ended(containers, launch.replica_id)
    await asyncio.gather(filling, return_exceptions=True)


async def test_a_replica_reaches_nats_and_nothing_else(containers: InContainers):
    one = await containers.make()
    other = await containers.make(containers.launch(workspace_id="8"))
    addresses = containers.container(other.replica_id).attrs["NetworkSettings"]["Networks"]
    [network] = addresses.values()
    targets: list[Any] = [
        ("nats", 4222),
        ("1.1.1.1", 443),
        ("172.17.0.1", 22),
        (network["IPAddress"], 4222),
        (network["Gateway"] or "10.213.0.1", 2375),
    ]
    told = json.loads(await containers.inside(one.replica_id, TRIES.format(targets=targets)))
    assert told == [True, False, False, False, False]
    names = "import socket\ntry:\n socket.gethostbyname('pypi.org'); print('found')\nexcept OSError:\n print('none')"
    assert await containers.inside(one.replica_id, names) == "none"
    routes = await containers.inside(one.replica_id, "print(open('/proc/net/route').read())")
    assert all(line.split()[1] != "00000000" for line in routes.splitlines()[1:]), "there is no way out"


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


async def test_a_half_made_network_is_put_right(containers: InContainers):
    name = f"{containers.installation}-workspace-7"
    await asyncio.to_thread(containers.engine.networks.create, name)
    await containers.make()
    [network] = await asyncio.to_thread(containers.engine.networks.list, names=[name])
    assert network.attrs["Internal"]
    assert network.attrs["Labels"]["servery.installation"] == containers.installation


async def test_nats_that_left_the_network_is_connected_again(containers: InContainers):
    launch = await containers.make()
    name = f"{containers.installation}-workspace-7"
    network = containers.engine.networks.list(names=[name])[0]
    await asyncio.to_thread(network.disconnect, containers.settings.nats_container, force=True)
    script = TRIES.format(targets=[("nats", 4222)])

    async def reached() -> bool:
        return await containers.inside(launch.replica_id, script) == "[true]"

    assert not await reached()
    await eventually(reached, 20)
