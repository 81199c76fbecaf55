"""Networks of replicas on a real engine: those left behind, of releases before, without NATS, wanted by two at once."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Network
from types import SimpleNamespace
from typing import Any

import docker
import pytest
from tests.integration.compute.conftest import NATS_IMAGE
from tests.unit.controller.test_container_spec import launch

from servery_common.contracts.replicas import ReplicaLaunch
from servery_common.errors import Unavailable
from servery_controller.compute.container_spec import INSTALLATION, WORKSPACE, container_name, labels_of
from servery_controller.compute.replica_networks import UNUSED_SECONDS, ReplicaNetworks

pytestmark = pytest.mark.docker

LONG = UNUSED_SECONDS + 1
POOL = IPv4Network("10.213.0.0/16")


class World:
    """An installation on the engine, with a NATS of its own, and containers that stand for replicas'."""

    def __init__(self, engine: docker.DockerClient) -> None:
        self.engine = engine
        self.installation = f"networks-{uuid.uuid4().hex[:8]}"
        self.now = 0.0
        self.networks = self.another_controllers()
        self.nats: Any = None
        self.start_nats()

    def another_controllers(self, pool: IPv4Network = POOL) -> ReplicaNetworks:
        return ReplicaNetworks(self.installation, f"{self.installation}-nats", pool, lambda: self.now)

    def start_nats(self) -> None:
        name = f"{self.installation}-nats"
        labels = {INSTALLATION: self.installation}
        self.nats = self.engine.containers.run(NATS_IMAGE, name=name, labels=labels, detach=True)

    def launch(self) -> ReplicaLaunch:
        return launch(replica_id=uuid.uuid4().hex)

    def network(self) -> ReplicaLaunch:
        """Have a replica's network, as if its container came next."""
        asked = self.launch()
        self.networks.ensure(self.engine, asked)
        return asked

    def container(self, asked: ReplicaLaunch, network: str) -> Any:
        return self.engine.containers.run(
            NATS_IMAGE,
            name=container_name(self.installation, asked.replica_id),
            labels=dict(labels_of(self.installation, asked)),
            network=network,
            detach=True,
        )

    def network_of_a_workspace(self) -> str:
        """As releases before made them; NATS is not in it."""
        network = self.engine.networks.create(
            f"{self.installation}-workspace-7",
            internal=True,
            options={"com.docker.network.bridge.inhibit_ipv4": "true"},
            labels={INSTALLATION: self.installation, WORKSPACE: "7"},
        )
        return network.name

    def reconcile(self, *replicas: ReplicaLaunch, later: float = 0.0) -> None:
        self.now += later
        self.networks.reconcile(self.engine, {one.replica_id for one in replicas})

    def all(self) -> dict[str, set[str]]:
        """Who is in which network, by names."""
        found = self.engine.networks.list(
            filters={"label": f"{INSTALLATION}={self.installation}"}, greedy=True
        )
        assert len({network.name for network in found}) == len(found)
        return {
            network.name: {one["Name"] for one in network.attrs["Containers"].values()} for network in found
        }

    def name(self, asked: ReplicaLaunch) -> str:
        return container_name(self.installation, asked.replica_id)

    def remove_everything(self) -> None:
        ours = {"label": f"{INSTALLATION}={self.installation}"}
        for container in self.engine.containers.list(all=True, filters=ours):
            container.remove(force=True, v=True)
        for network in self.engine.networks.list(filters=ours):
            network.remove()


@pytest.fixture
def world(engine: docker.DockerClient) -> Iterator[World]:
    world = World(engine)
    try:
        yield world
    finally:
        world.remove_everything()


def test_a_network_goes_with_its_container(world: World):
    stays, goes = world.network(), world.network()
    ends = [world.container(one, world.name(one)) for one in (stays, goes)][1]
    world.reconcile(stays, goes)
    ends.remove(force=True, v=True)
    world.reconcile(stays)
    assert world.all() == {world.name(stays): {world.nats.name, world.name(stays)}}


def test_a_network_whose_container_never_came_goes_after_a_while(world: World):
    left_behind = world.network()
    world.reconcile()
    world.reconcile(later=UNUSED_SECONDS - 1)
    assert world.all() == {world.name(left_behind): {world.nats.name}}, "it may be about to come"
    world.networks = world.another_controllers()  # which has not seen how long it has been there
    world.reconcile()
    assert world.all()
    world.reconcile(later=LONG)
    assert world.all() == {}


def test_a_network_that_is_asked_for_again_has_its_time_again(world: World):
    asked = world.network()
    world.reconcile()
    world.now += UNUSED_SECONDS - 1
    world.networks.ensure(world.engine, asked)  # The first container could not be made.
    world.reconcile(later=2)
    assert world.all() == {world.name(asked): {world.nats.name}}


def test_a_container_that_is_not_known_yet_keeps_its_network_and_nats(world: World):
    asked = world.network()
    world.reconcile()
    world.container(asked, world.name(asked))
    world.reconcile(later=LONG)
    assert world.all() == {world.name(asked): {world.nats.name, world.name(asked)}}


def test_the_network_of_a_workspace_is_looked_after_until_its_last_replica_has_gone(world: World):
    asked = world.launch()
    name = world.network_of_a_workspace()
    container = world.container(asked, name)
    world.reconcile(asked)
    world.reconcile(asked, later=LONG)
    assert world.all() == {name: {world.nats.name, world.name(asked)}}
    container.remove(force=True, v=True)
    world.reconcile()
    assert world.all() == {}


def test_a_nats_made_anew_is_connected_to_all_and_known_by_its_name(world: World):
    replicas = [world.network() for _ in range(3)]
    old = world.network_of_a_workspace()
    world.nats.remove(force=True, v=True)
    with pytest.raises(Unavailable, match="There is no container"):
        world.reconcile(*replicas)
    world.start_nats()
    world.reconcile(*replicas)
    assert world.all() == {name: {world.nats.name} for name in (old, *map(world.name, replicas))}
    world.nats.reload()
    joined = world.nats.attrs["NetworkSettings"]["Networks"]
    assert all("nats" in joined[world.name(one)]["Aliases"] for one in replicas)


def test_a_nats_that_is_stopped_can_be_started_after_a_network_has_gone(world: World):
    world.network()
    world.reconcile()
    world.nats.stop(timeout=1)
    world.reconcile(later=LONG)
    assert world.all() == {}
    world.nats.start()


def test_controllers_that_make_a_network_at_once_use_the_same_one(world: World):
    controllers = [world.another_controllers() for _ in range(4)]
    with ThreadPoolExecutor(len(controllers)) as threads:
        for _ in range(3):
            asked = world.launch()
            made = set(threads.map(lambda one, asked=asked: one.ensure(world.engine, asked), controllers))
            assert made == {world.engine.networks.get(world.name(asked)).id}
            assert world.all()[world.name(asked)] == {world.nats.name}


@pytest.mark.parametrize("status", [404, 409], ids=["its own is gone again", "the name is taken"])
def test_a_controller_that_another_one_was_ahead_of_uses_the_others_network(world: World, status: int):
    asked = world.launch()

    def create(name: str, **_: Any) -> None:
        world.networks.ensure(world.engine, asked)
        raise docker.errors.APIError("", SimpleNamespace(status_code=status, url="/networks", reason=name))

    networks = SimpleNamespace(list=world.engine.networks.list, create=create)
    engine = SimpleNamespace(networks=networks, containers=world.engine.containers)
    made = world.another_controllers().ensure(engine, asked)
    assert made == world.engine.networks.get(world.name(asked)).id
    assert world.all() == {world.name(asked): {world.nats.name}}


def test_many_at_once_have_subnets_of_their_own(world: World):
    replicas = [world.launch() for _ in range(10)]
    with ThreadPoolExecutor(6) as threads:
        made = list(threads.map(lambda asked: world.networks.ensure(world.engine, asked), replicas))
    networks = [world.engine.networks.get(one) for one in made]
    subnets = {IPv4Network(one.attrs["IPAM"]["Config"][0]["Subnet"]) for one in networks}
    assert len(subnets) == len(replicas)
    assert {(one.prefixlen, one.subnet_of(POOL)) for one in subnets} == {(29, True)}
    assert world.all() == {world.name(asked): {world.nats.name} for asked in replicas}


@pytest.mark.parametrize("shown", [True, False], ids=["shown", "not shown"])
def test_a_subnet_somebody_else_has_is_not_taken_and_a_full_pool_says_so(world: World, shown: bool):
    pool = IPv4Network(
        (int(IPv4Network("10.214.0.0/16").network_address) + 16 * (uuid.uuid4().int % 4096), 28)
    )
    theirs, free = pool.subnets(new_prefix=29)
    ipam = docker.types.IPAMConfig(pool_configs=[docker.types.IPAMPool(subnet=str(theirs))])
    labels = {INSTALLATION: world.installation}
    world.engine.networks.create(f"{world.installation}-theirs", labels=labels, ipam=ipam)
    networks = world.engine.networks
    list_of_them = networks.list if shown else lambda names=(): networks.list(names=names) if names else []
    engine = SimpleNamespace(
        networks=SimpleNamespace(list=list_of_them, create=networks.create),
        containers=world.engine.containers,
    )
    controller = world.another_controllers(pool)
    made = networks.get(controller.ensure(engine, world.launch()))
    assert made.attrs["IPAM"]["Config"][0]["Subnet"] == str(free)
    with pytest.raises(
        Unavailable, match=f"No subnet of {pool} is free .* SERVERY_CONTROLLER_DOCKER_SUBNETS"
    ):
        controller.ensure(engine, world.launch())
